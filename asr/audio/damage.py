"""Damage of ogg and mp4 files, from their containers: the decoders do not report it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from asr.audio.source import Stream

_MOST_SEGMENTS = 255  # of a page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def damage(stream: Stream) -> str:
    """What is missing in an ogg or mp4 file; "" for an intact file and for other formats."""
    stream.seek(0)
    head = stream.read(12)
    if head.startswith(b"OggS"):
        return _ogg_damage(stream)
    if head[4:8] == b"ftyp":
        return "cut off in its last box" if _is_cut_mp4(stream) else ""
    return ""


def _ogg_damage(stream: Stream) -> str:
    """Pages follow each other without gaps. The pages of each track are numbered, and each has a
    checksum (RFC 3533)."""
    total = stream.seek(0, io.SEEK_END)
    numbers: dict[bytes, int] = {}
    at = 0
    while at < total:
        stream.seek(at)
        head = stream.read(27 + _MOST_SEGMENTS)
        count = head[26] if len(head) >= 27 else 0
        at += 27 + count + sum(head[27 : 27 + count])
        if at > total:
            return "cut off in its last page"
        page = head + stream.read(max(0, at - stream.tell()))  # a short page is in the head
        page = page[: 27 + count + sum(head[27 : 27 + count])]
        track, number = page[14:18], int.from_bytes(page[18:22], "little")
        if not page.startswith(b"OggS\0") or number != numbers.get(track, number):
            return "damaged: a page is missing"
        if _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            return "damaged: a page has changed"
        numbers[track] = (number + 1) % (1 << 32)
    return ""


def _checksum(content: bytes) -> int:
    """Ogg's 32-bit CRC: zlib's without its complements, with the bits of the bytes and of the
    result in reverse order."""
    plain = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{plain:032b}"[::-1], 2)


def _is_cut_mp4(stream: Stream) -> bool:
    total = stream.seek(0, io.SEEK_END)
    return any(at + size > total for at, _, size in boxes(stream))


def boxes(stream: Stream) -> Iterator[tuple[int, bytes, int]]:
    """First byte, type and size of the top-level boxes of an mp4 file (ISO 14496-12)."""
    at = 0
    while True:
        stream.seek(at)
        head = stream.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if len(head) < 8 or size < 8:  # 0: to the end
            return
        yield at, head[4:8], size
        at += size
