"""Archives from a server on this machine: going on after a break, and refusing what is unsafe."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from asr.errors import AsrError
from data import download as module
from data.download import download, unpack
from tests.processes import NOBODY, left_by

CONTENT = np.random.default_rng(0).bytes(50_000)


@dataclass
class Server:
    """A server of one file, and what it was asked. `sends` bounds the bytes of one answer."""

    ranges: bool = True
    sends: int = len(CONTENT)
    length: bool = True
    chunked: bool = False
    url: str = ""
    asked: list[str | None] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        if handler.path != "/file":
            handler.send_error(404)
            return
        start = 0
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            handler.send_response(200)
        body = CONTENT[start : start + self.sends]
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n" % len(CONTENT) + body)
            return
        if self.length:
            handler.send_header("Content-Length", str(len(CONTENT) - start))
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


# --- download ---


def test_a_file_arrives_whole_with_its_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(server.url, tmp_path / "a" / "file", lambda *counts: told.append(counts))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert download(server.url, tmp_path / "file").read_bytes() == b"mine"
    assert server.asked == []


def test_a_file_of_unknown_length_arrives(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.sends = ranges, 30_000
    message = refused(server.url, tmp_path / "file")
    assert f"expected {len(CONTENT)} bytes" in message
    assert "run again" in message
    server.sends = len(CONTENT)
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_broken_download_goes_on_where_no_length_is_told(server: Server, tmp_path: Path) -> None:
    server.length = False
    (tmp_path / "file.part").write_bytes(CONTENT[:30_000])
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["bytes=30000-"]


def test_a_download_that_breaks_again_and_again_ends(server: Server, tmp_path: Path) -> None:
    server.sends = 20_000
    for _ in range(2):
        refused(server.url, tmp_path / "file")
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=20000-", "bytes=40000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_stopped_before_its_last_rename_goes_on(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.ranges = ranges
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "file").read_bytes() == CONTENT


def test_a_chunked_answer_that_breaks_is_one_line(server: Server, tmp_path: Path) -> None:
    server.chunked, server.sends = True, 30_000
    assert "run again" in refused(server.url, tmp_path / "file")


def test_a_missing_file_and_an_absent_server_are_one_line(server: Server, tmp_path: Path) -> None:
    assert "404" in refused(server.url + "s", tmp_path / "file")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    assert "--source" in refused(f"http://127.0.0.1:{port}/file", tmp_path / "file")


# --- unpack ---


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
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


def test_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    packed = archive(tmp_path / "a.tar.gz", [(tarfile.TarInfo(str(target)), b"x")])
    folder = unpack(packed, tmp_path / "audio")
    assert not target.exists()
    assert [p.read_bytes() for p in folder.rglob("*") if p.is_file()] == [b"x"]


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
