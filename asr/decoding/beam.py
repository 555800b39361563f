"""CTC prefix beam search, over whole utterances or incrementally.

B utterances, T frames, V tokens.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.beam_kernel import Beam, Nodes, Work, logadd, search
from asr.decoding.config import BeamConfig
from asr.decoding.fusion_kernel import CHARACTER_MODEL, NO_MODEL, OFF, Language
from asr.decoding.rows import Rows, as_row, as_rows
from asr.errors import ConfigError
from asr.lm.lookup import advance
from asr.lm.ngram import Ints

if TYPE_CHECKING:
    from asr.padded import Padded

MOST_CANDIDATES = 10_000_000  # per frame: each takes about 60 bytes
LEAST = -1e9  # replaces minus infinity, whose differences are undefined


@dataclass(frozen=True)
class BeamHypothesis:
    """A possible text. `score` is the sum of `ctc`, the log-probability of all its paths that were
    kept, and `language`, in nats."""

    ids: tuple[int, ...]
    ctc: float
    language: float

    @property
    def score(self) -> float:
        return self.ctc + self.language


class BeamSearch:
    """Incremental beam search of one utterance."""

    def __init__(self, language: Language, config: BeamConfig) -> None:
        self._language, self._config = language, config
        size, units = config.size, len(language.unit_first) - 1
        if size * units > MOST_CANDIDATES:
            raise ConfigError(
                f"expected a beam.size of at most {MOST_CANDIDATES // units} for {units} tokens, "
                f"got {size}: lower it"
            )
        self._nodes = _nodes(1)
        self._nodes.used[0] = 1
        for links in (self._nodes.parent, self._nodes.child, self._nodes.sibling):
            links[0] = OFF
        self._nodes.context[0] = self._nodes.end_context[0] = language.start
        self._beam = Beam(
            np.ones(1, np.int32),
            np.zeros(size, np.int32),
            np.full(size, -np.inf),
            np.full(size, -np.inf),
        )
        self._beam.blank[0] = 0.0
        self._work = _work(size, units)

    def push(self, log_probs: Any) -> None:
        """Search further frames: an array or a tensor. Shape: [T, V], any T.

        Raises ValueError for another shape and for values that are not log-probabilities.
        """
        V = len(self._language.unit_first) - 1
        if log_probs.ndim != 2 or log_probs.shape[1] != V:
            raise ValueError(f"expected log-probabilities [T, {V}], got {list(log_probs.shape)}")
        values = as_row(log_probs).astype(np.float64)
        if np.isnan(values).any() or (values > 1e-3).any():
            raise ValueError("expected log-probabilities, got NaN or values above 0")
        if not len(values):
            return
        needed = int(self._nodes.used[0]) + self._config.size * len(values)
        if needed > len(self._nodes.parent):
            grown = _nodes(max(needed, 2 * len(self._nodes.parent)))
            for name, old in self._nodes._asdict().items():
                getattr(grown, name)[: len(old)] = old
            self._nodes = grown
        config = self._config
        language = self._language
        arguments = (language, language.phrases, config.nats, config.token_nats, config.recombine)
        values = np.maximum(values, LEAST)
        order = np.argsort(-values, axis=1).astype(np.int32)
        search(values, order, self._nodes, self._beam, self._work, *arguments)

    def best(self, count: int = 1) -> list[BeamHypothesis]:
        """The best texts if no frames follow, best first.

        If the lexicon allows none of them, since all end within a word, that word is dropped.
        """
        finished = sorted(self._finished(), key=lambda row: -row[0] - row[1])[:count]
        if finished:
            return [BeamHypothesis(self._path(node), ctc, score) for ctc, score, node in finished]
        return self._without_last_word()[:count]

    def _finished(self) -> list[tuple[float, float, int]]:
        """CTC score, language score and node of the prefixes that can be complete texts."""
        language, nodes, beam = self._language, self._nodes, self._beam
        found = []
        for i in range(beam.used[0]):
            node = int(beam.node[i])
            score, context = nodes.end_score[node], int(nodes.end_context[node])
            if language.kind != NO_MODEL:
                if language.kind == CHARACTER_MODEL:
                    context = int(nodes.context[node])
                end, _ = advance(*language.ngram, context, language.end)
                score += language.weight * end if language.weight else 0.0  # not 0 times -inf
            total = nodes.language[node] + score
            if total > -np.inf:
                ctc = logadd(beam.blank[i], beam.label[i])
                found.append((float(ctc), float(total), node))
        return found

    def _without_last_word(self) -> list[BeamHypothesis]:
        """Each prefix up to its last word-start mark, best first; of equal ones the best."""
        found: dict[tuple[int, ...], BeamHypothesis] = {}
        for i in range(self._beam.used[0]):
            node = int(self._beam.node[i])
            ids = self._path(node)
            starts = [k for k, unit in enumerate(ids) if self._language.starts_word[unit]]
            ids = ids[: starts[-1]] if starts else ()
            ctc = float(logadd(self._beam.blank[i], self._beam.label[i]))
            row = BeamHypothesis(ids, ctc, float(self._nodes.language[node]))
            if ids not in found or row.score > found[ids].score:
                found[ids] = row
        return sorted(found.values(), key=lambda row: -row.score)

    def stable(self) -> tuple[int, ...]:
        """The common start of all prefixes in the beam, which can no longer change."""
        paths = [self._path(int(node)) for node in self._beam.node[: self._beam.used[0]]]
        same = itertools.takewhile(lambda units: len(set(units)) == 1, zip(*paths, strict=False))
        return tuple(units[0] for units in same)

    def _path(self, node: int) -> tuple[int, ...]:
        ids = []
        while node != 0:
            ids.append(int(self._nodes.unit[node]))
            node = int(self._nodes.parent[node])
        return tuple(reversed(ids))


def _work(size: int, units: int) -> Work:
    """Buffers for a frame."""
    room = size * (units + 1)
    return Work(
        totals=np.empty(size),
        blanks=np.empty(size),
        labels=np.empty(size),
        first_longer=np.empty(size, np.int32),
        next_longer=np.empty(size, np.int32),
        taken=np.full(units, OFF, np.int32),
        scores=np.empty(room),
        sorted_scores=np.empty(room),
        sources=np.empty(room, np.int32),
        units=np.empty(room, np.int32),
        spelled=np.empty(room, np.int32),
        matched=np.empty(room, np.int32),
        contexts=np.empty(room, np.int32),
        table=np.empty(1 << (2 * room - 1).bit_length(), np.int32),
        node=np.empty(size, np.int32),
        blank=np.empty(size),
        label=np.empty(size),
    )


def _nodes(count: int) -> Nodes:
    """This many empty nodes."""

    def ints() -> Ints:
        return np.zeros(count, np.int32)

    return Nodes(
        np.zeros(1, np.int32),
        parent=ints(),
        unit=ints(),
        child=ints(),
        sibling=ints(),
        place=ints(),
        language=np.zeros(count),
        context=ints(),
        spelled=ints(),
        phrase=ints(),
        end_score=np.zeros(count),
        end_context=ints(),
        ahead=np.zeros(count),
    )


def beam_decode(
    log_probs: Padded | Rows, language: Language, config: BeamConfig, count: int = 1
) -> list[list[BeamHypothesis]]:
    """Up to `count` best texts of each utterance, on all cores. Shape: [B, T, V] -> B lists.

    Raises ValueError as `BeamSearch.push` does.
    """

    def decode(row: NDArray[np.float32]) -> list[BeamHypothesis]:
        beam = BeamSearch(language, config)
        beam.push(row)
        return beam.best(count)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decode, as_rows(log_probs)))
