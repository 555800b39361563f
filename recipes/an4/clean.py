"""Shuffle a tenth of AN4's training transcripts, and see how many of them `asr clean` ranks worst.

python recipes/an4/clean.py --source DIR             train on the shuffled set, seeds 1 and 2
python recipes/an4/clean.py --source DIR --seeds 1   with one seed
python recipes/an4/clean.py train.epochs=20          with another schedule

The network has a million parameters and the schedule of docs/family.md. The dev set has correct
transcripts and chooses the epochs, as in the recipe. With transcripts of dev shuffled in the same
way, `DRAWS` times, other measures of a misfit are compared with that of `asr clean`. Stopped, it
goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip
import numpy as np
import torch

from asr.cli.console import run_command
from asr.ctc.align import align
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.decoding.greedy import greedy_decode
from asr.evaluation.classification import wilson_interval
from asr.evaluation.evaluate import machine_name
from asr.evaluation.misfit import misfits, rank
from asr.evaluation.page import interval_text
from asr.experiments.family import parser
from asr.inference.decode import batch_seconds, evaluation_mode, load_batches
from asr.io.files import write_json
from asr.io.terminal import tell
from asr.models.bundle import Bundle, load_bundle
from asr.padded import Padded
from asr.text.tokens import BLANK_ID
from asr.training.recipe import read_recipe
from asr.training.trainer import train
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-clean"
SHUFFLED = 0.1  # of the transcripts
WORST = 0.12  # of the ranking, within which they should be
DRAWS = 50  # shuffles of dev


@dataclass(frozen=True)
class Found:
    """Of the shuffled transcripts, those within the worst part of the ranking."""

    seed: int
    epochs: int
    shuffled: int
    found: int
    within: int
    on_dev: dict[str, int]
    """Those of dev, by measure, of all draws."""
    of_dev: int
    machine: str
    date: str

    def __str__(self) -> str:
        interval = interval_text(wilson_interval(self.found, self.shuffled))
        return (
            f"seed {self.seed}: {self.found} of {self.shuffled} shuffled transcripts within the "
            f"worst {self.within} (95 % {interval} %); {self.date}, {self.machine}"
        )


def main() -> None:
    arguments = parser(__doc__, OUT).parse_intermixed_args()
    run_command(partial(measure, arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Train on shuffled transcripts with each seed, rank them, and write the counts."""
    parts = an4.prepare(arguments.out / "data", arguments.source)
    rows = []
    for seed in arguments.seeds:
        utterances, wrong = shuffled(read_manifest(parts["train"]), seed)
        manifest = arguments.out / "data" / f"shuffled-{seed}.jsonl"
        write_manifest(manifest, utterances)
        settings = [*arguments.overrides, f"train.seed={seed}"]
        settings += [f"data.train={manifest}", f"data.dev={parts['dev']}"]
        recipe = read_recipe(HERE / "family.yaml", settings)
        out = arguments.out / f"{seed}-{recipe.train.epochs}"  # one folder per schedule
        bundle = load_bundle(train(recipe.model_copy(update={"out": out})))
        on_dev, of_dev = compare_measures(bundle, read_manifest(parts["dev"]))
        ranked = rank(bundle, Decoder(bundle.tokens), utterances, _refuse)
        within = int(WORST * len(ranked))
        found = sum(row.utterance.id in wrong for row in ranked[:within])
        today, machine, epochs = date.today().isoformat(), machine_name(), recipe.train.epochs
        row = Found(seed, epochs, len(wrong), found, within, on_dev, of_dev, machine, today)
        rows.append(row)
        tell(row)
        for name, count in on_dev.items():
            tell(f"  on dev: {name}: {count} of {of_dev}")
        write_json(arguments.out / "clean.json", [asdict(row) for row in rows])


def shuffled(utterances: Sequence[Utterance], seed: int) -> tuple[list[Utterance], set[str]]:
    """The utterances with a tenth of their transcripts shuffled, and the ids of these. None of them
    keeps its text."""
    random = np.random.default_rng(seed)
    count = round(SHUFFLED * len(utterances))
    while True:
        chosen = random.choice(len(utterances), count, replace=False)
        texts = [utterances[i].text for i in chosen]
        if 2 * max(Counter(texts).values()) <= count:  # else some would keep theirs
            break
    order = random.permutation(count)
    # Words such as YES have several recordings: texts of those that kept theirs are swapped again.
    while kept := [i for i in range(count) if texts[order[i]] == texts[i]]:
        for i in kept:
            j = int(random.integers(count))
            order[[i, j]] = order[[j, i]]
    new = {int(chosen[i]): texts[order[i]] for i in range(count)}
    rows = [replace(u, text=new.get(i, u.text)) for i, u in enumerate(utterances)]
    return rows, {utterances[i].id for i in new}


def _refuse(name: str, error: Exception) -> None:
    raise error


# --- other measures, on dev ---


def compare_measures(bundle: Bundle, dev: Sequence[Utterance]) -> tuple[dict[str, int], int]:
    """The number of shuffled transcripts of dev within the worst part, by measure, and that of all
    of them."""
    outputs = _outputs(bundle, dev)
    right = {u.id: _measures(bundle, outputs[u.id], u.text) for u in dev}
    found = dict.fromkeys(right[dev[0].id], 0)
    total = 0
    for draw in range(DRAWS):
        rows, wrong = shuffled(dev, 100 + draw)
        total += len(wrong)
        changed = {
            u.id: _measures(bundle, outputs[u.id], u.text) if u.id in wrong else right[u.id]
            for u in rows
        }
        for name in found:
            misfit = {id_: values[name] for id_, values in changed.items()}
            order = sorted(misfit, key=lambda id_: -misfit[id_])
            found[name] += len(wrong.intersection(order[: int(WORST * len(dev))]))
    return found, total


def _outputs(bundle: Bundle, dev: Sequence[Utterance]) -> dict[str, dict[str, torch.Tensor]]:
    """The output of each CTC layer by utterance. Shape: [T, V]."""
    data = SpeechDataset(dev, None, bundle.text, bundle.sample_rate)
    found = {}
    with evaluation_mode(bundle.model), torch.inference_mode():
        for batch in load_batches(data, batch_seconds(bundle.model)):
            written, spelled = bundle.model.forward_and_spell(bundle.model.features(batch.waves))
            assert spelled is not None
            pairs = zip(written.unpad(), spelled.unpad(), strict=True)
            for id_, (words, letters) in zip(batch.ids, pairs, strict=True):
                found[id_] = {"words": words, "letters": letters}
    return found


def _measures(bundle: Bundle, outputs: dict[str, torch.Tensor], text: str) -> dict[str, float]:
    tokens = bundle.tokens.encode(bundle.normalise(text))
    found = {}
    for layer, scores in outputs.items():
        target = tokens if layer == "words" else bundle.tokens.spell(tokens)
        units = max(1, len(target))
        row = Padded(scores[None], torch.tensor([len(scores)]))
        (greedy,) = greedy_decode(row)
        loss, least = misfits(row, [target])[0], misfits(row, [greedy])[0]
        found[f"loss per token, {layer}"] = loss
        found[f"loss above that of the hypothesis, {layer}"] = (
            loss - least * max(1, len(greedy)) / units
        )
        found[f"best alignment per token, {layer}"] = _alignment(scores, target) / units
    return found


def _alignment(scores: torch.Tensor, target: Sequence[int]) -> float:
    """The negative log-probability of the best alignment."""
    try:
        spans = align(scores, target)
    except ValueError:
        return math.inf
    tokens = torch.full((len(scores),), BLANK_ID)
    for token, (first, last) in zip(target, spans, strict=True):
        tokens[first : last + 1] = token
    return -float(scores.gather(1, tokens[:, None]).sum())


if __name__ == "__main__":
    main()
