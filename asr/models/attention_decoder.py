"""A second output that spells the text of an utterance token by token, by attention to the encoder.

It is trained jointly with CTC (Kim, Hori and Watanabe 2017, "Joint CTC-attention based end-to-end
speech recognition using multi-task learning", eq. 7). In rescoring it scores each text of the CTC
beam as a whole, with an alignment of its own (Watanabe et al. 2017, "Hybrid CTC/attention
architecture for end-to-end speech recognition", section III-B).

The tokens of a text are known in advance, in training and in rescoring. So no step waits for the
attention of the one before: an LSTM reads all tokens, attention is computed for all positions at
once, and a second LSTM reads tokens and what was attended to, as in the decoder of RNMT+ (Chen et
al. 2018, "The best of both worlds", section 3).

Letters in addition to those of asr/padded.py: N heads, D features of a head, E features of an
encoder frame, K texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.models.encoder import locked_dropout
from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded, pad

HEADS = 4
SMOOTHING = 0.1  # share of the loss that is for all tokens alike
BOUNDARY = 0  # before and after a text; the blank, which no text contains
SCORES_AT_ONCE = 1 << 24  # attention weights, which limits the memory of rescoring


class AttentionDecoder(nn.Module):
    """Log-probabilities of each token of a text, and of its end, given the tokens before.

    Shape: frames [B, T, E], log_probs [B, T, V], tokens [B, U] -> [B, U + 1, V].
    """

    def __init__(self, size: int, hidden: int, units: int, dropout: float = 0.0) -> None:
        """`size`: features of an encoder frame. `hidden`: cells, a multiple of `HEADS`."""
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(units, hidden)
        self.reader = RecurrentLayer(hidden, hidden, bidirectional=False)
        self.query = nn.Linear(hidden, hidden)
        # No bias: in the keys softmax cancels it, in the values the next layers have their own.
        self.memory = nn.Linear(size, 2 * hidden, bias=False)
        self.slopes = nn.Parameter(torch.zeros(HEADS))
        self.writer = RecurrentLayer(2 * hidden, hidden, bidirectional=False)
        self.output = nn.Linear(2 * hidden, units)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        nn.init.xavier_uniform_(self.memory.weight)
        for layer in (self.query, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Padded, log_probs: Padded, tokens: Padded) -> Padded:
        before = functional.pad(tokens.zeroed().values, (1, 0), value=BOUNDARY)
        lengths = tokens.lengths + 1
        read = self.reader(self._dropped(Padded(self.embedding(before), lengths))).values
        seen = self._attended(read, frames, log_probs)
        x = self._dropped(Padded(torch.cat([read, seen], dim=2), lengths))
        written = self.writer(x).values
        x = self._dropped(Padded(torch.cat([written, seen], dim=2), lengths))
        return Padded(torch.log_softmax(self.output(x.values).float(), dim=2), lengths)

    def _dropped(self, x: Padded) -> Padded:
        return locked_dropout(x, self.dropout) if self.training and self.dropout else x

    def _attended(self, read: Tensor, frames: Padded, log_probs: Padded) -> Tensor:
        """Scaled dot-product attention of each position to all frames of its utterance (Vaswani et
        al. 2017, "Attention is all you need", section 3.2.2), where each head prefers the frames
        near the place of the token by CTC as much as it learns to.

        Shape: [B, U + 1, H], [B, T, E], [B, T, V] -> [B, U + 1, H].
        """
        memory = self.memory(frames.zeroed().values).unflatten(2, (2, HEADS, -1))
        keys, values = memory.permute(2, 0, 3, 1, 4)  # [B, N, T, D]
        queries = self.query(read).unflatten(2, (HEADS, -1)).transpose(1, 2)
        products = (queries @ keys.transpose(2, 3)).float() / math.sqrt(queries.shape[3])
        places = torch.arange(read.shape[1], device=read.device) + 0.5
        counts = expected_token_counts(log_probs)
        far = (places[:, None] - counts[:, None, :]).abs()  # [B, U + 1, T]
        slopes = functional.softplus(self.slopes.float())[:, None, None]
        scores = products - slopes * far[:, None]
        # The smallest finite number, not minus infinity: an utterance without frames has no other.
        hidden = ~frames.mask()[:, None, None, :]
        weights = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=3)
        return (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)

    @torch.inference_mode()
    def score(self, frames: Padded, log_probs: Padded, tokens: Padded) -> Tensor:
        """The log-probability of each text with its end, in float32.

        Shape: [B, T, E], [B, T, V], [B, U] -> [B].
        """
        device = frames.values.device.type
        with torch.autocast(device, enabled=False):
            whole = Padded(frames.values.float(), frames.lengths)
            predicted = self(whole, Padded(log_probs.values.float(), log_probs.lengths), tokens)
        return -smoothed_losses(predicted, tokens, smoothing=0.0)


def expected_token_counts(log_probs: Padded) -> Tensor:
    """The expected number of tokens that CTC has emitted up to each frame, without a gradient. A
    frame emits a token if it has one that the frame before does not have. Shape: [B, T, V] ->
    [B, T] float32."""
    found = log_probs.zeroed().values.detach().float().exp()[:, :, 1:]
    again = (found[:, 1:] * found[:, :-1]).sum(dim=2)
    emitted = found.sum(dim=2)
    emitted = emitted - functional.pad(again, (1, 0))
    return emitted.clamp(min=0).cumsum(dim=1)


def smoothed_losses(predicted: Padded, tokens: Padded, smoothing: float = SMOOTHING) -> Tensor:
    """Cross entropy in nats of each text with its end, with label smoothing (Szegedy et al. 2016,
    "Rethinking the inception architecture for computer vision", section 7).

    Shape: predicted [B, U + 1, V], tokens [B, U] -> [B].
    """
    scores = predicted.zeroed().values
    # Behind a text its padding is token 0, which is its end.
    after = functional.pad(tokens.zeroed().values, (0, 1), value=BOUNDARY)
    right = scores.gather(2, after[:, :, None])[:, :, 0]
    rows = (1 - smoothing) * right + smoothing * scores.mean(dim=2)
    return -rows.masked_fill(~predicted.mask(), 0.0).sum(dim=1)


@dataclass(frozen=True)
class Attended(Padded):
    """Log-probabilities of CTC, and what the attention decoder needs to score texts with them."""

    frames: Padded
    decoder: AttentionDecoder

    def text_scores(self, found: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The log-probability of each text of each utterance, given as tokens, in nats.

        Shape: B times K texts -> B times K.
        """
        rows = [(len(ids), i, k) for i, texts in enumerate(found) for k, ids in enumerate(texts)]
        scores = [[0.0] * len(texts) for texts in found]
        rows.sort()
        while rows:
            size = HEADS * (rows[-1][0] + 1) * max(1, self.values.shape[1])
            count = max(1, SCORES_AT_ONCE // size)
            chosen, rows = rows[-count:], rows[:-count]
            tokens = pad([torch.tensor(found[i][k], dtype=torch.int64) for _, i, k in chosen])
            device = self.values.device
            index = torch.tensor([i for _, i, _ in chosen]).to(device)
            frames = Padded(self.frames.values[index], self.frames.lengths[index])
            log_probs = Padded(self.values[index], self.lengths[index])
            own = self.decoder.score(frames, log_probs, tokens.to(device)).tolist()
            for (_, i, k), score in zip(chosen, own, strict=True):
                scores[i][k] = score
        return scores
