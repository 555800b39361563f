"""Words as phones: from a lexicon, from espeak-ng, or from espeak-ng for words not in the lexicon.

For a model of phones (`tokens.kind: phones`), text normalisation converts every transcript into
phones separated by spaces, before tokens are built and before scoring. The words of reports and
decoders are then phones, and the word error rate is a phone error rate. The model folder keeps the
pronunciations of its training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from asr.config import Config
from asr.errors import AsrError, ManifestError, reason
from asr.text.espeak import phones_of

# As in the CMU Pronouncing Dictionary, whose lines may also end in a comment.
COMMENT, REMARK = ";;;", " #"
_NUMBER = re.compile(r"\(\d+\)$")
NAMED = 10  # missing words named in one error


class Phones(Config):
    """Pronunciations of words."""

    words: dict[str, str]
    """Phones, separated by spaces, of each normalised word."""
    espeak: str = Field("", max_length=64)
    """Accent of espeak-ng for all other words; without it, other words have no phones."""


def read_lexicon(path: Path, normalise: Callable[[str], str]) -> dict[str, str]:
    """One word and its phones per line, separated by a tab or spaces. The first line of a word
    counts, or the first that is written like it: where normalisation removes apostrophes, CMUdict's
    'cause and cause are one word. WORD(2) is another line of WORD; " #" begins a comment.

    Raises ManifestError naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"expected a lexicon of words and phones, got {reason(error)} at {path}: correct "
            "tokens.lexicon or the file"
        ) from None
    found: dict[str, str] = {}
    exact: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.partition(REMARK)[0].strip() or line.startswith(COMMENT):
            continue
        word, *phones = line.partition(REMARK)[0].split()
        if not phones:
            raise ManifestError(
                f"{path}:{number}: expected a word and its phones, got {word!r} alone: add them "
                "or remove the line"
            )
        word = _NUMBER.sub("", word)
        key = normalise(word)
        if key not in found or (key not in exact and key.casefold() == word.casefold()):
            found[key] = " ".join(phones)
        if key.casefold() == word.casefold():
            exact.add(key)
    return found


def collect_phones(
    words: Iterable[str], lexicon: Path | None, espeak: str, normalise: Callable[[str], str]
) -> Phones:
    """All of the lexicon, and the phones of other `words` from espeak-ng.

    Raises AsrError naming words without phones in both.
    """
    known = {} if lexicon is None else read_lexicon(lexicon, normalise)
    others = sorted(set(words) - known.keys())
    if espeak and others:
        known |= {word: said for word, said in phones_of(others, espeak).items() if said}
        others = [word for word in others if word not in known]
    if others:
        hint = "remove them" if espeak else "add them to it, or set tokens.espeak, such as en-us"
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise AsrError(
            f"expected words with phones in {lexicon or 'espeak-ng'}, got {len(others)} without: "
            f"{', '.join(others[:NAMED])}{more}: {hint}"
        )
    return Phones(words=known, espeak=espeak)


def to_phones(text: str, phones: Phones) -> str:
    """A normalised text as phones separated by spaces. Raises AsrError naming words without phones.

    >>> to_phones("no no", Phones(words={"no": "n oʊ"}))
    'n oʊ n oʊ'
    """
    said = {word: phones.words.get(word) or _other(word, phones.espeak) for word in text.split()}
    if unknown := sorted(word for word, found in said.items() if not found):
        raise AsrError(
            f"expected words of the lexicon, got {', '.join(unknown[:NAMED])}: leave the text out, "
            "or train with a lexicon that has them or with tokens.espeak"
        )
    return " ".join(said[word] for word in text.split())


@lru_cache(1 << 16)
def _other(word: str, espeak: str) -> str:
    return phones_of([word], espeak)[word] if espeak else ""
