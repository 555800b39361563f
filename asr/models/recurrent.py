"""A bidirectional LSTM layer that is exact with lengths and as fast as a dense one.

`pack_padded_sequence` loses the fast kernels of oneDNN and cuDNN. Here each direction is a dense
single-layer call instead; for the backward direction every utterance is reversed by its own length
first and the result reversed back, so its recurrence starts at the utterance's last real frame.
What either direction computes on padding comes after the real frames and is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.padded import Padded


def reversal_index(lengths: Tensor, frames: int) -> Tensor:
    """Positions that reverse each utterance and leave its padding in place. [B] -> [B, frames].

    >>> reversal_index(torch.tensor([2, 3]), 3).tolist()
    [[1, 0, 2], [2, 1, 0]]
    """
    positions = torch.arange(frames, device=lengths.device)[None, :]
    ends = lengths[:, None]
    return torch.where(positions < ends, ends - 1 - positions, positions)


def reverse(values: Tensor, index: Tensor) -> Tensor:
    """Reorder frames by `index`. Shape: [B, T, F], [B, T] -> [B, T, F]."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


class BidirectionalLSTM(nn.Module):
    """One bidirectional LSTM layer; both directions side by side in the output.

    Shape: [B, T, input_size] -> [B, T, 2 * hidden_size].
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        for lstm in (self.forward_lstm, self.backward_lstm):
            _initialise(lstm)

    def forward(self, x: Padded) -> Padded:
        # Garbage in the padding would reach real frames through NaN * 0 in the gradients.
        values = x.zeroed().values
        index = reversal_index(x.lengths, values.shape[1])
        ahead, _ = self.forward_lstm(values)
        back, _ = self.backward_lstm(reverse(values, index))
        return Padded(torch.cat([ahead, reverse(back, index)], dim=2), x.lengths)


def _initialise(lstm: nn.LSTM) -> None:
    """Orthogonal recurrences, and forget gates that start open (Jozefowicz et al. 2015)."""
    H = lstm.hidden_size
    weights = dict(lstm.named_parameters())
    with torch.no_grad():
        nn.init.xavier_uniform_(weights["weight_ih_l0"])
        for gate in weights["weight_hh_l0"].split(H):
            nn.init.orthogonal_(gate)
        weights["bias_ih_l0"].zero_()
        weights["bias_hh_l0"].zero_()
        weights["bias_ih_l0"][H : 2 * H] = 1.0
