"""Archives that would take too much room or memory are refused."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from pathlib import Path

import pytest

from asr.io import unpacking as module
from tests.io.test_unpacking import CONTENT, archive, unpack_error, zipped


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "SMALL", 1 << 20)
    monkeypatch.setattr(module, "GROWTH", 0)
    if kind == "a.zip":
        packed = zipped(tmp_path / kind, {"a": bytes(1 << 19), "b": bytes((1 << 19) + 1)})
    else:
        members = [(tarfile.TarInfo(name), bytes((1 << 19) + 1)) for name in "ab"]
        mode = "w:" + kind[6:] if kind != "a.tar" else "w"
        packed = archive(tmp_path / kind, members, mode)
    assert "more than 1,048,576 bytes" in unpack_error(packed, tmp_path / "audio")
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 20)
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo(f"{n}"), b"") for n in range(20)])
    assert "more than 20 files" in unpack_error(packed, tmp_path / "audio")
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo(f"{n}/f"), b"") for n in range(10)])
    assert "more than 20 files" in unpack_error(packed, tmp_path / "audio")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_of_any_size_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 1 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 30)  # of which the disk holds a block
    assert "at once" in unpack_error(tmp_path / "a.tar", tmp_path / "audio")


def test_a_sparse_file_and_an_impossible_size_are_refused(tmp_path: Path) -> None:
    hole = tarfile.TarInfo("hole")
    hole.type = tarfile.GNUTYPE_SPARSE
    negative = tarfile.TarInfo("negative")
    buffer = bytearray(negative.tobuf(tarfile.GNU_FORMAT))
    buffer[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, in base 256
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    for content in (hole.tobuf(tarfile.GNU_FORMAT), bytes(buffer)):
        (tmp_path / "a.tar").write_bytes(content + bytes(1024))
        assert "expected a sound archive" in unpack_error(tmp_path / "a.tar", tmp_path / "audio")


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    crafted = bytearray(lzma.compress(CONTENT))
    begin, end = 12, 12 + (crafted[12] + 1) * 4  # of the first block's header
    crafted[crafted.index(b"\x21\x01", begin) + 2] = 36  # a dictionary of 1 GiB
    crafted[end - 4 : end] = zlib.crc32(crafted[begin : end - 4]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(crafted)
    assert "Memory usage limit" in unpack_error(tmp_path / "a.tar.xz", tmp_path / "audio")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    packed = archive(tmp_path / "a.tar", [(tarfile.TarInfo(n), b"x" * 512) for n in "abc"], "w")
    content = bytearray(packed.read_bytes())
    content[1024 + 3] ^= 0xFF  # in the second header
    packed.write_bytes(content)
    assert "damaged" in unpack_error(packed, tmp_path / "audio")
    packed.write_bytes(content[:1024])
    assert "damaged" in unpack_error(packed, tmp_path / "audio")


# --- the disk ---
