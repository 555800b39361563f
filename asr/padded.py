"""A batch of sequences of different lengths: the padded tensor together with its lengths.

Letters used across the package: B batch, T frames, S samples, F features, C channels, H hidden
size, V tokens, U target tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PINNED = 64 << 20  # bytes of samples that are copied to a GPU at a time


@dataclass(frozen=True)
class Padded:
    """Sequences padded to a common length; the values past a length have no meaning.

    Shape:
        values: [B, T, ...], lengths: [B] int64 with 0 <= lengths <= T, on the same device.

    Raises ValueError if lengths and values do not fit. On a GPU only the number of lengths is
    checked, since reading them would wait for all queued work.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        B, T = self.values.shape[:2]
        if self.lengths.shape != (B,):
            raise ValueError(f"expected {B} lengths, got shape {list(self.lengths.shape)}")
        if B and self.lengths.device.type == "cpu":
            low, high = self.lengths.aminmax()
            if low < 0 or high > T:
                raise ValueError(f"expected lengths from 0 to {T}, got {self.lengths.tolist()}")

    def mask(self) -> Tensor:
        """True for real frames. Shape: [B, T] bool.

        >>> Padded(torch.zeros(2, 3), torch.tensor([1, 3])).mask().int().tolist()
        [[1, 0, 0], [1, 1, 1]]
        """
        positions = torch.arange(self.values.shape[1], device=self.values.device)
        return positions[None, :] < self.lengths[:, None]

    def zeroed(self) -> Padded:
        """The same sequences with zeros (never NaN) in the padding."""
        mask = self.mask().reshape(self.values.shape[:2] + (1,) * (self.values.dim() - 2))
        return Padded(self.values.masked_fill(~mask, 0.0), self.lengths)

    def to(self, device: torch.device | str) -> Padded:
        # A copy to the host that does not wait could be read before it has ended.
        early = torch.device(device).type != "cpu"
        return Padded(
            self.values.to(device, non_blocking=early), self.lengths.to(device, non_blocking=early)
        )

    def repeated(self, times: int) -> Padded:
        """Copies one after another. Shape: [B, T, ...] -> [times * B, T, ...]."""
        ones = (1,) * (self.values.dim() - 1)
        return Padded(self.values.repeat(times, *ones), self.lengths.repeat(times))

    def pinned(self) -> Padded:
        """The same in memory that a GPU reads by itself, if there is one, so that `to` does not
        wait."""
        if not torch.cuda.is_available():
            return self
        return Padded(self.values.pin_memory(), self.lengths.pin_memory())

    def unpad(self) -> list[Tensor]:
        """Each sequence alone, cut to its length. Shape: B tensors [T_b, ...]."""
        pairs = zip(self.values, self.lengths.tolist(), strict=True)
        return [values[:length] for values, length in pairs]


def pad(sequences: Sequence[Tensor]) -> Padded:
    """Pad sequences with zeros to the longest.

    Shape: B tensors [T_b, ...] -> values [B, T, ...], lengths [B].

    >>> pad([torch.ones(1), torch.ones(2)]).values.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    return Padded(torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths)


def pad_on(sequences: Sequence[Tensor], device: torch.device | str) -> Padded:
    """As `pad`, on a device. To a GPU the values go in parts through pinned memory: while one is
    copied, the next is filled, and nothing waits. Shape: B tensors [T_b] -> values [B, T]."""
    if torch.device(device).type != "cuda":
        return pad(sequences).to(device)
    return pad_in_parts(sequences, device, lambda *size: torch.empty(size, pin_memory=True))


def pad_in_parts(
    sequences: Sequence[Tensor], device: torch.device | str, empty: Callable[[int, int], Tensor]
) -> Padded:
    """As `pad_on`, through parts of memory from `empty(rows, T)`, float32 as the sequences."""
    T = max(map(len, sequences), default=0)
    lengths = sent([len(sequence) for sequence in sequences], torch.device(device))
    values = torch.empty(len(sequences), T, device=device)
    rows = max(1, PINNED // max(1, 4 * T))
    for first in range(0, len(sequences), rows):
        some = sequences[first : first + rows]
        part = empty(len(some), T)
        for row, sequence in zip(part, some, strict=True):
            row[: len(sequence)] = sequence
            row[len(sequence) :] = 0.0
        values[first : first + rows].copy_(part, non_blocking=True)
    return Padded(values, lengths.long())


def sent(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device, without waiting for its queued work.

    Shape: N numbers -> [N].
    """
    return torch.tensor(numbers).to(device, non_blocking=True)
