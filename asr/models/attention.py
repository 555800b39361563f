"""Self-attention over hidden frames, and attention pooling of all frames into one vector.

The states of recurrent layers encode the position of each frame, so attention does not.

Letters in addition to those of asr/padded.py: N heads, D features of a head, W window, L frames of
a block, K blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.errors import ConfigError
from asr.padded import Padded
from asr.shares import dropout

# Minimum frames of a block: with a narrow window, smaller blocks would be slow.
SHORTEST_BLOCK = 32


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, "Attention is all you need", section 3.2),
    a residual connection around it and layer normalisation before it (Xiong et al. 2020, "On layer
    normalization in the transformer architecture").

    With a `window`, each frame attends to this many frames on either side, and memory grows as T *
    window; without it, to all frames of its utterance. `dropout` acts on the values added to the
    input.

    Shape: [B, T, size] -> [B, T, size]; padding is zero.
    """

    def __init__(
        self, size: int, heads: int, window: int | None = None, dropout: float = 0.0
    ) -> None:
        """Raises ConfigError for incompatible sizes."""
        super().__init__()
        if size < 1 or heads < 1 or size % heads:
            raise ConfigError(
                f"expected heads that divide the size, got {heads} heads for a size of {size}: "
                "choose another number of heads"
            )
        if window is not None and window < 0:
            raise ConfigError(f"expected a window of 0 frames or more, got {window}: raise it")
        if not 0 <= dropout < 1:
            raise ConfigError(f"expected dropout from 0 to below 1, got {dropout}: lower it")
        self.heads, self.window, self.dropout = heads, window, dropout
        self.norm = nn.LayerNorm(size)
        self.project = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        for layer in (self.project, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Padded) -> Padded:
        # Arbitrary values in the padding would reach real frames through NaN * 0.
        x = x.zeroed()
        T = x.values.shape[1]
        projected = self.project(self.norm(x.values)).unflatten(2, (3, self.heads, -1))
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        if self.window is None or self.window >= T - 1:
            y = full_attention(q, k, v, x.lengths)
        else:
            y = windowed_attention(q, k, v, x.lengths, self.window)
        y = self.output(y.transpose(1, 2).flatten(2))
        y = dropout(y, self.dropout, self.training)
        return Padded(x.values + y, x.lengths).zeroed()


def full_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """Every frame attends to all frames of its utterance.

    Shape: q, k, v [B, N, T, D], lengths [B] -> [B, N, T, D]; finite if q, k and v are.
    """
    real = torch.arange(q.shape[2], device=q.device) < lengths[:, None]
    # Without any key a query would get NaN. The output of an empty utterance is never read.
    seen = real | (lengths == 0)[:, None]
    return functional.scaled_dot_product_attention(q, k, v, seen[:, None, None, :])


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int) -> Tensor:
    """Every frame attends to those at most `window` frames away in its utterance.

    Time is divided into blocks. A block of queries gets the keys of its own frames and of the
    `window` frames before and after, so that all blocks form one batch of small attentions.

    Shape: q, k, v [B, N, T, D], lengths [B] -> [B, N, T, D]; finite if q, k and v are.
    """
    B, _, T, _ = q.shape
    L = max(window, SHORTEST_BLOCK)
    blocks = max(1, -(-T // L))
    spare = blocks * L - T
    q = functional.pad(q, (0, 0, 0, spare)).unflatten(2, (blocks, L)).transpose(1, 2)
    k, v = (
        functional.pad(each, (0, 0, window, spare + window))
        .unfold(2, L + 2 * window, L)
        .permute(0, 2, 1, 4, 3)
        for each in (k, v)
    )
    seen = _seen(lengths, blocks, L, window).flatten(0, 1)
    y = functional.scaled_dot_product_attention(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), seen[:, None]
    )
    return y.unflatten(0, (B, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :T]


def _seen(lengths: Tensor, blocks: int, L: int, window: int) -> Tensor:
    """The keys that each query of each block attends to. Shape: [B] -> [B, K, L, L + 2 W] bool."""
    query = torch.arange(L, device=lengths.device)[:, None]
    key = torch.arange(L + 2 * window, device=lengths.device)
    near = (query <= key) & (key <= query + 2 * window)  # key 0 lies `window` before query 0
    starts = torch.arange(blocks, device=lengths.device)[:, None] * L
    frames = starts + key - window
    real = (frames >= 0) & (frames < lengths[:, None, None])
    seen = real[:, :, None, :] & near
    # Without any key a query would get NaN. It is padding, whose output is never read.
    return seen | ~seen.any(dim=3, keepdim=True)


class AttentionPooling(nn.Module):
    """One vector for an utterance: the mean of its frames, with weights computed from them (Yang et
    al. 2016, "Hierarchical attention networks for document classification", eq. 5 to 7; the
    additive attention of Bahdanau et al. 2015 with a learnt query).

    u_t = tanh(W x_t + b)    a = softmax over t of (w . u_t)    y = sum over t of a_t x_t

    Shape: [B, T, size] -> [B, size]; zeros for an utterance without frames.
    """

    def __init__(self, size: int) -> None:
        """Raises ConfigError for a size below 1."""
        super().__init__()
        if size < 1:
            raise ConfigError(f"expected a size of 1 or more, got {size}: raise it")
        self.hidden = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, x: Padded) -> Tensor:
        x = x.zeroed()
        scores = self.score(torch.tanh(self.hidden(x.values))).float()
        # The smallest finite number, not minus infinity: an utterance without frames has no other.
        scores = scores.masked_fill(~x.mask()[:, :, None], torch.finfo(scores.dtype).min)
        return (torch.softmax(scores, dim=1) * x.values).sum(dim=1)
