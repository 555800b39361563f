"""Safe unpacking: only regular files and folders, and only inside one folder.

The extraction of the standard library is not used, because its checks differ between versions of
Python, and some can be bypassed (CVE-2025-4517). Here nothing is written through a link: names are
checked, files are created and never overwritten, and links are made after all files.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from asr.errors import AsrError, disk_trouble
from asr.io.files import atomic_path, remove_leftovers
from asr.io.printable import printable

BLOCK = 1 << 16  # bytes of a tar read at once, including headers of any stated size
DIRECTORY = 32 << 20  # bytes of a zip read at once, such as its whole list of members
GROWTH = 100  # limit relative to the size of the archive; recordings grow two to ten times
SMALL = 1 << 30  # bytes to which any archive may unpack
FEW = 100_000  # members that any archive may have
MEMBER = 200  # bytes of the archive for each member of a larger number
LONGEST_NAME = 1024  # bytes
DEEPEST = 40  # nested folders
CHAIN = 8  # links to links
XZ_MEMORY = 256 << 20  # bytes; `xz -9` needs 65 MiB

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:|^/")  # including absolute Windows paths
# RuntimeError: an encrypted zip, an unknown compression, or too deep recursion.
_UNSOUND = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, OSError,
    EOFError, ValueError, OverflowError, RuntimeError,
)  # fmt: skip
# Errors of the operating system that are caused by names in an archive.
_NAMES = (FileExistsError, NotADirectoryError, IsADirectoryError)

PathParts = tuple[str, ...]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """The header of a member of an archive, and a function to read it."""

    name: str
    kind: Literal["file", "folder", "link", "hard link", "device"]
    size: int
    read: Callable[[], IO[bytes]]
    target: Callable[[], str] = str
    """The target of a link."""


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> Path:
    """Unpack a tar archive, or a zip by its suffix, into `folder`, atomically.

    `progress` gets the archive's bytes done and in total. Links within the archive are kept: to a
    file as a hard link, to a folder as a link. Raises AsrError naming the archive for a member
    outside the folder, a link to outside or to nothing, a repeated name, a device, a damaged
    archive, or one that unpacks to more than `GROWTH` times its size; and naming the folder if the
    disk is full.
    """
    if folder.is_dir():
        return folder
    remove_leftovers(folder)
    with atomic_path(folder) as temporary:
        try:
            temporary.mkdir()
            size = archive.stat().st_size
            with archive.open("rb") as file:
                members = _zip_members if archive.suffix == ".zip" else _tar_members
                _write_all(members(file, size), temporary, size, lambda: file.tell(), progress)
        except _UNSOUND as error:
            raise _refused(archive, folder, error) from None
    return folder


def unpack_files(archive: Path, folder: Path, check: Callable[[Path], None], advice: str) -> None:
    """Unpack a zip of files and folders into `folder`, atomically, replacing a present one.

    `check` gets the folder under a temporary name, and raises AsrError for wrong content. Raises
    AsrError as `unpack` does, and for links; `advice` says what to do with a bad archive.
    """
    remove_leftovers(folder)
    with atomic_path(folder) as temporary:
        try:
            temporary.mkdir()
            size = archive.stat().st_size
            with archive.open("rb") as file:
                members = map(_no_link, _zip_members(file, size))
                _write_all(members, temporary, size, file.tell, None)
        except _UNSOUND as error:
            raise _refused(archive, folder, error, advice) from None
        check(temporary)


def _no_link(member: Member) -> Member:
    if member.kind not in ("file", "folder"):
        raise ValueError(f"{member.name[:60]!r} is neither a file nor a folder")
    return member


def _refused(
    archive: Path, folder: Path, error: Exception, advice: str = "delete it and run again"
) -> AsrError:
    if isinstance(error, OSError) and error.errno and not isinstance(error, _NAMES):
        if trouble := disk_trouble(error):
            return AsrError(f"expected room to unpack {archive} into {folder}, got {trouble}")
        return AsrError(f"expected to unpack {archive} into {folder}, got {error.strerror}")
    words = "one name for two members" if isinstance(error, _NAMES) else str(error)
    words = printable(" ".join(words.split()))[:200] or type(error).__name__
    return AsrError(f"expected a sound archive, got {archive}: {words}; {advice}")


# --- writing ---


def _write_all(
    members: Iterator[Member],
    folder: Path,
    packed: int,
    tell: Callable[[], int],
    progress: Progress | None,
) -> None:
    room, most = max(SMALL, GROWTH * packed), max(FEW, packed // MEMBER)
    made: set[PathParts] = {()}
    links: list[tuple[PathParts, PathParts]] = []
    for count, member in enumerate(members, start=1):
        parts = _parts(member.name)
        room -= member.size
        if room < 0:
            raise ValueError(f"it unpacks to more than {max(SMALL, GROWTH * packed):,} bytes")
        _make_folders(parts if member.kind == "folder" else parts[:-1], folder, made)
        if count + len(made) > most:
            raise ValueError(f"it holds more than {most:,} files and folders")
        if member.kind == "device" or (not parts and member.kind != "folder"):
            raise ValueError(f"{member.name[:60]!r} is neither a file, a folder nor a link")
        if member.kind == "file":
            _write(member, folder.joinpath(*parts))
        elif member.kind != "folder":
            beside = parts[:-1] if member.kind == "link" else ()
            links.append((parts, _target(member, beside)))
        if progress:
            progress(min(tell(), packed), packed)
    _make_links(links, folder, room)


def _parts(name: str, beside: PathParts = ()) -> PathParts:
    """A name split into folders. One relative to `beside` may go up, but not out."""
    if _UNSAFE.search(name) or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"{name[:60]!r} would be outside, or is not a name")
    parts = list(beside)
    for part in name.split("/"):
        if part == ".." and parts and beside:
            parts.pop()
        elif part == "..":
            raise ValueError(f"{name[:60]!r} would be outside")
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > DEEPEST:
        raise ValueError(f"{name[:60]!r} is more than {DEEPEST} folders deep")
    return tuple(parts)


def _target(member: Member, beside: PathParts) -> PathParts:
    try:
        return _parts(member.target(), beside)
    except ValueError as error:
        raise ValueError(f"the link {member.name[:60]!r} leads outside: {error}") from None


def _make_folders(parts: PathParts, folder: Path, made: set[PathParts]) -> None:
    for depth in range(1, len(parts) + 1):
        if parts[:depth] not in made:
            folder.joinpath(*parts[:depth]).mkdir(exist_ok=True)
            made.add(parts[:depth])


def _write(member: Member, path: Path) -> None:
    """Write a new file of exactly the size that the archive states."""
    if shutil.disk_usage(path.parent).free < member.size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    left = member.size
    with member.read() as source, path.open("xb") as file:
        while left:
            block = source.read(min(BLOCK, left))
            if not block:
                raise EOFError(f"{member.name[:60]!r} ends early")
            file.write(block)
            left -= len(block)


def _make_links(links: Sequence[tuple[PathParts, PathParts]], folder: Path, room: int) -> None:
    """Make links to files as hard links, then links to folders."""
    waiting = list(links)
    for _ in range(CHAIN):
        later = []
        for parts, target in waiting:
            source = folder.joinpath(*target)
            if source.is_file():
                room -= _same_file(source, folder.joinpath(*parts), room)
            else:
                later.append((parts, target))
        if len(later) == len(waiting):
            break
        waiting = later
    # Up to here, all folders are real ones: none is reached through a link.
    absent = [link for link in waiting if not folder.joinpath(*link[1]).is_dir()]
    around = [link for link in waiting if link[0][: len(link[1])] == link[1]]
    for parts, target in absent + around:
        where = "nowhere" if (parts, target) in absent else "to a folder around it"
        raise ValueError(f"the link {'/'.join(parts)[:60]!r} leads {where}")
    for parts, target in waiting:
        up = os.path.relpath("/".join(target) or ".", "/".join(parts[:-1]) or ".")
        folder.joinpath(*parts).symlink_to(up, target_is_directory=True)


def _same_file(source: Path, path: Path, room: int) -> int:
    """Give a file another name; copies it if the file system has no hard links."""
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        if source.stat().st_size > room:
            raise ValueError("its links unpack to too many bytes") from None
        with source.open("rb") as content, path.open("xb") as file:
            shutil.copyfileobj(content, file, BLOCK)
        return source.stat().st_size
    return 0


# --- reading ---


class _Careful(io.RawIOBase):
    """A file with a limit on how much is read at once, and how far: the readers of the standard
    library trust the sizes stated in an archive."""

    def __init__(self, file: IO[bytes], at_once: int, furthest: int) -> None:
        self._file, self._at_once, self._furthest = file, at_once, furthest

        self.last = b""

    def read(self, size: int = -1) -> bytes:
        most = self._at_once + 1
        self.last = self._file.read(most if size < 0 else min(size, most))
        if len(self.last) == most:
            raise ValueError(f"a part of it that is read at once has over {self._at_once:,} bytes")
        self._check(self._file.tell())
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._file.seek(offset, whence)

    def _check(self, place: int) -> None:
        if not 0 <= place <= self._furthest:
            raise ValueError(f"it unpacks to more than {self._furthest:,} bytes")

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    begin = file.read(BLOCK)
    file.seek(0)
    if begin.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if begin.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if begin.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        # A file states its memory at the start: refused before any is allocated.
        lzma.LZMADecompressor(memlimit=XZ_MEMORY).decompress(begin, max_length=1)
        return lzma.LZMAFile(file)
    return file


def _tar_members(file: IO[bytes], size: int) -> Iterator[Member]:
    # Headers and padding count as well: twice the limit of members.
    careful = _Careful(_decompressed(file), BLOCK, 2 * max(SMALL, GROWTH * size))
    with tarfile.open(fileobj=careful, mode="r:") as tar:
        before = -1
        while (member := tar.next()) is not None:
            if member.size < 0 or member.offset <= before:
                raise ValueError(f"{member.name[:60]!r} has an impossible size")
            before = member.offset
            tar.members = []  # type: ignore[attr-defined]  # it would grow with the archive
            yield _tar_member(tar, member)
        # tarfile treats a damaged header as the end, and does not check checksums after the end.
        if len(careful.last) < tarfile.BLOCKSIZE or careful.last.strip(b"\0"):
            raise ValueError(f"it is damaged or cut short after {before:,} bytes")
        while careful.read(BLOCK):
            pass


def _tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Member:
    def read() -> IO[bytes]:
        content = tar.extractfile(member)
        if content is None:
            raise ValueError(f"{member.name[:60]!r} cannot be read")
        return content

    kinds: dict[bytes, Literal["folder", "link", "hard link"]] = {
        tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "hard link"
    }  # fmt: skip
    if member.type in kinds:
        return Member(member.name, kinds[member.type], 0, read, lambda: member.linkname)
    if not member.isreg() or member.issparse():  # a sparse file may expand to any size
        return Member(member.name, "device", 0, read)
    return Member(member.name, "file", member.size, read)


def _zip_members(file: IO[bytes], size: int) -> Iterator[Member]:
    with zipfile.ZipFile(_Careful(file, DIRECTORY, size)) as packed:
        members = packed.infolist()
        if sum(member.file_size for member in members) > max(SMALL, GROWTH * size):
            raise ValueError(f"it states more than {max(SMALL, GROWTH * size):,} bytes")
        for member in members:
            yield _zip_member(packed, member)


def _zip_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> Member:
    def read() -> IO[bytes]:
        return packed.open(member)

    def target() -> str:
        with packed.open(member) as content:
            return os.fsdecode(content.read(LONGEST_NAME + 1))

    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir():
        return Member(member.filename, "folder", 0, read)
    if kind == stat.S_IFLNK:
        return Member(member.filename, "link", 0, read, target)
    if kind not in (0, stat.S_IFREG):
        return Member(member.filename, "device", 0, read)
    return Member(member.filename, "file", member.file_size, read)
