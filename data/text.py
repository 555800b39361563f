"""What several corpora do to their lists and transcripts."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from asr.errors import AsrError, reason

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list that say something, with their numbers, without spaces around them.

    Raises AsrError where the file is missing or no UTF-8.
    """
    return [(number, line.strip()) for number, line in _lines(path)]


def read_columns(path: Path, count: int) -> list[tuple[int, list[str]]]:
    """The fields of a list that tabs part, which may be empty, with the numbers of their lines.

    Raises AsrError as `read_lines`, and for a line of other than `count` fields.
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
    # Not splitlines: it would also part lines at characters that belong to texts.
    return [(n, line) for n, line in enumerate(content.split("\n"), start=1) if line.strip()]


def read_table(path: Path) -> dict[str, str]:
    """A list of keys, each with what stands after it in its line.

    Raises AsrError where a line has a key only, or a key that was there before.
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
