"""Our bidirectional layers and torch's, with the same weights, and one training step of either."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded

Forward = Callable[[Padded], Tensor]
SAME_OUTPUTS = 1e-5


def twins(input_size: int, hidden_size: int, layers: int) -> tuple[nn.Sequential, nn.LSTM]:
    """A stack of our layers and torch's bidirectional LSTM with the very same weights."""
    sizes = [input_size] + [2 * hidden_size] * (layers - 1)
    stack = [RecurrentLayer(size, hidden_size) for size in sizes]
    theirs = nn.LSTM(input_size, hidden_size, layers, batch_first=True, bidirectional=True)
    weights = {}
    for number, layer in enumerate(stack):
        assert layer.back is not None
        for direction, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            ending = f"_l{number}{suffix}"
            weights[f"weight_ih{ending}"] = direction.weight_ih.detach()
            weights[f"weight_hh{ending}"] = direction.weight_hh.detach()
            weights[f"bias_ih{ending}"] = direction.bias.detach()
            weights[f"bias_hh{ending}"] = torch.zeros_like(direction.bias)
    theirs.load_state_dict(weights)
    return nn.Sequential(*stack), theirs


def contestants(ours: nn.Sequential, theirs: nn.LSTM) -> dict[str, tuple[Forward, nn.Module]]:
    """Padded input to output [B, T, 2H] for ours, torch's packed, and torch's blind to lengths."""

    def packed(x: Padded) -> Tensor:
        lengths = x.lengths.cpu()
        sequence = pack_padded_sequence(x.values, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0]

    return {
        "ours": (lambda x: ours(x).values, ours),
        "packed nn.LSTM": (packed, theirs),
        "dense nn.LSTM": (lambda x: theirs(x.values)[0], theirs),
    }


def training_step(forward: Forward, module: nn.Module, batches: Iterable[Padded]) -> None:
    """Forward and backward over batches, down to the input; the loss counts valid frames only."""
    for x in batches:
        module.zero_grad(set_to_none=True)
        x.values.grad = None
        (forward(x) * x.mask()[:, :, None]).square().mean().backward()


def largest_difference(ours: nn.Sequential, theirs: nn.LSTM, x: Padded) -> tuple[float, float]:
    """Between ours and packed, on valid frames: of outputs, and of input gradients in their scale.

    Raises AssertionError where outputs differ by more than `SAME_OUTPUTS`.
    """
    outputs, gradients = [], []
    both = contestants(ours, theirs)
    for name in ("ours", "packed nn.LSTM"):
        values = x.values.detach().clone().requires_grad_()
        output = both[name][0](Padded(values, x.lengths)) * x.mask()[:, :, None]
        output.square().sum().backward()
        assert values.grad is not None
        outputs.append(output.detach())
        gradients.append(values.grad)
    difference = float((outputs[0] - outputs[1]).abs().max())
    assert difference <= SAME_OUTPUTS, f"outputs differ by {difference:.2g}"
    scale = float(gradients[1].abs().max())
    return difference, float((gradients[0] - gradients[1]).abs().max()) / scale


def random_batch(lengths: Tensor, size: int, seed: int = 0) -> Padded:
    """Noise of these lengths that wants a gradient. Shape: [B] -> [B, max, size]."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), int(lengths.max()), size, generator=generator)
    return Padded(Padded(values, lengths).zeroed().values.requires_grad_(), lengths)
