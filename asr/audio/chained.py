"""Files of several recordings one after another: ogg, flac or wav files joined by `cat`, and ogg
streams of radio stations, with one link per song. libsndfile reads only the first recording."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from asr.audio.damage import boxes, damage
from asr.audio.source import Stream, View

# Signature of each file type, by its first bytes. Each is too long to occur by chance.
_BEGINS = {
    b"OggS": rb"OggS\0[\x02\x06]",  # the first page of a track (RFC 3533)
    b"fLaC": rb"fLaC[\0\x80]\0\0\x22",  # and the header of STREAMINFO, 34 bytes (RFC 9639)
    b"\x1aE\xdf\xa3": rb"\x1aE\xdf\xa3.{1,60}?(?:webm|matroska)",  # EBML (RFC 8794)
    b"FLV\x01": rb"FLV\x01[\x01\x04\x05]\0\0\0\x09",
    b"#!AMR": rb"#!AMR(?:-WB)?\n",
    b"NIST_1A": rb"NIST_1A\n   1024\n",
    b"caff": rb"caff\0\x01\0.desc",
    b".snd": rb"\.snd\0\0.{6}\0\0\0[\x01-\x1b]",
    b"riff": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",  # the GUID of w64's header
    b"RF64": rb"RF64.{4}WAVEds64",
    b"0&\xb2u": rb"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel",  # the GUID of ASF's header
}
_LONGEST_MARK = 80  # bytes
_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Link:
    """One of the recordings in a file, and a description of its damage ("" for none)."""

    stream: Stream
    damage: str


Place = tuple[int, int, str]  # first byte and end of a recording, and its damage


def links(stream: Stream) -> list[Link]:
    """The recordings in a file, in order; usually one, the stream itself."""
    places = _places_in_file(stream) if isinstance(stream, io.FileIO) else _places(stream)
    if len(places) == 1:
        return [Link(stream, places[0][2])]
    return [Link(View(stream, start, end), damage) for start, end, damage in places]


def _places_in_file(stream: io.FileIO) -> list[Place]:
    state = os.fstat(stream.fileno())
    return _remembered(str(stream.name), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _remembered(path: str, _number: int, _size: int, _time: int) -> list[Place]:
    """`_places` of a file, cached: the file is read once for all segments taken from it."""
    with Path(path).open("rb", buffering=0) as stream:
        return _places(stream)


def _places(stream: Stream) -> list[Place]:
    starts = _starts(stream) or [0]
    ends = [*starts[1:], stream.seek(0, io.SEEK_END)]
    return [
        (start, end, damage(View(stream, start, end)))
        for start, end in zip(starts, ends, strict=True)
    ]


def _starts(stream: Stream) -> list[int]:
    """First byte of every recording."""
    stream.seek(0)
    head = stream.read(12)
    if head.startswith((b"RIFF", b"FORM")):
        return _chunk_starts(stream)
    if head[4:8] == b"ftyp":
        return [at for at, kind, _ in boxes(stream) if kind == b"ftyp"]
    mark = next((mark for start, mark in _BEGINS.items() if head.startswith(start)), None)
    if mark is None:
        return []
    found = _matches(stream, re.compile(mark, re.DOTALL))
    return _ogg_starts(stream, found) if head.startswith(b"OggS") else found


def _matches(stream: Stream, mark: re.Pattern[bytes]) -> list[int]:
    found = []
    before, at = b"", 0
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        content = before + chunk
        found += [at - len(before) + match.start() for match in mark.finditer(content)]
        at += len(chunk)
        before = content[-_LONGEST_MARK:]
    return list(dict.fromkeys(found))


def _ogg_starts(stream: Stream, pages: list[int]) -> list[int]:
    """Tracks that play together begin in neighbouring pages, and are one recording."""
    found = []
    end = -1
    for start in pages:
        if start != end:
            found.append(start)
        stream.seek(start + 26)
        count = stream.read(1)  # of the segments, whose sizes follow
        end = start + 27 + sum(count) + sum(stream.read(sum(count)))
    return found


def _chunk_starts(stream: Stream) -> list[int]:
    """Wav, avi and AIFF: the first chunk holds all others."""
    found: list[int] = []
    at, first = 0, b""
    while True:
        stream.seek(at)
        head = stream.read(12)
        kind = head[:4] + head[8:]
        if len(head) < 12 or kind != (first or kind):
            return found
        found.append(at)
        first = kind
        size = int.from_bytes(head[4:8], "little" if head.startswith(b"RIFF") else "big")
        if size < 12:
            return found
        at += 8 + size + size % 2
