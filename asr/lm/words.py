"""Word lists for a decoder: a lexicon, and hot words and phrases with their bonuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from asr.errors import AsrError, LanguageModelError, reason
from asr.io.foreign import kind_of
from asr.text.characters import canonical
from asr.text.tokens import WORD_START

BOOST = 6.0  # of a hot word or phrase, in nats
MOST_BOOST = 1000.0  # of either sign
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # unlike "nan"


def read_word_list(path: Path, spell: Callable[[str], str] = canonical) -> tuple[str, ...]:
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
    """The hot words and phrases of a file, one per line: see `parse_hot_word`.

    Raises LanguageModelError naming the line.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(path, "hot words"), start=1):
        if canonical(line).strip():
            _add(found, line, f"{path}:{number}", spaced=True)
    return found


def parse_hot_words(options: Sequence[str], where: str) -> dict[str, float]:
    """Hot words and phrases given one by one, as `phrase` or `phrase=boost`.

    Raises LanguageModelError that begins with `where`.

    >>> parse_hot_words(["espoo", "new york=2.5", "route 66"], "--hot-word")
    {'espoo': 6.0, 'new york': 2.5, 'route 66': 6.0}
    """
    found: dict[str, float] = {}
    for option in options:
        _add(found, option, where, spaced=False)
    return found


def parse_hot_word(line: str, spaced: bool) -> tuple[str, float]:
    """A word or phrase and its bonus in nats, else `BOOST`. The bonus follows a tab or an equals
    sign or, if `spaced`, a space: the last word of several is then the bonus if it is a number.

    Raises LanguageModelError that names the phrase.

    >>> parse_hot_word("new york 3", True), parse_hot_word("route 66=3", True)
    (('new york', 3.0), ('route 66', 3.0))
    """
    phrase, number = _split(line.strip() or "=", spaced)
    phrase = " ".join(canonical(phrase).split())
    if not phrase:
        raise LanguageModelError(f"expected a word or phrase, got none in {line!r}: give one")
    if number is None:
        return phrase, BOOST
    if not _NUMBER.fullmatch(number) or abs(float(number)) > MOST_BOOST:
        raise LanguageModelError(
            f"expected a boost of at most {MOST_BOOST:g} nats for {phrase!r}, got {number!r}: "
            "correct it"
        )
    return phrase, float(number)


def _split(line: str, spaced: bool) -> tuple[str, str | None]:
    """The phrase, and the text of its bonus, if any."""
    for mark in "\t=":
        if mark in line:
            phrase, _, number = line.rpartition(mark)
            return phrase, number.strip()
    phrase, *last = line.rsplit(None, 1)
    if spaced and last and _NUMBER.fullmatch(last[0]):
        return phrase, last[0]
    return line, None


def _add(found: dict[str, float], line: str, where: str, spaced: bool) -> None:
    try:
        phrase, boost = parse_hot_word(line, spaced)
    except LanguageModelError as error:
        raise LanguageModelError(f"{where}: {error}") from None
    if phrase in found:
        raise LanguageModelError(
            f"{where}: expected each hot word or phrase once, got {phrase!r} twice: leave one out"
        )
    found[phrase] = boost


def _lines(path: Path, what: str) -> list[str]:
    try:
        # Not splitlines: it would also split at characters that belong to words.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        got = kind_of(path) if isinstance(error, UnicodeDecodeError) else ""
        raise LanguageModelError(
            f"{path}: expected {what}, got {got or reason(error)}: correct the path or the file"
        ) from None


def check_word(word: str, alphabet: Collection[str]) -> None:
    """Raise LanguageModelError if the characters of the tokens cannot encode a word."""
    if len(word.split()) > 1:
        raise LanguageModelError(
            f"expected words, got the phrase {word!r}: give each of its words alone"
        )
    check_phrase(word, alphabet)


def check_phrase(phrase: str, alphabet: Collection[str]) -> None:
    """Raise LanguageModelError if the characters of the tokens cannot encode words, separated by
    single spaces."""
    words = phrase.split(" ")
    # A mark within a word would end it.
    unknown = sorted({c for word in words for c in word if c not in alphabet or c == WORD_START})
    if unknown or not all(words):
        raise LanguageModelError(
            f"expected words of the model's characters, got {phrase!r} with "
            f"{', '.join(unknown) or 'nothing in it'}: spell it otherwise or leave it out"
        )
