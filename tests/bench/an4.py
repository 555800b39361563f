"""The recipe's whole stack on AN4's own batches, at the lengths its encoder sees."""

from __future__ import annotations

from functools import partial

import torch

from asr.padded import Padded
from tests.bench.corpus import Corpus, load, spread
from tests.bench.stacks import contestants, largest_difference, random_batch, training_step, twins
from tests.bench.timing import interleave, print_ratios, threads, verdict

BATCHES = 6
ROUNDS = 3


def run() -> None:
    """Print the table, or why there is none."""
    print("\nan4: the recurrent stack on AN4's batches")
    corpus = load()
    if corpus is None:
        return
    torch.manual_seed(0)
    hidden = corpus.recipe.model.hidden
    width = corpus.model.state_dict()["encoder.layers.0.ahead.weight_ih"].shape[1]
    batches = encoder_batches(corpus, width)
    layers = corpus.recipe.model.layers
    ours, theirs = twins(width, hidden, layers)
    with threads(2):
        outputs, gradients = largest_difference(ours, theirs, batches[-1])
        steps = {
            name: partial(training_step, forward, module, batches)
            for name, (forward, module) in contestants(ours, theirs).items()
        }
        seconds = interleave(steps, ROUNDS)
    sizes = ", ".join(f"{x.values.shape[0]}x{x.values.shape[1]}" for x in batches)
    print_ratios(
        f"  {layers} layers, H={hidden}, batches (B x T) {sizes}, two threads, median of {ROUNDS}",
        "s for all",
        seconds,
        lambda value: f"{value:.2f}",
    )
    print(f"  ours and packed differ by {outputs:.1e} (outputs), {gradients:.1e} (gradients)")
    gain = seconds["packed nn.LSTM"] / seconds["ours"]
    verdict("packed over ours", gain, ">= 2", gain >= 2)


def encoder_batches(corpus: Corpus, width: int) -> list[Padded]:
    """Noise in the shape of what reaches the first recurrent layer."""
    found = []
    for items in spread(corpus.plan(1), BATCHES):
        seconds = torch.tensor([item.seconds(corpus.data.durations) for item in items])
        samples = (seconds * corpus.data.sample_rate).long()
        found.append(random_batch(corpus.model.output_lengths(samples), width))
    return found
