"""Profiles: the normalisation of reference and hypothesis before errors are counted.

A profile is built in or a YAML file of rules, for example

    base: english
    remove: ['\\bplease\\b']
    replace: [['\\bo\\.k\\.', okay]]
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import regex
from pydantic import AfterValidator

from asr.config import Config, parse, read_yaml
from asr.dataset.lines import shown
from asr.errors import ConfigError
from asr.io.files import digest
from asr.text.characters import Language, canonical, lower
from asr.text.normalise import without_punctuation

LIMIT_S = 5.0
"""Processor seconds for one pattern on one text. Nested repeats may take exponential time in the
length of a text."""

_CHARACTER = regex.compile(r"\X")


def _checked_replacement(pair: tuple[str, str]) -> tuple[str, str]:
    try:
        # regex, which applies the pattern, also accepts patterns that are errors in Python.
        for package in (re, regex):
            package.compile(pair[0]).sub(pair[1], "")
    except (re.error, regex.error, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression ({error})") from None
    return pair


def _checked_pattern(pattern: str) -> str:
    return _checked_replacement((pattern, ""))[0]


Pattern = Annotated[str, AfterValidator(_checked_pattern)]
Replacement = Annotated[tuple[str, str], AfterValidator(_checked_replacement)]


class Rules(Config):
    """The rules of a profile, applied in this order."""

    base: Literal["none", "english"] = "none"
    """What is applied first: nothing, or Whisper's normaliser of English."""
    unicode: Literal["NFC", "NFKC", "none"] = "none"
    """NFKC: variants of a letter, such as full-width letters and ligatures, count as equal. Texts
    are composed (NFC) in any case."""
    lowercase: bool = False
    """Whether case is ignored."""
    language: Language = ""
    """Language whose rules convert letters to lower case: see text.language of a recipe."""
    remove: tuple[Pattern, ...] = ()
    """Python regular expressions whose matches are removed. \\w includes combining marks."""
    replace: tuple[Replacement, ...] = ()
    """Pairs of a Python regular expression and its replacement (\\1: its first group)."""
    remove_punctuation: bool = False
    """Whether punctuation and symbols become spaces; apostrophes within words stay, as '."""


@dataclass(frozen=True)
class Profile:
    """Named rules. `apply` is for scoring, `description` for a report."""

    name: str
    rules: Rules
    sha256: str = ""  # of the file, if there is one

    def apply(self, text: str) -> str:
        """The text after all rules, with single spaces between words; it may be empty.

        Raises ConfigError for a pattern that takes more than `LIMIT_S`.

        >>> Profile("mine", Rules(lowercase=True, remove_punctuation=True)).apply("Don’t  STOP!")
        "don't stop"
        """
        rules = self.rules
        text = canonical(text)
        if rules.base == "english":
            text = _english()(text)
        text = _in_form(text, rules.unicode)
        if rules.lowercase:
            text = lower(text, rules.language)
        for pattern in rules.remove:
            text = self._replaced(pattern, "", text)
        for pattern, replacement in rules.replace:
            text = self._replaced(pattern, replacement, text)
        if rules.remove_punctuation:
            text = without_punctuation(text)
        # Again: letters in lower case, and new neighbours, may compose.
        return " ".join(_in_form(text, rules.unicode).split())

    def _replaced(self, pattern: str, replacement: str, text: str) -> str:
        try:
            return str(regex.sub(pattern, replacement, text, timeout=LIMIT_S))
        except TimeoutError:
            raise ConfigError(
                f"{self.name}: expected a regular expression that ends within {LIMIT_S:g} s, got"
                f" {shown(pattern)}, which did not on {shown(text)}: rewrite it so that no repeated"
                " group matches the same text in two ways, as (a|aa)+ does"
            ) from None

    @property
    def description(self) -> str:
        """One line that identifies the profile, so that it can be restored.

        >>> Profile("none", Rules()).description
        'none (whitespace collapsed)'
        """
        base = ""
        if self.rules.base == "english":
            base = f"whisper-normalizer {version('whisper-normalizer')}"
        if not self.sha256:
            return f"{self.name} ({base or 'whitespace collapsed'})"
        rules = self.rules.model_dump_json(exclude_defaults=True)
        parts = [f"sha256 {self.sha256[:12]}", rules, *([base] if base else [])]
        return f"{self.name} ({', '.join(parts)})"


BUILT_IN = {"none": Profile("none", Rules()), "english": Profile("english", Rules(base="english"))}


def load_profile(name_or_path: str | Path) -> Profile:
    """A built-in profile ("none", "english") by its name, or the rules of a YAML file.

    Raises ConfigError, with file and key: an unknown name, key or value, or a bad regular
    expression.
    """
    built_in = BUILT_IN.get(str(name_or_path))
    if built_in:
        return built_in
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"expected {', '.join(BUILT_IN)} or a YAML file of rules, got"
            f" {shown(str(name_or_path))}: check the name"
        )
    return Profile(path.name, parse(Rules, read_yaml(path), str(path)), digest(path))


def split_characters(text: str) -> str:
    """The characters of a text as words, for languages without spaces between words.

    Whitespace is removed. Marks stay with their base character (extended grapheme clusters, Unicode
    Standard Annex 29).

    >>> split_characters("東京 へ行く")
    '東 京 へ 行 く'
    """
    # A mark after a space forms a character with it, so each is split again.
    found = _CHARACTER.findall(text)
    return " ".join(part for character in found for part in character.split())


def _in_form(text: str, form: Literal["NFC", "NFKC", "none"]) -> str:
    return unicodedata.normalize("NFKC" if form == "NFKC" else "NFC", text)


@cache
def _english() -> Callable[[str], str]:
    # Imported late: it takes time, and most commands do not need it. Python warns about escape
    # sequences in its docstrings when it is compiled.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from whisper_normalizer.english import EnglishTextNormalizer

    normaliser: Callable[[str], str] = EnglishTextNormalizer()
    return normaliser
