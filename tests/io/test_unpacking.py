"""Archives: what is in them lands in one folder, and nothing anywhere else."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.errors import AsrError
from asr.io import unpacking as module
from asr.io.unpacking import unpack, unpack_files
from tests.processes import NOBODY, left_by

CONTENT = np.random.default_rng(0).bytes(50_000)


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def device(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)  # which cannot be compressed
    recordings = [(tarfile.TarInfo(f"an4/{n}"), random.bytes(50_000)) for n in range(9)]
    packed = archive(
        tmp_path / "a.tar.gz", [(tarfile.TarInfo("an4/etc/list"), b"one\n"), *recordings]
    )
    told: list[tuple[int, int]] = []
    folder = unpack(packed, tmp_path / "audio", lambda *at: told.append(at))
    assert (folder / "an4" / "etc" / "list").read_bytes() == b"one\n"
    assert {total for _, total in told} == {packed.stat().st_size}
    assert len({done for done, _ in told}) > 5
    assert told == sorted(told)
    packed.unlink()
    assert unpack(packed, tmp_path / "audio") == folder


def test_what_a_killed_process_unpacked_is_removed(tmp_path: Path) -> None:
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("list"), b"one\n")])
    dead, living = left_by(NOBODY), left_by(os.getppid())
    for name in (f".audio.{dead}.tmp", f".audio.{living}.tmp", f".other.{dead}.tmp"):
        (tmp_path / name / "half").mkdir(parents=True)
    unpack(packed, tmp_path / "audio")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        # What a living process is writing stays, and what is of something else.
        [f".audio.{living}.tmp", f".other.{dead}.tmp", "a.tar.gz", "audio"]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: tarfile.TarInfo("../outside"),
        lambda: tarfile.TarInfo("an4/../../outside"),
        lambda: link("inside", "../outside", tarfile.SYMTYPE),
        lambda: link("inside", "/etc/passwd", tarfile.SYMTYPE),
        lambda: link("inside", "../outside", tarfile.LNKTYPE),
        lambda: device("inside"),
    ],
    ids=["parent", "hidden parent", "link", "absolute link", "hard link", "device"],
)
def test_an_archive_that_reaches_outside_is_refused(
    tmp_path: Path, make: Callable[[], tarfile.TarInfo]
) -> None:
    (tmp_path / "outside").write_bytes(b"safe")
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("first"), b"good"), (make(), b"")])
    with pytest.raises(AsrError) as error:
        unpack(packed, tmp_path / "audio")
    assert str(packed) in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "outside").read_bytes() == b"safe"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "outside"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, share: float) -> None:
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("first"), CONTENT)])
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AsrError, match="delete it and run again"):
        unpack(packed, tmp_path / "audio")
    assert not (tmp_path / "audio").exists()


def unpack_error(packed: Path, folder: Path) -> str:
    """The message with which an archive is refused, or nothing."""
    try:
        unpack(packed, folder)
    except AsrError as error:
        return str(error)
    return ""


def test_a_corrupt_archive_is_one_line_or_harmless(tmp_path: Path) -> None:
    text = b"".join(hashlib.sha256(bytes([i])).hexdigest().encode() for i in range(200))
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("first"), text)])
    content = packed.read_bytes()
    messages = []
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        packed.write_bytes(damaged)
        folder = tmp_path / f"audio{place}"
        messages.append(unpack_error(packed, folder))
        assert folder.exists() == (messages[-1] == "")
    assert sum(map(bool, messages)) > 10
    assert not any("\n" in message for message in messages)


def test_something_else_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "page.tar.gz").write_text("<html>gone</html>")
    with pytest.raises(AsrError, match="expected a sound archive"):
        unpack(tmp_path / "page.tar.gz", tmp_path / "audio")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_is_unpacked(tmp_path: Path, mode: str) -> None:
    recordings = [(tarfile.TarInfo(f"./an4/{n}.sph"), CONTENT[n:]) for n in range(3)]
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{format}.tar"
        with tarfile.open(path, mode, format=format) as tar:  # type: ignore[call-overload]
            for member, content in [*recordings, (tarfile.TarInfo("d" * 90 + "/" + "f" * 90), b"")]:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        folder = unpack(path, tmp_path / f"audio{format}")
        assert [(folder / "an4" / f"{n}.sph").read_bytes() for n in range(3)] == [
            CONTENT[n:] for n in range(3)
        ]
        assert (folder / ("d" * 90) / ("f" * 90)).is_file()


def zipped(path: Path, members: dict[str, bytes], mode: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.create_system, member.external_attr = 3, (mode | 0o644) << 16
            packed.writestr(member, content)
    return path


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.mkdir("empty")
        packed.writestr("wav48/p225/p225_001.flac", CONTENT)
        packed.writestr("none", b"")
    folder = unpack(tmp_path / "a.zip", tmp_path / "audio")
    assert (folder / "wav48" / "p225" / "p225_001.flac").read_bytes() == CONTENT
    assert (folder / "none").read_bytes() == b""
    assert (folder / "empty").is_dir()


# --- links: kept within the archive ---


def test_links_within_an_archive_are_kept(tmp_path: Path) -> None:
    members = [
        link("train/one.wav", "../data/one.wav", tarfile.SYMTYPE),  # before what it is of
        link("again/one.wav", "../train/one.wav", tarfile.SYMTYPE),
        link("hard.wav", "./data/one.wav", tarfile.LNKTYPE),
        link("legacy/sph", "../data", tarfile.SYMTYPE),
        tarfile.TarInfo("data/one.wav"),
    ]
    packed = archive(tmp_path / "a.tar", [(m, CONTENT if m.isreg() else b"") for m in members])
    folder = unpack(packed, tmp_path / "audio")
    for name in ("train/one.wav", "again/one.wav", "hard.wav", "legacy/sph/one.wav"):
        assert (folder / name).read_bytes() == CONTENT
    assert [p.name for p in folder.rglob("*") if p.is_symlink()] == ["sph"]
    zipped(tmp_path / "a.zip", {"b": b"x"})
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as more:
        member = zipfile.ZipInfo("d/link")
        member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        more.writestr(member, "../b")
    assert (unpack(tmp_path / "a.zip", tmp_path / "z") / "d" / "link").read_bytes() == b"x"


def test_links_become_copies_where_a_file_system_has_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    members = [(tarfile.TarInfo("a"), CONTENT), (link("b", "a", tarfile.LNKTYPE), b"")]
    packed = archive(tmp_path / "a.tar", members)
    assert (unpack(packed, tmp_path / "audio") / "b").read_bytes() == CONTENT
    monkeypatch.setattr(module, "SMALL", len(CONTENT) + 1)
    monkeypatch.setattr(module, "GROWTH", 0)
    assert "too many bytes" in unpack_error(packed, tmp_path / "again")


# --- what is refused ---

SYMLINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [tarfile.TarInfo("/outside")],
        [tarfile.TarInfo("C:/outside")],
        [tarfile.TarInfo("..\\outside")],
        [tarfile.TarInfo("\\outside")],
        [tarfile.TarInfo("a\n/b")],
        [tarfile.TarInfo("a/" * 41 + "b")],
        [tarfile.TarInfo("a/" * 2000 + "b")],
        [tarfile.TarInfo("a" * 300)],
        [tarfile.TarInfo(".")],
        [tarfile.TarInfo("a"), tarfile.TarInfo("a")],
        [tarfile.TarInfo("a"), tarfile.TarInfo("./a")],
        [tarfile.TarInfo("a"), tarfile.TarInfo("a/b")],
        [tarfile.TarInfo("a/b"), tarfile.TarInfo("a")],
        # Links through which a file would be written, in every order.
        [link("d", "..", SYMLINK), tarfile.TarInfo("d/outside")],
        [tarfile.TarInfo("d/outside"), link("d", "..", SYMLINK)],
        [link("d", "e", SYMLINK), link("e", "..", SYMLINK), tarfile.TarInfo("d/outside")],
        [link("outside", "../outside", HARD), tarfile.TarInfo("outside")],
        [link("d/e", "../..", SYMLINK)],
        [link("d", "e/../../outside", SYMLINK), tarfile.TarInfo("e/f")],
        [link("d", "nowhere", SYMLINK)],
        [link("d", "nowhere", HARD)],
        [link("d", "d", SYMLINK)],
        [link("d", "e", SYMLINK), link("e", "d", SYMLINK)],
        [link("d/e", "../d", SYMLINK)],
        [link("d/e", "..", SYMLINK)],
    ],
    ids=lambda members: " ".join(f"{member.name[:40]!r}" for member in members),
)
def test_names_and_links_that_lead_elsewhere_are_refused(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "outside").write_bytes(b"safe")
    packed = archive(tmp_path / "a.tar", [(m, b"x" if m.isreg() else b"") for m in members])
    message = unpack_error(packed, tmp_path / "audio")
    assert message.startswith("expected")
    assert message.isprintable()
    assert (tmp_path / "outside").read_bytes() == b"safe"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "outside"]


def test_a_link_that_confuses_the_real_path_writes_nothing_outside(tmp_path: Path) -> None:
    """As CVE-2025-4517: beyond PATH_MAX the data filter of older Pythons takes `..` for inside."""
    path, steps = "", "abcdefghijklmnop"
    members = []
    for step in steps:
        folder = tarfile.TarInfo(f"{path}{'d' * 50}")
        folder.type = tarfile.DIRTYPE
        members += [(folder, b""), (link(f"{path}{step}", "d" * 50, SYMLINK), b"")]
        path += "d" * 50 + "/"
    through = "/".join(steps) + "/" + "l" * 250
    members.append((link(through, "../" * len(steps), SYMLINK), b""))
    members.append((link("escape", f"{through}/../../outside", SYMLINK), b""))
    members.append((tarfile.TarInfo("escape/written"), b"x"))
    (tmp_path / "outside").mkdir()
    message = unpack_error(archive(tmp_path / "a.tar", members), tmp_path / "audio")
    assert "expected a sound archive" in message
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/outside", "C:\\outside", "a/../../outside"])
def test_a_zip_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    packed = zipped(tmp_path / "a.zip", {"first": b"good", name: b"bad"})
    assert "outside" in unpack_error(packed, tmp_path / "audio")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    assert "leads outside" in unpack_error(
        zipped(tmp_path / "a.zip", {"link": b"../outside"}, stat.S_IFLNK), tmp_path / "audio"
    )
    assert "neither a file" in unpack_error(
        zipped(tmp_path / "a.zip", {"fifo": b""}, stat.S_IFIFO), tmp_path / "audio"
    )


# --- sizes ---


def test_a_full_disk_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("first"), CONTENT)])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9))
    message = unpack_error(packed, tmp_path / "audio")
    assert "a full disk: make room" in message
    assert "delete" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_an_error_of_the_disk_does_not_blame_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo("first"), CONTENT)])
    for number in (errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):

        def full(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, "_write", full)
        assert "delete" not in unpack_error(packed, tmp_path / "audio")


def test_files_are_checked_before_the_folder_appears(tmp_path: Path) -> None:
    packed = zipped(tmp_path / "a.zip", {"d/one": b"1"})
    folder = tmp_path / "out"
    seen: list[bytes] = []

    def check(place: Path) -> None:
        seen.append((place / "d" / "one").read_bytes())
        assert not folder.exists()
        if len(seen) == 1:
            raise AsrError("no")

    with pytest.raises(AsrError, match="no"):
        unpack_files(packed, folder, check, "get it again")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    unpack_files(packed, folder, check, "get it again")
    assert (folder / "d" / "one").read_bytes() == b"1"


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_files_are_no_links_or_devices(tmp_path: Path, mode: int) -> None:
    packed = zipped(tmp_path / "a.zip", {"one": b"two"}, mode)
    with pytest.raises(AsrError, match="'one' is neither a file nor a folder; get it again"):
        unpack_files(packed, tmp_path / "out", lambda _: None, "get it again")
    assert not (tmp_path / "out").exists()
