"""Published archives: resumable download, and unpacking that cannot leave its folder."""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from asr.errors import AsrError
from asr.files import atomic_path, remove_leftovers
from data.corpus import Progress

BLOCK = 1 << 20
RANGE_NOT_SATISFIABLE = 416
# RuntimeError: a zip that is encrypted, or packed in a way that zipfile does not know.
_UNSOUND = (
    tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error, RuntimeError,
)  # fmt: skip


def download(
    url: str,
    path: Path,
    progress: Progress | None = None,
    md5: str | None = None,
) -> Path:
    """Fetch `url` into `path`, going on from what an earlier try left in `path`.part.

    `progress` is told bytes done and in all (0 when unknown); `md5` is what the publisher says of
    the file, against damage, not against malice. Raises AsrError naming the URL.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            if response.status != 206:
                done = 0  # the server sends the whole file again
            length = int(response.headers.get("Content-Length") or 0)
            total = done + length if length else 0
            with part.open("ab" if done else "wb") as file:
                while block := response.read(BLOCK):
                    file.write(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        if done and getattr(error, "code", None) == RANGE_NOT_SATISFIABLE:
            # Nothing is missing: an earlier try was stopped just before the rename.
            return _checked(part, path, url, md5)
        raise AsrError(
            f"expected to download {url}, got {error}: run again to go on, or give a local copy "
            "with --source"
        ) from None
    if total and done != total:
        raise AsrError(f"expected {total} bytes of {url}, got {done}: run again to go on")
    return _checked(part, path, url, md5)


def _checked(part: Path, path: Path, url: str, md5: str | None) -> Path:
    """Give a file that is whole its name; one that is damaged would break every later try."""
    if md5 is not None:
        with part.open("rb") as file:
            got = hashlib.file_digest(file, "md5").hexdigest()
        if got != md5:
            part.unlink()
            raise AsrError(
                f"expected {url} with the md5 {md5}, got {got}: run again to fetch it anew"
            )
    part.replace(path)
    return path


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> Path:
    """Unpack a tar archive, or a zip one of that suffix, into `folder`, whole or not at all.

    `progress` is told bytes of the archive done and in all. Members that would land outside, links
    out of it and devices are refused (tarfile's `data` filter; zipfile makes no links). Raises
    AsrError naming the archive.
    """
    if folder.is_dir():
        return folder
    remove_leftovers(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        try:
            if archive.suffix == ".zip":
                _unpack_zip(archive, temporary, progress)
            else:
                _unpack_tar(archive, temporary, progress)
        except _UNSOUND as error:
            raise AsrError(
                f"expected a sound archive, got {archive}: {' '.join(str(error).split())}; "
                "delete it and run again"
            ) from None
    return folder


def _unpack_tar(archive: Path, folder: Path, progress: Progress | None) -> None:
    size = archive.stat().st_size

    def told(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for member in tar:
            yield member
            if progress:
                progress(file.tell(), size)

    with archive.open("rb") as file, tarfile.open(fileobj=file) as tar:
        tar.extractall(folder, members=told(tar), filter="data")


def _unpack_zip(archive: Path, folder: Path, progress: Progress | None) -> None:
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:  # zipfile would put it elsewhere
                raise ValueError(f"{name[:60]!r} would land outside")
        done, total = 0, sum(member.compress_size for member in packed.infolist())
        for member in packed.infolist():
            packed.extract(member, folder)
            done += member.compress_size
            if progress:
                progress(done, total)
