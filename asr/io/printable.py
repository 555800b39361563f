"""Text from outside, such as file names, as one printable line of valid UTF-8."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

# Control and format characters, lone surrogates, line and paragraph separators.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # part of the spelling of Persian and of Indian languages
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BYTES = range(0xDC80, 0xDD00)  # Python's codes for bytes of a name that are not UTF-8 (PEP 383)


def printable(text: str) -> str:
    r"""The text on one line, with escapes for line ends, control and invisible characters.

    Bytes that are not UTF-8 become `\xff`, other characters `\n`, `\t`, `\x1b` or `\u202e`.

    >>> print(printable("one\ntwo\x1b[2J caf\udce9"))
    one\ntwo\x1b[2J caf\xe9
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def printable_lines(text: str) -> str:
    r"""The text escaped as by `printable`, but with its line ends and tabs.

    >>> print(printable_lines("one\x1b[2J\ntwo"))
    one\x1b[2J
    two
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" else _escape(c) for c in text)


def printable_json(value: Any) -> str:
    r"""A value as JSON on one line that reads back unchanged, with JSON escapes for the characters
    that `printable` escapes.

    >>> print(printable_json({"text": "é\x9b2J"}))
    {"text": "é\u009b2J"}
    """
    return escape_json(json.dumps(value, ensure_ascii=False, allow_nan=False))


def escape_json(text: str) -> str:
    """JSON without line ends, escaped as by `printable_json`."""
    if text.isprintable():
        return text
    return "".join(c if _escape(c) == c else json.dumps(c)[1:-1] for c in text)


def printable_name(path: str | os.PathLike[str]) -> str:
    r"""The name of a file as by `printable`, with backslashes doubled, so that different names look
    different.

    >>> print(printable_name("a\nb"), printable_name(r"a\nb"))
    a\nb a\\nb
    """
    return printable(os.fspath(path).replace("\\", "\\\\"))


def name_fields(path: str | os.PathLike[str], key: str = "file") -> dict[str, str]:
    """The name of a file for JSON: as text, with U+FFFD for bytes that are not UTF-8; such a name
    is also given as a file URI with the exact bytes.

    >>> name_fields("a.wav")
    {'file': 'a.wav'}
    """
    name = os.fspath(path)
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return (
        {key: text} if text == name else {key: text, f"{key}_uri": Path(name).absolute().as_uri()}
    )


def shown_character(character: str) -> str:
    """One character of a text, for a list of characters."""
    if character == " ":
        return "space"
    return character if character.isprintable() else ascii(character)


def _escape(character: str) -> str:
    code = ord(character)
    if unicodedata.category(character) not in _ESCAPED or character in _JOINERS:
        return character
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
