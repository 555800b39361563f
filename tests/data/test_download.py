"""Files from a server on this machine: resuming after a break, and refusing what is unsafe."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from asr.errors import AsrError
from data import download as module
from data.download import download

CONTENT = np.random.default_rng(0).bytes(50_000)
CHANGED = np.random.default_rng(1).bytes(50_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """A server of one file, and what it was asked. `sends` bounds the bytes of one answer."""

    ranges: bool = True
    sends: int = len(CONTENT)
    length: bool = True
    chunked: bool = False
    content: bytes = CONTENT
    validator: tuple[str, str] | None = ("ETag", '"one"')
    heeds: bool = True
    """Whether it knows If-Range."""
    url: str = ""
    asked: list[str | None] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked, only = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.asked.append(asked)
        if handler.path != "/file":
            handler.send_error(404)
            return
        start = 0
        current = not (self.heeds and only) or (self.validator or ("", ""))[1] == only
        if asked and self.ranges and current:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(self.content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            whole = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            handler.send_response(200)
        if self.validator:
            handler.send_header(*self.validator)
        body = self.content[start : start + self.sends]
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n" % len(CONTENT) + body)
            if len(body) == len(CONTENT):
                handler.wfile.write(b"\r\n0\r\n\r\n")
            return
        if self.length:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}/file"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "BLOCK", 4096)


def refused(url: str, path: Path) -> str:
    with pytest.raises(AsrError) as error:
        download(url, path)
    message = str(error.value)
    assert "\n" not in message
    assert url in message
    assert not path.exists()
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_its_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(server.url, tmp_path / "a" / "file", lambda *counts: told.append(counts), MD5)
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert names(path.parent) == ["file"]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert download(server.url, tmp_path / "file").read_bytes() == b"mine"
    assert server.asked == []


def test_of_unknown_length_only_what_can_be_checked_is_taken(
    server: Server, tmp_path: Path
) -> None:
    server.length = False
    assert "without a length" in refused(server.url, tmp_path / "file")
    assert download(server.url, tmp_path / "file", None, MD5).read_bytes() == CONTENT
    server.chunked = True  # which tells its end
    assert download(server.url, tmp_path / "chunked").read_bytes() == CONTENT


# --- resuming ---


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "validator", [("ETag", '"one"'), ("Last-Modified", "Sat, 01 Aug 2026 10:00:00 GMT")]
)
def test_a_broken_download_resumes(
    server: Server, tmp_path: Path, ranges: bool, validator: tuple[str, str]
) -> None:
    server.ranges, server.sends, server.validator = ranges, 30_000, validator
    message = refused(server.url, tmp_path / "file")
    assert f"30000 of {len(CONTENT)} bytes" in message
    assert "run again" in message
    server.sends = len(CONTENT)
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-"]
    assert names(tmp_path) == ["file", "file.sha256"]


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("length", [50_000, 60_000, 40_000, 20_000])
def test_a_file_that_has_changed_is_fetched_anew(
    server: Server, tmp_path: Path, heeds: bool, length: int
) -> None:
    server.sends = 30_000
    refused(server.url, tmp_path / "file")
    server.content, server.sends = (CHANGED * 2)[:length], length
    server.validator, server.heeds = ("ETag", '"two"'), heeds
    assert download(server.url, tmp_path / "file").read_bytes() == server.content


@pytest.mark.parametrize("validator", [None, ("ETag", 'W/"weak"')])
def test_what_nobody_can_compare_is_fetched_anew(
    server: Server, tmp_path: Path, validator: tuple[str, str] | None
) -> None:
    server.sends, server.validator = 30_000, validator
    refused(server.url, tmp_path / "file")
    server.content, server.sends = CHANGED, len(CHANGED)
    assert download(server.url, tmp_path / "file").read_bytes() == CHANGED


def test_a_part_of_another_address_or_of_nobody_is_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CHANGED[:30_000])
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    server.sends = 30_000
    refused(server.url, tmp_path / "other")
    server.sends = len(CONTENT)
    record = tmp_path / "other.part.json"
    record.write_text(record.read_text().replace(server.url, "http://127.0.0.1:1/file"))
    (tmp_path / "other.part").write_bytes(CHANGED[:30_000])
    assert download(server.url, tmp_path / "other").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "stated", ["bytes 0-49999/50000", "", "bytes 10000-49999/50000", "bytes x"]
)
def test_a_part_that_begins_elsewhere_is_put_where_it_belongs(
    server: Server, tmp_path: Path, stated: str
) -> None:
    server.sends = 30_000
    refused(server.url, tmp_path / "file")
    server.sends, usual = len(CONTENT), server.answer
    first = int(stated.split("-")[0][6:]) if "-" in stated else 30_000

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if not handler.headers.get("Range"):
            usual(handler)
            return
        handler.send_response(206)
        for header in (("Content-Range", stated), ("ETag", '"one"')):
            handler.send_header(*header)
        handler.send_header("Content-Length", str(len(CONTENT) - first))
        handler.end_headers()
        handler.wfile.write(CONTENT[first:])

    server.answer = answer  # type: ignore[method-assign]
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT


def test_a_download_that_breaks_again_and_again_ends(server: Server, tmp_path: Path) -> None:
    server.sends = 20_000
    for _ in range(2):
        refused(server.url, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=20000-", "bytes=40000-"]


def test_a_download_stopped_before_its_last_rename_is_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "file", None, MD5).read_bytes() == CONTENT
    assert server.asked == ["bytes=50000-"]  # answered with 416 and the length
    (tmp_path / "more.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "more", None, MD5).read_bytes() == CONTENT


def test_a_chunked_answer_that_breaks_is_one_line(server: Server, tmp_path: Path) -> None:
    server.chunked, server.sends = True, 30_000
    assert "run again" in refused(server.url, tmp_path / "file")


# --- what is refused ---


def test_a_missing_file_and_an_absent_server_are_one_line(server: Server, tmp_path: Path) -> None:
    assert "404" in refused(server.url + "s", tmp_path / "file")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    assert "--source" in refused(f"http://127.0.0.1:{port}/file", tmp_path / "file")


def redirecting(target: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://127.0.0.1:1/x", "neither http nor https"),
        ("data:text/plain,x", "neither http nor https"),
        ("/file", "redirects without end"),
    ],
)
def test_redirects_stay_with_http_and_end(
    server: Server, tmp_path: Path, target: str, words: str
) -> None:
    server.answer = redirecting(target)  # type: ignore[assignment, method-assign]
    assert words in refused(server.url, tmp_path / "file")
    if ":" in target:
        assert words in refused(target, tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(["https", "http"], False), (["http", "https", "http"], False), (["http", "https"], True)],
)
def test_redirects_do_not_leave_https(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: list[str], allowed: bool
) -> None:
    # The server has no certificate: https goes to it without encryption.
    monkeypatch.setattr(
        urllib.request.HTTPSHandler,
        "https_open",
        lambda self, request: self.do_open(http.client.HTTPConnection, request),
    )
    urls = [server.url.replace("http:", f"{scheme}:") for scheme in path]
    real, hops = server.answer, iter(urls[1:])

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        target = next(hops, None)
        (redirecting(target) if target else real)(handler)

    server.answer = answer  # type: ignore[method-assign]
    if allowed:
        assert download(urls[0], tmp_path / "file").read_bytes() == CONTENT
    else:
        words = f"expected to download {urls[0]}, got a redirect from https to http ({urls[-1]}):"
        assert words in refused(urls[0], tmp_path / "file")
        assert server.asked == []


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9))
    assert "make room" in refused(server.url, tmp_path / "file")
    assert names(tmp_path) == []


def test_an_endless_answer_ends(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 20_000)
    server.length = False
    with pytest.raises(AsrError, match="more than the 20,000 bytes expected"):
        download(server.url, tmp_path / "file", None, MD5)


@pytest.mark.parametrize("what", ["silent", "dripping", "headers"])
def test_a_server_that_stalls_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    ended = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if what != "headers":
            handler.send_response(200)
            handler.send_header("Content-Length", "50000")
            handler.end_headers()
        try:
            while what != "silent" and not ended.is_set():
                handler.wfile.write(b"H")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return
        ended.wait(5)

    server.answer = answer  # type: ignore[method-assign]
    begun = time.monotonic()
    try:
        refused(server.url, tmp_path / "file")
    finally:
        ended.set()
    assert time.monotonic() - begun < 4.5  # and not the five seconds of the server


def test_two_processes_do_not_write_one_download(server: Server, tmp_path: Path) -> None:
    from asr.io.files import locked

    with (
        locked(tmp_path / "file.lock", "download"),
        pytest.raises(AsrError, match="other download"),
    ):
        download(server.url, tmp_path / "file")


# --- digests ---


def test_a_wrong_digest_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="with the md5 0000, got"):
        download(server.url, tmp_path / "file", None, "0000")
    assert names(tmp_path) == []


def test_without_a_published_digest_the_first_download_counts(
    server: Server, tmp_path: Path
) -> None:
    path = download(server.url, tmp_path / "file")
    record = tmp_path / "file.sha256"
    assert record.read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  file\n"
    path.unlink()
    assert download(server.url, path).read_bytes() == CONTENT
    path.unlink()
    server.content, server.validator = CHANGED, None
    assert str(record) in refused(server.url, path)
    record.unlink()
    assert download(server.url, path).read_bytes() == CHANGED
