"""Valid files changed at random, so that most of their structure survives."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

NUMBERS = [
    b"0", b"-0", b"-1", b"1", b"255", b"65536", b"2147483648", b"-2147483649", b"4294967295",
    b"9223372036854775808", b"99999999999999999999", b"1e308", b"1e999", b"-1e999", b"1e-320",
    b"0.1", b"nan", b"NaN", b"Infinity", b"-inf", b"0x7f", b"1_000", b"9" * 400, b"1" * 5000,
]  # fmt: skip
TEXTS = [
    b"", b" ", b"\n", b"\r\n", b"\t", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\\ud800", b"\\u0000", b'"', b"'", b"{", b"}", b"[" * 2000, b"]", b"&a [*a]", b"<<: *a", b"%s",
    b"../../../../etc/passwd", b"/dev/null", b"\x1b]0;x\x07", "\u202e\u2028\u0085".encode(),
    "İıßﬁ\u0301\u200b".encode(), b"<unk>", b"</s>", b"\\data\\", b"\\end\\", b"a" * 70_000, b"-99",
    b"!!python/object:os.system", b";;", b"(", b")", b"null", b"true",
]  # fmt: skip
EXTREMES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320, "", " ",
    "a", "\0", "\x1b[2J", "é\u202e", "x" * 70_000, "../../x", "/dev/null", "9" * 400, "nan", [], {},
    [[]], [0] * 300, {"a": 1}, {"": None}, ["a"] * 9, [-1, 1e300],
]  # fmt: skip
MOST = 5  # changes of one input


def mutated(content: bytes, others: list[bytes], random: Random) -> bytes:
    """`content` with one change or a few; parts may come from `others`."""
    for _ in range(random.choice((1, 1, 1, 2, MOST))):
        content = random.choice(WAYS)(content, others, random)
    return content


def _flip(content: bytes, others: list[bytes], random: Random) -> bytes:
    changed = bytearray(content)
    # The first bytes of a binary file describe the rest.
    reach = random.choice((len(changed), min(len(changed), 200)))
    for _ in range(random.choice((1, 1, 4, 20)) if changed else 0):
        changed[random.randrange(reach)] = random.choice(
            (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
        )
    return bytes(changed)


def _cut(content: bytes, others: list[bytes], random: Random) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] if random.random() < 0.7 else content[place:]


def _drop(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, end = sorted(random.randint(0, len(content)) for _ in range(2))
    end = min(end, start + random.choice((1, 8, 100, len(content))))
    return content[:start] + content[end:]


def _repeat(content: bytes, others: list[bytes], random: Random) -> bytes:
    start = random.randint(0, len(content))
    part = content[start : start + random.choice((1, 8, 100, 1000))]
    return content[:start] + part * random.choice((2, 3, 50)) + content[start:]


def _splice(content: bytes, others: list[bytes], random: Random) -> bytes:
    other = random.choice(others)
    place = random.randint(0, len(content))
    return content[:place] + other[random.randint(0, len(other)) :]


def _insert(content: bytes, others: list[bytes], random: Random) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] + random.choice(TEXTS) + content[place:]


def _number(content: bytes, others: list[bytes], random: Random) -> bytes:
    places = list(re.finditer(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", content[:100_000]))
    if not places:
        return _flip(content, others, random)
    found = random.choice(places)
    return content[: found.start()] + random.choice(NUMBERS) + content[found.end() :]


def _lines(content: bytes, others: list[bytes], random: Random) -> bytes:
    lines = content.split(b"\n")
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    lines[i] = random.choice((lines[j], b"", lines[j] + lines[i], random.choice(TEXTS)))
    return b"\n".join(lines)


def _field(content: bytes, others: list[bytes], random: Random) -> bytes:
    """A value of a JSON file or of a line of JSON, replaced by an extreme one, or removed."""
    lines = [content] if content[:1] in b"[{" and b"}\n{" not in content else content.split(b"\n")
    place = random.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return _number(content, others, random)
    lines[place] = json.dumps(_changed(value, random)).encode()
    return b"\n".join(lines)


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, dict | list) and value and random.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random.choice(keys)
        copy = dict(value) if isinstance(value, dict) else list(value)
        if random.random() < 0.1:
            del copy[key]
        else:
            copy[key] = _changed(value[key], random)
        return copy
    return random.choice(EXTREMES)


WAYS = [_flip, _flip, _cut, _drop, _repeat, _splice, _insert, _number, _lines, _field, _field]
