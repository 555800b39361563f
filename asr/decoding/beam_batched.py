"""CTC prefix beam search over all utterances and prefixes of a batch at once, in torch.

For a GPU, and for a recurrent language model that is evaluated at every step. Without one,
the result equals that of `asr.decoding.beam` if that skips no tokens: `BeamConfig.token_nats` has
no effect here. `asr.decoding.beam_kernel` has the algorithm.

B utterances, T frames, V tokens, K prefixes in the beam of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.beam import LEAST, BeamHypothesis
from asr.decoding.config import BeamConfig
from asr.errors import ConfigError
from asr.lm.neural import BOUNDARY, NeuralLm
from asr.models.cells import State
from asr.padded import Padded
from asr.text.tokens import BLANK_ID, WORD_START, Tokens

PRIME = 1_000_003  # base of the polynomial hash of a prefix's tokens, modulo 2**64


@dataclass(frozen=True)
class Beams:
    """The prefixes in the beam. `ends_blank` and `ends_unit` are the log-probabilities of their
    paths by the last frame, `language` the score of their text, `last` their last token (blank for
    none). `name` and `shorter` are hashes of the prefix and of the prefix without its last token.

    Shape: each [B, K].
    """

    ends_blank: Tensor
    ends_unit: Tensor
    language: Tensor
    last: Tensor
    name: Tensor
    shorter: Tensor

    @property
    def paths(self) -> Tensor:
        return torch.logaddexp(self.ends_blank, self.ends_unit)


@dataclass(frozen=True)
class Context:
    """The predictions of the language model after each prefix, in nats [B, K, V], and its states,
    whose tensors have one row per prefix [B * K, ...]."""

    following: Tensor
    states: list[list[State]]


@torch.inference_mode()
def batched_decode(
    log_probs: Padded,
    tokens: Tokens,
    config: BeamConfig,
    count: int = 1,
    neural: NeuralLm | None = None,
    weight: float = 0.0,
    word_bonus: float = 0.0,
) -> list[list[BeamHypothesis]]:
    """Up to `count` best texts of each utterance, on the device of the log-probabilities.

    The language model's log-probabilities are multiplied by `weight`, and every word adds
    `word_bonus` nats. Raises ConfigError if its tokens differ from the recogniser's.

    Shape: [B, T, V] -> B lists.
    """
    if neural is not None and neural.tokens != tokens:
        raise ConfigError(
            "expected a language model of the recogniser's tokens, got other tokens: train it with "
            "asr lm train --model"
        )
    B, T, _ = log_probs.values.shape
    K, device = config.size, log_probs.values.device
    values = log_probs.values.double().clamp(min=LEAST)
    starts = torch.tensor([unit.startswith(WORD_START) for unit in tokens.units], device=device)
    bonus = word_bonus * starts.double()
    beams = _empty(B, K, device)
    first = torch.zeros(B, K, dtype=torch.int64, device=device)
    context = _context(neural, first, None, weight, bonus)
    came = []
    for t in range(T):
        going = (t < log_probs.lengths)[:, None]
        following, source, unit = _step(values[:, t], beams, context, config.nats)
        beams = Beams(*(torch.where(going, new, old) for new, old in _pairs(following, beams)))
        source = torch.where(going, source, torch.arange(K, device=device))
        unit = torch.where(going, unit, BLANK_ID)
        came.append((source.cpu(), unit.cpu()))
        context = _moved(neural, context, source, unit, weight, bonus)
    return _hypotheses(beams, context, came, count, ended=neural is not None)


def _pairs(new: Beams, old: Beams) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(new, name), getattr(old, name)) for name in Beams.__dataclass_fields__]


def _empty(B: int, K: int, device: torch.device) -> Beams:
    """One prefix without tokens; the others are impossible."""
    impossible = torch.full((B, K), -torch.inf, dtype=torch.float64, device=device)
    ends_blank = impossible.clone()
    ends_blank[:, 0] = 0.0
    zeros = torch.zeros(B, K, dtype=torch.int64, device=device)
    # Impossible prefixes have distinct hashes, which no `shorter` matches.
    names = -1 - torch.arange(K, device=device).expand(B, K)
    names = torch.where(ends_blank == 0, zeros + 1, names)
    return Beams(ends_blank, impossible, zeros.double(), zeros, names, zeros - PRIME)


def _step(row: Tensor, beams: Beams, context: Context, nats: float) -> tuple[Beams, Tensor, Tensor]:
    """The beams after one more frame; for each prefix, the index of its predecessor and its new
    token, or blank. Shape: row [B, V]."""
    B, K, V = context.following.shape
    paths, last = beams.paths, beams.last
    nothing = last == BLANK_ID
    ends_blank = paths + row[:, BLANK_ID, None]
    ends_unit = beams.ends_unit + row.gather(1, last)
    ends_unit = ends_unit.masked_fill(nothing, -torch.inf)
    # Paths of a prefix that a token can follow: after the same token, only those with a blank.
    units = torch.arange(V, device=row.device)
    same = units == last[:, :, None]
    longer = torch.where(same, beams.ends_blank[:, :, None], paths[:, :, None]) + row[:, None, :]
    longer[:, :, BLANK_ID] = -torch.inf
    # If the longer prefix is already in the beam, the paths are added to its paths.
    meets = beams.shorter[:, None, :] == beams.name[:, :, None]  # [B, from, to]
    added = longer.gather(2, last[:, None, :].expand(B, K, K)).masked_fill(~meets, -torch.inf)
    ends_unit = torch.logaddexp(ends_unit, added.logsumexp(dim=1))
    taken = torch.zeros_like(longer).scatter_add_(
        2, last[:, None, :].expand(B, K, K), meets.double()
    )
    longer = longer.masked_fill(taken > 0, -torch.inf)
    language = beams.language[:, :, None] + context.following
    staying = torch.logaddexp(ends_blank, ends_unit) + beams.language
    scores = torch.cat([staying, (longer + language).flatten(1)], dim=1)
    scores = scores.masked_fill(scores < staying.amax(dim=1, keepdim=True) - nats, -torch.inf)
    best, places = scores.topk(K, dim=1)
    new = places >= K
    source = torch.where(new, (places - K) // V, places)
    unit = torch.where(new, (places - K) % V, BLANK_ID)

    def of(values: Tensor) -> Tensor:
        return values.gather(1, source)

    name = torch.where(new, of(beams.name) * PRIME + unit, of(beams.name))
    lengthened = longer.flatten(1).gather(1, (places - K).clamp(min=0))
    gone = best == -torch.inf
    following = Beams(
        of(ends_blank).masked_fill(new | gone, -torch.inf),
        torch.where(new, lengthened, of(ends_unit)).masked_fill(gone, -torch.inf),
        torch.where(
            new, language.flatten(1).gather(1, (places - K).clamp(min=0)), of(beams.language)
        ),
        torch.where(new, unit, of(last)),
        # Prefixes that became impossible must not match others.
        name.masked_fill(gone, 0),
        torch.where(new, of(beams.name), of(beams.shorter)).masked_fill(gone, -PRIME),
    )
    return following, source, unit


def _context(
    neural: NeuralLm | None,
    units: Tensor,
    states: list[list[State]] | None,
    weight: float,
    bonus: Tensor,
) -> Context:
    """Advance the language model by one token of each prefix. Shape: units [B, K]."""
    B, K = units.shape
    if neural is None:
        return Context(bonus.expand(B, K, -1), [])
    ones = torch.ones(B * K, dtype=torch.int64, device=units.device)
    scores, after = neural.model.eval()(Padded(units.reshape(B * K, 1), ones), states)
    expected = weight * scores.values[:, 0].double().view(B, K, -1)
    # Its boundary token stands for the end of the text; the blank is never added.
    return Context(expected + bonus, after)


def _moved(
    neural: NeuralLm | None,
    context: Context,
    source: Tensor,
    unit: Tensor,
    weight: float,
    bonus: Tensor,
) -> Context:
    """The context of prefixes from `source` that are `unit` longer, or unchanged."""
    if neural is None:
        return context
    B, K, V = context.following.shape
    rows = (source + K * torch.arange(B, device=source.device)[:, None]).flatten()
    following = context.following.flatten(0, 1)[rows]
    states = [[tuple(part[rows] for part in state) for state in layer] for layer in context.states]
    longer = (unit != BLANK_ID).flatten().nonzero()[:, 0]
    if len(longer):
        before = [[tuple(part[longer] for part in state) for state in layer] for layer in states]
        asked = _context(neural, unit.flatten()[longer][None], before, weight, bonus)
        following[longer] = asked.following[0]
        for layer, reached in zip(states, asked.states, strict=True):
            for state, after in zip(layer, reached, strict=True):
                for part, new in zip(state, after, strict=True):
                    part[longer] = new
    return Context(following.view(B, K, V), states)


def _hypotheses(
    beams: Beams,
    context: Context,
    came: Sequence[tuple[Tensor, Tensor]],
    count: int,
    ended: bool,
) -> list[list[BeamHypothesis]]:
    """The texts, traced back from the last frame, best first."""
    language = beams.language + (context.following[:, :, BOUNDARY] if ended else 0.0)
    paths, texts = beams.paths.cpu(), language.cpu()
    found = []
    for b in range(len(paths)):
        order = (paths[b] + texts[b]).argsort(descending=True).tolist()
        rows = []
        for k in order[:count]:
            if paths[b, k] == -torch.inf:
                break
            ids, place = [], k
            for source, unit in reversed(came):
                if unit[b, place] != BLANK_ID:
                    ids.append(int(unit[b, place]))
                place = int(source[b, place])
            rows.append(
                BeamHypothesis(tuple(reversed(ids)), float(paths[b, k]), float(texts[b, k]))
            )
        found.append(rows)
    return found
