"""A batch of sequences of different lengths: the padded tensor together with its lengths.

Letters used across the package: B batch, T frames, S samples, F features, C channels, H hidden
size, V tokens, U target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
        return Padded(
            self.values.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True)
        )

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


def sent(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device, without waiting for its queued work.

    Shape: N numbers -> [N].
    """
    return torch.tensor(numbers).to(device, non_blocking=True)
