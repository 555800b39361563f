"""Tensors in safetensors files, which hold no code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from asr.errors import CheckpointError, reason

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file. Raises OSError if it cannot be written."""
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        # safetensors raises its own exception for system errors, with their number in the message.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    with suppress(OSError):  # on a drive whose files all belong to another user
        path.chmod(0o644)  # by default, only the owner may read the file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises CheckpointError naming it."""
    from safetensors.torch import load_file

    return _checked(path, lambda: load_file(path))


def read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor of a file. Raises CheckpointError naming it."""

    def read() -> dict[str, tuple[tuple[int, ...], str]]:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {k: (tuple(v.get_shape()), v.get_dtype()) for k, v in slices.items()}

    return _checked(path, read)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Networks that are made in this context have shapes, but no memory and no values: they are on
    torch's meta device.

    Initialisations are skipped for which torch would import its compiler, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Skipping(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            if func in (torch.Tensor.normal_, torch.nn.init.normal_):
                return args[0] if args else kwargs["tensor"]
            if func is torch.norm_except_dim:  # for weight normalisation
                weight, _, dim = args
                return weight.new_empty([n if i == dim else 1 for i, n in enumerate(weight.shape)])
            if func is torch._weight_norm:
                return args[0].new_empty(args[0].shape)
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Skipping():
        yield


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FileNotFoundError:
        raise CheckpointError(f"expected {path}, got no such file: copy the folder whole") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"expected safetensors, got {path}: {reason(error)}; copy it again"
        ) from None
