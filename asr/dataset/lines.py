"""UTF-8 text files, read and written atomically; errors name the line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from asr.errors import TranscriptError, disk_trouble, reason
from asr.io.files import atomic_path
from asr.io.foreign import kind_of

_BLANKS = " \t\r\n\v\f"
_BLANK = re.compile(f"[{_BLANKS}]+")


def read_utf8(path: str | Path) -> str:
    """The text of a file, without a byte order mark.

    Raises TranscriptError: a file that is missing, empty, or not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise TranscriptError(
            f"{path}: expected a file of texts, got {reason(error)}; check the path"
        ) from None
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if kind := kind_of(path):
            raise TranscriptError(f"{path}: expected UTF-8 text, got {kind}") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise TranscriptError(
            f"{path}:{line}: expected UTF-8 text, got byte 0x{content[error.start]:02x};"
            " save the file as UTF-8"
        ) from None
    if not text.strip():
        raise TranscriptError(
            f"{path}:1: expected at least one utterance, got an empty file; write it again"
        )
    return text


def numbered_lines(path: str | Path, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1, stripped. Empty lines are skipped; with `comments`, also
    lines that begin with ;;. Raises TranscriptError as `read_utf8`."""
    for number, line in enumerate(split_lines(read_utf8(path)), start=1):
        line = line.strip()
        if line and not (comments and line.startswith(";;")):
            yield number, line


def split_lines(text: str) -> list[str]:
    """The lines of a file: they end in LF or CR LF, or in CR if there is no LF.

    Not `splitlines`, which also splits at U+0085, U+2028 and others that belong to texts.
    """
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def split_fields(line: str, most: int = 0) -> list[str]:
    """Fields separated by ASCII spaces, at most `most` if that is not 0. Names and words may
    contain other spaces, such as no-break and ideographic ones, at which `str.split` would split.

    >>> split_fields(" a\\tb\u3000c  d ", 2)
    ['a', 'b\u3000c  d']
    """
    stripped = line.strip(_BLANKS)
    return _BLANK.split(stripped, max(0, most - 1)) if stripped else []


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines atomically. Raises TranscriptError: no line, or no writable path."""
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        raise TranscriptError(f"{path}: expected at least one utterance to write, got none")
    if text.startswith("\ufeff"):
        text = "\ufeff" + text  # a reader drops the first as a byte order mark
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        if disk_trouble(error):
            raise
        raise TranscriptError(
            f"{path}: expected a writable path, got '{error.strerror}'; choose another path"
        ) from None


def check_new(seen: dict[str, int], id_: str, line: int, path: str | Path) -> None:
    """Record the line of an id. Raises TranscriptError if an earlier line has the same id."""
    first = seen.setdefault(id_, line)
    if first != line:
        raise TranscriptError(
            f"{path}:{line}: expected a new id, got {shown(id_)} again after line {first};"
            " rename or remove one of them"
        )


def is_whole(text: str) -> bool:
    """Whether UTF-8 can encode the text, that is, it has no lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """A value as one short printable line.

    >>> shown("a" * 100), shown("one\\ntwo")
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...", "'one\\\\ntwo'")
    """
    try:
        text = repr(value) if repr(value).isprintable() else ascii(value)
    except (ValueError, RecursionError):  # integers and nesting that Python does not print
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
