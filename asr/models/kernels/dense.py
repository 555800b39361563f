"""Recurrences by the libraries of torch: oneDNN on a CPU, cuDNN on a GPU.

One dense layer in one direction, for which their fast algorithms apply: no packing, no second
direction, no second layer (see docs/design.md).
"""

from __future__ import annotations

import functools
import warnings
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
ON_CPU = {"lstm"}  # oneDNN has only this one; torch's loops for others are slower than ours


def serves(name: str, values: Tensor) -> bool:
    """Whether a library supports the cell with such an input."""
    return name in LIBRARY and (values.is_cuda or name in ON_CPU)


@functools.cache
def trains_lstm_in(dtype: torch.dtype) -> bool:
    """Whether this processor trains an LSTM under autocast to `dtype`.

    Only some processors have the primitive of oneDNN, and no query tells which: a tiny LSTM is run
    forwards and backwards.
    """
    sizes = (8, 2), (8, 2), (8,), (8,)
    with torch.inference_mode(False), torch.enable_grad():
        weights = [torch.zeros(size, requires_grad=True) for size in sizes]
        state = [torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)]
        try:
            with torch.autocast("cpu", dtype):
                outputs = torch.lstm(
                    torch.zeros(1, 2, 2), state, weights, True, 1, 0.0, True, False, True
                )[0]
            outputs.float().sum().backward()
        except RuntimeError:
            return False
    return outputs.dtype == dtype


@functools.cache
def _say_float32(dtype: torch.dtype) -> None:
    warnings.warn(
        f"LSTM layers run in float32: this processor cannot run them in {dtype}", stacklevel=4
    )


def run(name: str, values: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """Outputs and the state after the last frame. B batch, T time, I input, R output features.

    Under autocast to a type without an LSTM on this processor, they are computed in the type of the
    weights, with one warning per process.

    Shape: values [B, T, I], state h [B, R] and c [B, H] -> [B, T, R], state.
    """
    if values.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        if not trains_lstm_in(dtype):
            _say_float32(dtype)
            long = weights["weight_ih"].dtype
            with torch.autocast("cpu", enabled=False):
                state = tuple(part.to(long) for part in state)
                return _run(name, values.to(long), state, weights)
    return _run(name, values, state, weights)


def _run(name: str, values: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """As `run`, in the type that torch chooses.

    Shape: values [B, T, I], state h [B, R] and c [B, H] -> [B, T, R], state.
    """
    bias = weights["bias"]
    second = torch.zeros_like(bias)
    if "bias_n" in weights:  # torch's second bias is the one that is reset
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
