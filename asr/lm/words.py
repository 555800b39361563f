"""Word lists for a decoder: a lexicon, and hot words with their bonuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.errors import AsrError, LanguageModelError, reason
from asr.io.foreign import kind_of
from asr.text.characters import canonical

BOOST = 6.0  # of a hot word, in nats


def read_lexicon(path: Path, spell: Callable[[str], str] = canonical) -> tuple[str, ...]:
    """The word of every line, normalised by `spell`; text after a tab, such as a pronunciation, is
    ignored.

    Raises LanguageModelError naming the line, also if `spell` raises AsrError.
    """
    words: dict[str, None] = {}
    for number, line in enumerate(_lines(path, "a lexicon"), start=1):
        word = line.strip().partition("\t")[0].strip()
        if len(word.split()) > 1:
            raise LanguageModelError(
                f"{path}:{number}: expected one word, got {word!r}: give each word a line, and a "
                "tab before any other text"
            )
        if word:
            try:
                words[spell(word)] = None
            except AsrError as error:
                raise LanguageModelError(f"{path}:{number}: {error}") from None
    if not words:
        raise LanguageModelError(f"{path}: expected a word per line, got none: give some")
    return tuple(words)


def read_hot_words(path: Path) -> dict[str, float]:
    """Hot words of a file: see `parse_hot_words`. Raises LanguageModelError naming the line."""
    return parse_hot_words(_lines(path, "hot words"), f"{path}:")


def parse_hot_words(lines: Sequence[str], where: str, mark: str | None = None) -> dict[str, float]:
    """Each line a word and optionally its bonus in nats (else `BOOST`), after spaces or after
    `mark`. Raises LanguageModelError that begins with `where` and the number of the line.

    >>> parse_hot_words(["espoo", "oulu 2.5"], "line ")
    {'espoo': 6.0, 'oulu': 2.5}
    """
    found = {}
    for number, line in enumerate(lines, start=1):
        word, *rest = [part.strip() for part in line.split(mark)] or [""]
        try:
            (score,) = [float(value) for value in rest] or [BOOST]
            if not math.isfinite(score) or (len(word.split()) != 1 and line.strip()):
                raise ValueError(line)
        except ValueError:
            raise LanguageModelError(
                f"{where}{number}: expected a word and perhaps its boost, a number, got {line!r}: "
                "correct it, and give the words of a phrase one by one"
            ) from None
        if word := canonical(word):
            found[word] = score
    return found


def _lines(path: Path, what: str) -> list[str]:
    try:
        # Not splitlines: it would also split at characters that belong to words.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        got = kind_of(path) if isinstance(error, UnicodeDecodeError) else ""
        raise LanguageModelError(
            f"{path}: expected {what}, got {got or reason(error)}: correct the path or the file"
        ) from None
