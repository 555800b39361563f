"""Recurrences by the libraries torch was built with: oneDNN on a CPU, cuDNN on a GPU.

One dense layer in one direction, which is what their fast algorithms want: no packing, no second
direction, no second layer (see docs/design.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr.models.cells import State, Weights

LIBRARY: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm,
    "projected": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}
ON_CPU = {"lstm"}  # oneDNN serves it alone; torch's own loops for the others are slower than ours


def serves(name: str, values: Tensor) -> bool:
    """Whether a library runs the cell on such an input."""
    return name in LIBRARY and (values.is_cuda or name in ON_CPU)


def run(name: str, values: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """Outputs and the state after the last frame. B batch, T time, I input, R output features.

    Shape: values [B, T, I], state h [B, R] and c [B, H] -> [B, T, R], state.
    """
    bias = weights["bias"]
    second = torch.zeros_like(bias)
    if "bias_n" in weights:  # torch's second bias holds what is reset
        second = torch.cat([second[: -len(weights["bias_n"])], weights["bias_n"]])
    parameters = [weights["weight_ih"], weights["weight_hh"], bias, second]
    if "weight_hr" in weights:
        parameters.append(weights["weight_hr"])
    before = [part[None] for part in state]
    outputs, *after = LIBRARY[name](
        values,
        before if len(before) > 1 else before[0],
        parameters,
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),
        bidirectional=False,
        batch_first=True,
    )
    return outputs, tuple(part[0] for part in after)
