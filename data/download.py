"""Published files: downloads over http and https that resume, and archives (`asr.io.unpacking`)."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asr.errors import AsrError, disk_trouble
from asr.io.files import atomic_path, digest, locked, read_json, write_json
from asr.io.printable import printable
from asr.io.unpacking import unpack
from data.corpus import Progress

__all__ = ["download", "unpack"]

BLOCK = 1 << 20
STALL_S = 60.0  # without a byte
ANSWER_S = 120.0  # until the headers of the last redirect arrive
SLOWEST = 1000  # bytes per second, over each interval of `STALL_S`
MOST = 1 << 36  # bytes of a file whose length the server does not state
RANGE_NOT_SATISFIABLE = 416
_AGAIN = "run again to resume, or give a local copy with --source"


@dataclass(frozen=True)
class _Version:
    """The version of a downloaded file; for a `.part`, stored beside it as `.part.json`."""

    url: str
    validator: str = ""
    """A strong ETag, or the time of the last change."""
    length: int = 0
    """Bytes of the whole file; 0 if unknown."""


def download(
    url: str,
    path: Path,
    progress: Progress | None = None,
    md5: str | None = None,
) -> Path:
    """Fetch `url` into `path`, resuming an earlier `path`.part if the published file is still the
    same.

    `progress` gets the bytes done and in total (0 if unknown); `md5` is the publisher's checksum,
    against damage, not against malice. Without one, the SHA-256 of the first download is written to
    `path`.sha256, and later downloads must have the same. Raises AsrError naming the URL, also if
    it leads to a scheme other than http or https, or from https to http, stalls, or does not fit
    the disk.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with locked(path.with_name(path.name + ".lock"), "download"):
        try:
            if not _fetch(url, part, progress, md5):
                _forget(part)  # another version, or an unknown one
                if not _fetch(url, part, progress, md5):
                    raise ValueError("an answer that starts within the file")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(url, path, error) from None
        _check_digest(part, path, url, md5)
        part.replace(path)
        _forget(part)
    return path


def _failed(url: str, path: Path, error: Exception) -> AsrError:
    if isinstance(error, OSError) and (trouble := disk_trouble(error)):
        return AsrError(f"expected room for {url} at {path}, got {trouble}")
    words = printable(" ".join(str(error).split()))[:300] or type(error).__name__
    if "unknown url type" in words or "is not allowed" in words:
        words = "an address that is neither http nor https"
    elif isinstance(error, urllib.error.HTTPError) and 300 <= error.code < 400:
        words = "redirects without end"
    return AsrError(f"expected to download {url}, got {words}: {_AGAIN}")


def _fetch(url: str, part: Path, progress: Progress | None, md5: str | None) -> bool:
    """Complete `part`; False if it is not the start of the server's present file."""
    done, known = _left(part, url)
    if known.length and done == known.length:
        return True  # an earlier run was stopped just before the rename
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and known.validator:
        headers["If-Range"] = known.validator
    try:
        response = _opened(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        if not done or error.code != RANGE_NOT_SATISFIABLE:
            raise
        stated = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return stated is not None and int(stated[1]) == done and known.length in (0, done)
    with response:
        first, version = _sent(response, url)
        if first is None or first > done:
            return False
        if first and not _is_same(version, known):
            return False
        if not version.length and md5 is None and not response.chunked:
            raise ValueError("an answer without a length, which may have been cut short")
        _check_room(part, version.length - first)
        write_json(_record(part), asdict(version))
        _copy(response, part, first, version.length, progress)
    return True


def _is_same(version: _Version, known: _Version) -> bool:
    same = version.validator == known.validator and known.length in (0, version.length)
    return same and bool(known.validator)


def _left(part: Path, url: str) -> tuple[int, _Version]:
    """Bytes of an earlier run, and their version."""
    try:
        record = _Version(**read_json(_record(part)))
    except (OSError, ValueError, TypeError):
        record = _Version(url)
    if part.is_symlink():
        part.unlink()
    done = part.stat().st_size if part.is_file() else 0
    return done, record if record.url == url else _Version(url)


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _sent(response: http.client.HTTPResponse, url: str) -> tuple[int | None, _Version]:
    """The first byte that is sent (None: not sent), and its version."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    if response.status != 206:
        return 0, _Version(url, validator, int(response.headers.get("Content-Length") or 0))
    stated = re.fullmatch(
        r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", "").strip()
    )
    if not stated or int(stated[2]) != int(stated[3]) - 1:
        return None, _Version(url)
    return int(stated[1]), _Version(url, validator, int(stated[3]))


def _check_room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise ValueError(f"{size:,} bytes for a disk with {free:,} free; make room")


def _copy(
    response: http.client.HTTPResponse,
    part: Path,
    first: int,
    length: int,
    progress: Progress | None,
) -> None:
    done = first
    since, then = time.monotonic(), first
    with part.open("r+b" if first else "wb") as file:
        file.seek(first)
        file.truncate()
        while block := response.read1(BLOCK):
            file.write(block)
            done += len(block)
            if done > (length or MOST):
                raise ValueError(f"more than the {length or MOST:,} bytes expected")
            if progress:
                progress(done, length)
            if (passed := time.monotonic() - since) > STALL_S:
                if done - then < SLOWEST * passed:
                    raise TimeoutError(f"{done - then} bytes in {passed:.0f} s")
                since, then = time.monotonic(), done
    if length and done != length:
        raise ValueError(f"{done} of {length} bytes")


# --- http ---


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except from https to http, where the file could be changed in transit."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        schemes = [urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl)]
        if schemes == ["https", "http"]:
            fp.close()
            raise ValueError(f"a redirect from https to http ({newurl})")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(request: urllib.request.Request) -> http.client.HTTPResponse:
    """The answer to a request, after redirects only to http and https, and not from https to http.

    The timeout of a socket restarts with each byte, so it does not limit the time for headers. They
    are read in a thread, which is abandoned after `ANSWER_S`.
    """
    opener = urllib.request.OpenerDirector()  # without the usual handlers of file: and ftp:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return _within(ANSWER_S, lambda: opener.open(request, timeout=STALL_S))


def _within(
    seconds: float, work: Callable[[], http.client.HTTPResponse]
) -> http.client.HTTPResponse:
    found: list[http.client.HTTPResponse] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # raised again below, in the waiting thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return found[0]


# --- digests ---


def _check_digest(part: Path, path: Path, url: str, md5: str | None) -> None:
    """Raise AsrError, and remove the file, unless it matches the published md5 or the SHA-256 of an
    earlier download (`path`.sha256, in the format of sha256sum)."""
    record = path.with_name(path.name + ".sha256")
    if md5 is not None:
        with part.open("rb") as file:
            kind, expected, got = "md5", md5, hashlib.file_digest(file, "md5").hexdigest()
        advice = "run again to fetch it again"
    else:
        kind, got = "sha256", digest(part)
        expected = record.read_text(encoding="utf-8").split()[0] if record.is_file() else got
        advice = f"run again to fetch it again, or delete {record} if a new one was published"
    if got != expected:
        _forget(part)
        raise AsrError(f"expected {url} with the {kind} {expected}, got {got}: {advice}")
    if md5 is None and not record.is_file():
        with atomic_path(record) as temporary:
            temporary.write_text(f"{got}  {path.name}\n", encoding="utf-8")
