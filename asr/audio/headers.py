"""Headers with a wrong size: from a program that crashed, from a pipe, or for more than the 4 GiB
that the field can count. If nothing follows the stated sound, it extends to the end of the file."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asr.audio.source import Stream, View

Say = Callable[[str], None]

_WRAP = 1 << 32  # bytes: the modulus of a 32-bit size
# Sizes written to a pipe, besides 0: the largest signed and unsigned numbers, less a header.
_UNKNOWN = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, _WRAP))
_LONGEST_HEADER = 1 << 16  # bytes before the sound, for cover pictures and the like
_MOST_CHUNKS = 1000
# Tags that players append after the sound, in files of any format.
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class _Field:
    """A count of bytes or samples: `(sound + more) // unit`, in `struct` format `kind`."""

    at: int
    kind: str
    more: int = 0
    unit: int = 1


@dataclass(frozen=True)
class _Header:
    """Sound begins at byte `data` and has `stated` bytes (None: to the end), by `fields`."""

    data: int
    stated: int | None
    fields: tuple[_Field, ...]
    order: str = "<"
    """Byte order of the chunk sizes, in `struct` notation."""
    chunked: bool = True
    """Whether other chunks may follow the sound."""
    align: int = 2
    """Alignment of chunks in bytes."""
    wide: bool = False
    """Whether sizes have 64 bits."""


def with_true_size(stream: Stream, say: Say) -> Stream:
    """The same recording with a header that counts all of its sound. `say` reports a wrong size,
    except for the values that stand for an unknown size."""
    header = _header(stream)
    if header is None:
        return stream
    total = stream.seek(0, io.SEEK_END)
    there, stated = total - header.data, header.stated
    true = there if stated is None else _true_size(stream, header, stated, total)
    if stated is None or true == stated or there <= 0:
        return stream
    if stated and not any(stated in sizes for sizes in _UNKNOWN):
        what = "it is cut off" if true < stated else "all of it is read"
        say(f"its header states {stated} bytes of sound, the file has {true}: {what}")
    return View(stream, header.data, header.data + true, _patched(stream, header, true))


def _true_size(stream: Stream, header: _Header, stated: int, total: int) -> int:
    there = total - header.data
    if stated >= there:
        return there
    step = there + 1 if header.wide else _WRAP
    for size in range(stated, there + 1, step):
        end = header.data + size
        end += -end % header.align
        if total - end < 8 and size:  # less than a chunk: padding
            return size
        if header.chunked and _follows(stream, header, end, total):
            return size
    return there


def _follows(stream: Stream, header: _Header, at: int, total: int) -> bool:
    """Whether only chunks, tags or zeros follow here up to the end of the file."""
    stream.seek(at)
    rest = stream.read(1 << 16)
    if rest.startswith(_TAGS) or (at > header.data and at + len(rest) == total and not any(rest)):
        return True
    for _ in range(_MOST_CHUNKS):
        stream.seek(at)
        name, size, head = _chunk(stream.read(24), header)
        if size is None or size < 0 or not all(32 <= byte < 127 for byte in name):
            return False
        at += head + size
        at += -at % header.align
        if at >= total - 1:
            return at <= total + 8
    return False


def _chunk(content: bytes, header: _Header) -> tuple[bytes, int | None, int]:
    """Name, size in bytes, and header size of a chunk; None if there is none."""
    if not header.wide:
        size = struct.unpack_from(f"{header.order}I", content, 4)[0] if len(content) >= 8 else None
        return content[:4], size, 8
    if header.order == ">":  # caf
        size = struct.unpack_from(">q", content, 4)[0] if len(content) >= 12 else None
        return content[:4], size, 12
    size = struct.unpack_from("<q", content, 16)[0] - 24 if len(content) >= 24 else None
    return content[:4], size, 24


def _patched(stream: Stream, header: _Header, size: int) -> bytes:
    """The bytes before the sound, with `size` in their fields."""
    stream.seek(0)
    head = bytearray(stream.read(header.data))
    if head.startswith(b"RIFF") and size + header.data >= _WRAP:
        # RF64 (EBU Tech 3306): the same with 64-bit sizes.
        sizes = struct.pack("<QQQI", size + header.data + 28, size, 0, 0)
        middle = bytes(head[12 : header.data - 8])
        unknown = b"\xff\xff\xff\xff"
        start = b"RF64" + unknown + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes
        return start + middle + b"data" + unknown
    for field in header.fields:
        value = (size + field.more) // field.unit
        most = (1 << 8 * struct.calcsize(field.kind)) - 1
        struct.pack_into(field.kind, head, field.at, min(value, most))
    return bytes(head)


# --- the size fields of each format ---


def _header(stream: Stream) -> _Header | None:
    """None for other formats, and if the sound is not found."""
    stream.seek(0)
    head = stream.read(_LONGEST_HEADER)
    try:
        if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
            return _riff(head, "<" if head[:4] == b"RIFF" else ">")
        if head[:4] == b"RF64" and head[8:12] == b"WAVE":
            return _rf64(head)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(head)
        if head[:16] == _W64_RIFF:
            return _w64(head)
        if head[:4] == b"caff":
            return _caf(head)
        if head[:4] == b".snd":
            data, stated = struct.unpack_from(">II", head, 4)
            known = None if stated == _WRAP - 1 else stated
            return _Header(data, known, (_Field(8, ">I"),), chunked=False, align=1)
        if head[:7] == b"NIST_1A":
            return _sphere(head)
    except struct.error:  # shorter than its header
        pass
    return None


def _chunks(head: bytes, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, first content byte, and size of every chunk after the first 12 bytes."""
    at = 12
    while at + 8 <= len(head):
        name, size = struct.unpack_from(f"{order}4sI", head, at)
        yield name, at + 8, size
        at += 8 + size + size % 2


def _riff(head: bytes, order: str) -> _Header | None:
    for name, at, size in _chunks(head, order):
        if name == b"data":
            whole = _Field(4, f"{order}I", at - 8)
            return _Header(at, size, (whole, _Field(at - 4, f"{order}I")), order)
    return None


def _rf64(head: bytes) -> _Header | None:
    places: dict[bytes, int] = {}
    for name, at, size in _chunks(head, "<"):
        places[name] = at
        if name != b"data":
            continue
        if b"ds64" not in places or b"fmt " not in places:
            return None
        wide = places[b"ds64"]
        stated = struct.unpack_from("<Q", head, wide + 8)[0] if size == _WRAP - 1 else size
        align = struct.unpack_from("<H", head, places[b"fmt "] + 12)[0]
        fields = (
            _Field(wide, "<Q", at - 8),
            _Field(wide + 8, "<Q"),
            _Field(wide + 16, "<Q", unit=max(align, 1)),
        )
        return _Header(at, stated, fields)
    return None


def _aiff(head: bytes) -> _Header | None:
    fields: tuple[_Field, ...] = ()
    for name, at, size in _chunks(head, ">"):
        if name == b"COMM":
            channels, _, bits = struct.unpack_from(">HIH", head, at)
            fields = (_Field(at + 2, ">I", unit=max(channels * (-(-bits // 8)), 1)),)
        if name == b"SSND":
            data = at + 8 + struct.unpack_from(">I", head, at)[0]
            before = data - at
            own = (_Field(4, ">I", data - 8), _Field(at - 4, ">I", before))
            return _Header(data, max(size - before, 0), fields + own, ">")
    return None


def _w64(head: bytes) -> _Header | None:
    at = 40
    while at + 24 <= len(head):
        size = struct.unpack_from("<q", head, at + 16)[0]
        if head[at : at + 16] == _W64_DATA:
            data = at + 24
            fields = (_Field(16, "<q", data), _Field(at + 16, "<q", 24))
            return _Header(data, max(size - 24, 0), fields, align=8, wide=True)
        if size < 24:
            return None
        at += size + -size % 8
    return None


def _caf(head: bytes) -> _Header | None:
    at = 8
    while at + 12 <= len(head):
        name, size = struct.unpack_from(">4sq", head, at)
        if name == b"data":
            stated = None if size < 0 else max(size - 4, 0)
            return _Header(at + 16, stated, (_Field(at + 4, ">q", 4),), ">", align=1, wide=True)
        if size < 0:
            return None
        at += 12 + size
    return None


def _sphere(head: bytes) -> _Header | None:
    """libsndfile reads to the end in any case."""
    counts = [
        re.search(rb"\n%b -i (\d{1,18})\s" % name, head[:1024])
        for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
    ]
    size = re.match(rb"NIST_1A\n *(\d{1,9})\n", head)
    # Of compressed samples, the header states the size without compression.
    embedded = re.search(rb"\nsample_coding -s\d+ [^\n]*embedded", head[:1024])
    if size is None or None in counts or embedded:
        return None
    stated = math.prod(int(count[1]) for count in counts if count)
    return _Header(int(size[1]), stated, (), chunked=False, align=1)
