"""Common functions for lists and transcripts of corpora."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from asr.errors import AsrError, reason

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The non-empty lines of a list, stripped, with their numbers.

    Raises AsrError if the file is missing or not UTF-8.
    """
    return [(number, line.strip()) for number, line in _lines(path)]


def read_columns(path: Path, count: int) -> list[tuple[int, list[str]]]:
    """The fields of a tab-separated list, which may be empty, with their line numbers.

    Raises AsrError as `read_lines`, and for a line with a number of fields other than `count`.
    """
    found = []
    for number, line in _lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != count:
            raise AsrError(
                f"{path}:{number}: expected {count} columns, got '{line.strip()[:40]}': get the "
                "corpus again"
            )
        found.append((number, fields))
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AsrError(
            f"expected a list of the corpus, got {path}: {reason(error)}; get the corpus again"
        ) from None
    # Not splitlines: it would also split at characters that belong to texts.
    return [(n, line) for n, line in enumerate(content.split("\n"), start=1) if line.strip()]


def read_table(path: Path) -> dict[str, str]:
    """A list of keys, each with the rest of its line.

    Raises AsrError for a line with only a key, or with a repeated key.
    """
    found: dict[str, str] = {}
    for number, line in read_lines(path):
        key, _, value = line.replace("\t", " ").partition(" ")
        if not value.strip() or key in found:
            raise AsrError(
                f"{path}:{number}: expected a new id and what belongs to it, got '{line[:40]}': "
                "get the corpus again"
            )
        found[key] = value.strip()
    return found


def spoken_words(sentence: str) -> str:
    """A written sentence without its punctuation; apostrophes stay within words.

    >>> spoken_words("“Don’t,” he said--'twice' a day; the jury's well-known.")
    "Don't he said twice a day the jury's well known"
    """
    plain = unicodedata.normalize("NFC", sentence).replace("’", "'")
    return " ".join(_WORD.findall(plain))
