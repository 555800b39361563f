"""UTF-8 files of lines, read and written whole, with the line named in every complaint."""

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
    """Each line with its number, from 1, without spaces around it. Blank lines are passed over,
    and with `comments` those that begin with ;; as well. Raises TranscriptError as `read_utf8`."""
    for number, line in enumerate(split_lines(read_utf8(path)), start=1):
        line = line.strip()
        if line and not (comments and line.startswith(";;")):
            yield number, line


def split_lines(text: str) -> list[str]:
    """The lines of a file: they end in LF or CR LF, or in CR where there is no LF at all.

    Not `splitlines`, which also parts lines at U+0085, U+2028 and others, which belong to texts.
    """
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def split_fields(line: str, most: int = 0) -> list[str]:
    """What ASCII spaces part, in at most `most` pieces if that is not 0. Names and words may hold
    other spaces, such as no-break and ideographic ones, where `str.split` would part them.

    >>> split_fields(" a\\tb\u3000c  d ", 2)
    ['a', 'b\u3000c  d']
    """
    stripped = line.strip(_BLANKS)
    return _BLANK.split(stripped, max(0, most - 1)) if stripped else []


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines, whole or not at all. Raises TranscriptError: no line, no place to write to."""
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        raise TranscriptError(f"{path}: expected at least one utterance to write, got none")
    if text.startswith("\ufeff"):
        text = "\ufeff" + text  # reading takes the first for a byte order mark
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        if disk_trouble(error):
            raise
        raise TranscriptError(
            f"{path}: expected a place to write to, got '{error.strerror}'; choose another path"
        ) from None


def check_new(seen: dict[str, int], id_: str, line: int, path: str | Path) -> None:
    """Remember the line of an id. Raises TranscriptError where an earlier line had it."""
    first = seen.setdefault(id_, line)
    if first != line:
        raise TranscriptError(
            f"{path}:{line}: expected a new id, got {shown(id_)} again after line {first};"
            " rename or remove one of them"
        )


def is_whole(text: str) -> bool:
    """Whether UTF-8 can hold the text, which it cannot where half a surrogate pair is alone."""
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
    except (ValueError, RecursionError):  # integers and nesting that Python will not print
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
