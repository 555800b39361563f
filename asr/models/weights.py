"""Weights in a safetensors file: written, and checked against a network before loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from asr.errors import CheckpointError, ConfigError
from asr.io.tensors import read_header, read_tensors, shapes_only, write_tensors

M = TypeVar("M", bound=nn.Module)

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32",
}  # fmt: skip
# Types that may be stored instead of float32.
SHORTER = {"F16", "BF16"}


def save_weights(path: Path, model: nn.Module, half: bool = False) -> None:
    """Write parameters and buffers; with `half` as float16, if they fit.

    Raises CheckpointError for weights that are not finite.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if name := _not_finite(weights):
        raise CheckpointError(
            f"expected finite weights to save, got {name} with NaN or infinity: the training has "
            "diverged; lower the learning rate and train again"
        )
    if half:
        weights = {k: _halved(v) for k, v in weights.items()}
    write_tensors(weights, path)


def _halved(weight: Tensor) -> Tensor:
    """As float16; a tensor that would overflow, such as a variance above 65504, stays float32."""
    if weight.dtype != torch.float32:
        return weight
    half = weight.half()
    return half if torch.isfinite(half).all() else weight


def load_model(make: Callable[[], M], path: Path) -> M:
    """The network built by `make`, in evaluation mode, with the weights of a file.

    It is built on torch's meta device, without memory, and first compared with the header of the
    file: a configuration of a few bytes can request any amount, and initial weights, which are
    overwritten, take most of the time. Constants that are not saved must be created on the CPU.

    Raises CheckpointError unless names, shapes and types match and every weight is finite.
    """
    try:
        with shapes_only():
            model = make()
    except ConfigError as error:
        raise CheckpointError(f"{path.parent}: {error}") from None
    except RuntimeError:
        raise CheckpointError(
            f"expected a network that fits into memory, got a larger one in {path.parent}: "
            "copy the folder again"
        ) from None
    own = model.state_dict()
    _compare(_describe(own), read_header(path), path.parent)
    stored = read_tensors(path)
    # Copies, not views of the mapped file, whose content another process may change.
    weights = {k: stored[k].to(v.dtype, copy=True).contiguous() for k, v in own.items()}
    _check_finite(weights, path)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Copy weights into `model`. Raises CheckpointError unless names, shapes and types match."""
    _compare(_describe(model.state_dict()), _describe(weights), source)
    model.load_state_dict(weights)


def _describe(weights: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {k: (tuple(v.shape), NAMES.get(v.dtype, str(v.dtype))) for k, v in weights.items()}


def _compare(
    own: Mapping[str, tuple[tuple[int, ...], str]],
    weights: Mapping[str, tuple[tuple[int, ...], str]],
    source: Path,
) -> None:
    for name in sorted(own.keys() | weights.keys()):
        expected = own[name][0] if name in own else "nothing"
        got = weights[name][0] if name in weights else "nothing"
        if expected != got:
            raise CheckpointError(
                f"{source}: expected {name} of shape {expected}, got {got}: "
                "weights and configuration are of different models"
            )
        kind, given = own[name][1], weights[name][1]
        if given != kind and not (kind == "F32" and given in SHORTER):
            also = " or F16" if kind == "F32" else ""
            raise CheckpointError(
                f"{source}: expected {name} of type {kind}{also}, got {given}: "
                "copy the folder again, or convert the weights back"
            )


def _check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    if name := _not_finite(weights):
        raise CheckpointError(
            f"{path}: expected finite weights, got {name} with others: "
            "use the model of an earlier epoch, or train again"
        )


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            return name
    return None
