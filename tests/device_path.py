"""What a training step does on a GPU, on the CPU, and what would wait for the GPU there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from asr.augment import waveform
from asr.models import convolution, encoder
from asr.models.batch_norm import MaskedBatchNorm
from asr.padded import Padded
from asr.training import deferred

READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim"}
"""Operators whose result, or its size, the host must know: they wait for all queued work."""


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the paths of a GPU that are plain torch: all but recurrent layers and CTC."""
    replaced = [
        (MaskedBatchNorm, "_of_gathered", MaskedBatchNorm._of_masked),
        (waveform, "_stretched_singly", waveform._stretched),
        (encoder, "convolved", convolution._by_patches),
        (deferred, "is_on_host", lambda value: False),
        (Padded, "__post_init__", lambda self: None),  # a GPU's lengths are not checked
    ]
    with ExitStack() as stack:
        for place, name, function in replaced:
            stack.enter_context(mock.patch.object(place, name, function))
        yield


class Reads(TorchDispatchMode):
    """Counts, by name, the operators called while entered that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._lists: Any = None

    def __enter__(self) -> Self:
        plain = Tensor.tolist  # of many numbers, which is no operator

        def tolist(tensor: Tensor) -> Any:
            self.found["tolist"] += 1
            return plain(tensor)

        self._lists = mock.patch.object(Tensor, "tolist", tolist)
        self._lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._lists.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in READS or (name.startswith("index") and _by_mask(args)):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def count(self) -> int:
        return self.found.total()


def _by_mask(arguments: tuple[Any, ...]) -> bool:
    places = arguments[1] if len(arguments) > 1 else None
    given = places if isinstance(places, list | tuple) else [places]
    return any(isinstance(place, Tensor) and place.dtype == torch.bool for place in given)
