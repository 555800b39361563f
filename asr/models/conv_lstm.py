"""Convolutional LSTM: a recurrent layer with convolutions over the frequency bands.

Letters in addition to those of asr/padded.py: F bands, C channels, K bands of a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.errors import ConfigError
from asr.models.cells import Cell, State, Weights, peephole
from asr.models.kernels import cpu, reference
from asr.models.kernels.gates import GATES
from asr.models.recurrent import make_orthogonal, reversal_index, reverse
from asr.padded import Padded

GATE_ROWS = 4  # of C_out in the weights: input, forget, cell, output


def neighbours(values: Tensor, kernel: int) -> Tensor:
    """Every band with its neighbours, zero beyond the edges: a convolution is one matrix product
    with it. Shape: [..., F, C] -> [..., F, K * C].

    >>> neighbours(torch.tensor([[1.0], [2.0], [3.0]]), 3).tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]
    """
    edge = kernel // 2
    windows = functional.pad(values, (0, 0, edge, edge)).unfold(-2, kernel, 1)
    return windows.transpose(-1, -2).flatten(-2)


def conv_lstm(x: Tensor, state: State, w: Weights) -> State:
    """LSTM over maps (Shi et al. 2015, "Convolutional LSTM network", eq. 3), `.` a convolution:

    i = s(x_i + U_i . h + p_i * c)    f = s(x_f + U_f . h + p_f * c)    c' = f * c + i * g
    g = tanh(x_g + U_g . h)    o = s(x_o + U_o . h + p_o * c')    h' = o * tanh(c')

    This is a peephole LSTM per band that also depends on h of the neighbouring bands. Like the
    kernels, the p are shared by all bands, so the number of bands is free (the paper has one p per
    position).

    Shape: x [B, F, 4 C], h and c [B, F, C], weight_hh [4 C, K * C], peephole [3 C].
    """
    h, c = state
    B, F, C = h.shape
    seen = neighbours(h, w["weight_hh"].shape[1] // C)
    new = peephole(x.flatten(0, 1), (seen.flatten(0, 1), c.flatten(0, 1)), w)
    return tuple(part.unflatten(0, (B, F)) for part in new)


CELL = Cell(conv_lstm, GATE_ROWS)


class ConvDirection(nn.Module):
    """The cell over time, from the first frame to the last, from a zero state."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.kernel, self.channels = kernel, channels_out
        rows = GATE_ROWS * channels_out
        self.weight_ih = nn.Parameter(torch.empty(rows, kernel * channels_in))
        self.weight_hh = nn.Parameter(torch.empty(rows, kernel * channels_out))
        self.bias = nn.Parameter(torch.zeros(rows))
        self.peephole = nn.Parameter(torch.zeros(3 * channels_out))
        with torch.no_grad():
            nn.init.xavier_uniform_(self.weight_ih)
            make_orthogonal(self.weight_hh, channels_out)
            # Forget gates start open (Jozefowicz et al. 2015).
            self.bias.view(GATE_ROWS, -1)[1] = 1.0

    def forward(self, x: Padded) -> Padded:
        """Shape: [B, T, F, C_in] -> [B, T, F, C_out]."""
        B, _, F, _ = x.values.shape
        projected = functional.linear(neighbours(x.values, self.kernel), self.weight_ih, self.bias)
        # Autocast gives the input's contribution less precision; sums over frames stay float32.
        projected = projected.to(self.bias.dtype).transpose(0, 1)
        h = projected.new_zeros(B, F, self.channels)
        if cpu.serves("peephole", projected):
            values = _Recurrence.apply(projected, self.weight_hh, self.peephole)
        else:
            reference.warn_slow("conv_lstm", f"{projected.dtype} on {projected.device.type}")
            weights = dict(self.named_parameters())
            values = reference.run(CELL, projected, (h, h), weights)[0]
        return Padded(values.transpose(0, 1), x.lengths)


class ConvLSTM(nn.Module):
    """A convolutional LSTM in one direction or both; both are concatenated in the channels.

    Shape: [B, T, F, channels_in] -> [B, T, F, output_channels], which is twice channels_out for two
    directions.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, bidirectional: bool = True
    ) -> None:
        """`kernel` is an odd number of bands. Raises ConfigError for incompatible sizes."""
        super().__init__()
        if channels_in < 1 or channels_out < 1:
            raise ConfigError(
                f"expected one channel or more, got {channels_in} in and {channels_out} out: "
                "raise them"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"expected a kernel of an odd number of bands, got {kernel}: add one")
        self.ahead = ConvDirection(channels_in, channels_out, kernel)
        self.back = ConvDirection(channels_in, channels_out, kernel) if bidirectional else None
        self.output_channels = channels_out * (2 if bidirectional else 1)

    def forward(self, x: Padded) -> Padded:
        # Arbitrary values in the padding would reach real frames through NaN * 0 in the gradients.
        x = x.zeroed()
        ahead: Padded = self.ahead(x)
        if self.back is None:
            return ahead
        index = reversal_index(x.lengths, x.values.shape[1])
        back: Padded = self.back(Padded(_reversed(x.values, index), x.lengths))
        both = torch.cat([ahead.values, _reversed(back.values, index)], dim=3)
        return Padded(both, x.lengths)


def _reversed(values: Tensor, index: Tensor) -> Tensor:
    """Reorder frames by `index`. Shape: [B, T, F, C], [B, T] -> [B, T, F, C]."""
    return reverse(values.flatten(2), index).unflatten(2, values.shape[2:])


class _Recurrence(torch.autograd.Function):
    """The loop of `reference.run` with compiled gates and a hand-written gradient.

    As in kernels/cpu.py, one product over all frames gives the gradient of the recurrent kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, peepholes: Tensor) -> Tensor:
        """Shape: x [T, B, F, 4 C], weight [4 C, K * C], peepholes [3 C] -> h [T, B, F, C]."""
        T, B, F, rows = x.shape
        C, rest = rows // GATE_ROWS, B * F
        gates = GATES["peephole"]
        x = x.reshape(T, rest, rows)
        hs, cs = x.new_zeros(T + 1, rest, C), x.new_zeros(T + 1, rest, C)
        # Input of the convolution of each frame: h of the previous frame, with its neighbours.
        seen = x.new_zeros(T, B, F, weight.shape[1] // C, C)
        products = seen.view(T, rest, weight.shape[1])
        saved, u = x.new_empty(T, rest, gates.saved * C + 2), x.new_empty(rest, rows)
        x_, u_, h_, c_, saved_ = (v.numpy() for v in (x, u, hs, cs, saved))
        p_ = peepholes.numpy()
        maps, taps = hs.view(T + 1, B, F, C), _taps(seen.shape[3], F)
        for t in range(T):
            for tap, (here, there) in enumerate(taps):
                seen[t, :, here, tap] = maps[t, :, there]
            torch.mm(products[t], weight.t(), out=u)
            gates.forward(x_[t], u_, h_[t], c_[t], h_[t + 1], c_[t + 1], saved_[t], p_)
        ctx.save_for_backward(hs, cs, seen, saved, weight, peepholes)
        return maps[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dhs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hs, cs, seen, saved, weight, peepholes = ctx.saved_tensors
        T, B, F, kernel, C = seen.shape
        gates = GATES["peephole"]
        dx = saved.new_empty(T, B * F, weight.shape[0])
        dh, dc, carry = torch.zeros_like(hs[0]), torch.zeros_like(hs[0]), torch.zeros_like(hs[0])
        maps, dseen = dh.view(B, F, C), torch.empty_like(seen[0])
        dpeepholes = torch.zeros_like(peepholes)
        h_, c_, saved_, dx_ = (v.numpy() for v in (hs, cs, saved, dx))
        dh_, dc_, carry_ = (v.numpy() for v in (dh, dc, carry))
        p_, dp_ = peepholes.numpy(), dpeepholes.numpy()
        taps = _taps(kernel, F)
        for t in reversed(range(T)):
            maps += dhs[t]
            gates.backward(
                saved_[t], h_[t], c_[t], c_[t + 1], dh_, dc_, dx_[t], dx_[t], carry_, p_, dp_
            )
            torch.mm(dx[t], weight, out=dseen.view(B * F, kernel * C))
            dh.zero_()
            for tap, (here, there) in enumerate(taps):
                maps[:, there] += dseen[:, here, tap]
        dweight = dx.flatten(0, 1).t() @ seen.view(T * B * F, kernel * C)
        return dx.view(T, B, F, GATE_ROWS * C), dweight, dpeepholes


def _taps(kernel: int, bands: int) -> list[tuple[slice, slice]]:
    """For each tap of a kernel: the bands with a neighbour there, and these neighbours.

    >>> [(here.start, there.start, here.stop - here.start) for here, there in _taps(3, 5)]
    [(1, 0, 4), (0, 0, 5), (0, 1, 4)]
    """
    taps = []
    for tap in range(kernel):
        offset = tap - kernel // 2
        overlap = max(0, bands - abs(offset))
        here, there = max(0, -offset), max(0, offset)
        taps.append((slice(here, here + overlap), slice(there, there + overlap)))
    return taps
