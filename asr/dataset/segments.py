"""Segments of an utterance, cut at the quietest moments between its words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from asr.audio.silence import Gap, cuts
from asr.dataset.manifest import Utterance


def segments(
    u: Utterance, words: Sequence[str], gaps: Sequence[Gap], duration: float, seconds: float
) -> Iterator[Utterance]:
    """An utterance of `duration` seconds, cut into segments of about `seconds` with the ids ID-1,
    ID-2 and so on; a short one stays whole. `words` are those of the utterance, `gaps[i]` is the
    quietest moment between words i and i + 1."""
    chosen = cuts(gaps, duration, seconds)
    if not chosen:
        yield u
        return
    # Original words, unless normalisation changes their number.
    written = u.text.split()
    words = written if len(written) == len(words) else words
    bounds = [(0, 0.0), *((i + 1, gaps[i].second) for i in chosen), (len(words), duration)]
    for number, ((first, start), (last, end)) in enumerate(itertools.pairwise(bounds), start=1):
        yield replace(
            u,
            id=f"{u.id}-{number}",
            text=" ".join(words[first:last]),
            duration=round(end - start, 4),
            start=round(u.start + start, 4),
            end=u.end if last == len(words) else round(u.start + end, 4),
        )
