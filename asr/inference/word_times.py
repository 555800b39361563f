"""Recognition with word times: texts, and the time and confidence of each word.

B utterances, S samples, T frames, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.decoder import Decoder
from asr.decoding.rescoring import Scored
from asr.decoding.rows import Rows, as_row, as_rows
from asr.errors import AlignmentError
from asr.inference.acoustics import Acoustics, Waves
from asr.inference.time_formats import Posteriors, TokenTime, Word
from asr.text.tokens import WORD_START, Tokens

if TYPE_CHECKING:
    from asr.padded import Padded

# A mark may be at the start of a silence; a word does not start so long before its sound.
MARK_LEAD = 0.12  # seconds

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Recognition:
    """The text of a recording, its words with times and confidences, and the network's output if it
    is to be drawn."""

    text: str
    words: tuple[Word, ...]
    posteriors: Posteriors | None = None


def recognize_waves(model: Acoustics, decoder: Decoder, waves: Waves) -> list[Recognition]:
    """The text and words of each recording. Shape: waves B times [S] in [-1, 1] -> B."""
    return recognize(decoder, *model.score(waves), _seconds(waves, model))


def recognize_texts(
    model: Acoustics, decoder: Decoder, waves: Waves, timed: Sequence[bool]
) -> list[Recognition]:
    """The text of each recording, and the times of its words, without confidences, for those that
    are `timed`. Shape: waves B times [S] in [-1, 1] -> B."""
    scores, spelled = model.score(waves)
    texts = decoder.texts(scores)
    if not any(timed):
        return [Recognition(text, ()) for text in texts]
    written = as_rows(scores)
    sounds = written if spelled is None else as_rows(spelled)
    results = []
    for text, own, sound, seconds, wanted in zip(
        texts, written, sounds, _seconds(waves, model), timed, strict=True
    ):
        spells = spelled is not None
        words = _times(decoder.tokens, sound, own, spells, text, seconds) if wanted else []
        results.append(Recognition(text, tuple(words)))
    return results


def recognize_scores(decoder: Decoder, log_probs: Any, seconds: float, text: str) -> Recognition:
    """The words of a stream that has ended, whose text is known. Shape: log_probs [T, V], an array
    or a tensor."""
    return recognize(decoder, [as_row(log_probs)], None, [seconds], [text])[0]


def _seconds(waves: Waves, model: Acoustics) -> list[float]:
    return [len(wave) / model.sample_rate for wave in waves]


def recognize(
    decoder: Decoder,
    scores: Padded | Rows,
    spelled: Padded | Rows | None,
    seconds: Sequence[float],
    texts: Sequence[str] | None = None,
    found: Sequence[Sequence[Scored]] | None = None,
) -> list[Recognition]:
    """From the log-probabilities [B, T, V] of the last and of the hierarchical CTC layer, and the
    results of the decoder."""
    written = as_rows(scores)
    sounds = written if spelled is None else as_rows(spelled)
    results = []
    for row, own, sound, length in zip(
        decoder.hypotheses(scores, texts, found), written, sounds, seconds, strict=True
    ):
        times = _times(decoder.tokens, sound, own, spelled is not None, row.text, length)
        pairs = zip(times, row.confidences, strict=True)
        words = tuple(replace(word, confidence=sure) for word, sure in pairs)
        results.append(Recognition(row.text, words))
    return results


def _times(
    tokens: Tokens, sound: Floats, own: Floats, spells: bool, text: str, seconds: float
) -> list[Word]:
    """Times of each word of a recognised text, from the log-probabilities [T, V] of the
    hierarchical and of the last CTC layer."""
    for log_probs, spelling in ((sound, spells), (own, False)):
        try:
            return time_words(tokens, log_probs, spelling, text, seconds, "")
        except AlignmentError:  # emitted in fewer frames than its spelling needs
            continue
    # Words and characters in sequence, without the mark between them, read as one long word.
    words = text.split()
    step = seconds / max(1, len(words))
    ends = [round(i * step, 3) for i in range(len(words) + 1)]
    return [Word(word, ends[i], ends[i + 1]) for i, word in enumerate(words)]


def time_words(
    tokens: Tokens, log_probs: Any, spells: bool, text: str, seconds: float, name: str
) -> list[Word]:
    """The times of the words of a normalised text, by its best CTC path.

    The log-probabilities [T, V] should be those of a hierarchical CTC layer, with `spells` true: it
    emits every character, while the last layer may emit a word in a single frame.

    Raises AlignmentError like `align_words`.
    """
    if unknown := tokens.missing(text):
        raise AlignmentError(
            f"{name}: expected characters of the model's tokens, got "
            f"{''.join(sorted(unknown))!r} in the text: spell it otherwise"
        )
    ids = tokens.encode(text)
    ids = tokens.spell(ids) if spells else ids
    from asr.ctc.align import align  # loads numba, which texts without times may not need

    try:
        spans = align(log_probs, ids)
    except ValueError as error:
        raise AlignmentError(
            f"{name}: {error}: check that text and recording belong together"
        ) from None
    step = seconds / max(1, len(log_probs))
    times = [
        TokenTime(tokens.units[i], round(first * step, 3), round((last + 1) * step, 3))
        for i, (first, last) in zip(ids, spans, strict=True)
    ]
    return _words(text.split(), times, step)


def _words(words: Sequence[str], times: Sequence[TokenTime], step: float) -> list[Word]:
    """Tokens grouped by the marks that begin words.

    A word begins with the last frame of its mark, which fills the silence before it, and ends with
    its last sound. Compared with synthesised speech in docs/decoding.md.
    """
    if not words:
        return []
    starts = [i for i, time in enumerate(times) if time.unit.startswith(WORD_START)]
    found = []
    for word, first, following in zip(words, starts, [*starts[1:], len(times)], strict=True):
        units = tuple(times[first:following])
        start = units[0].start
        if units[0].unit == WORD_START:
            start = max(start, units[0].end - step, units[1].start - MARK_LEAD)
        found.append(Word(word, round(start, 3), units[-1].end, units=units))
    return found
