"""Clients of WebSockets that do not read, or break messages into crumbs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import websockets.sync.client as websockets
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from asr.serving.socket_connections import MOST_FRAMES
from tests.serving.live_server import LiveServer

TIMEOUT = 20.0  # seconds


@contextlib.contextmanager
def raw(live: LiveServer, path: str = "vosk") -> Iterator[tuple[socket.socket, ClientProtocol]]:
    """A connection after its handshake."""
    protocol = ClientProtocol(parse_uri(f"{live.address}/{path}"))
    with socket.create_connection(("127.0.0.1", live.running.port), TIMEOUT) as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        protocol.send_request(protocol.connect())
        connected.sendall(b"".join(protocol.data_to_send()))
        while protocol.handshake_exc is None and not protocol.events_received():
            protocol.receive_data(connected.recv(4096))
        yield connected, protocol


def flood(connected: socket.socket, message: bytes) -> int:
    """Bytes that the server takes until it cuts the client off."""
    sent, until = 0, time.monotonic() + TIMEOUT
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < until:
            sent += connected.send(message)
    assert time.monotonic() < until
    return sent


def test_a_client_that_does_not_read_is_not_read_and_cut_off(live: LiveServer) -> None:
    with live.limited(idle_s=0.1, live_idle_s=0.2), raw(live) as (connected, protocol):
        for _ in range(500):
            protocol.send_ping(b"x" * 125)
        assert flood(connected, b"".join(protocol.data_to_send())) < 32 << 20


def test_a_message_of_crumbs_is_cut_off(live: LiveServer) -> None:
    crumb = Frame(Opcode.CONT, b"xx", fin=False).serialize(mask=True)
    first = Frame(Opcode.BINARY, b"xx", fin=False).serialize(mask=True)
    with raw(live) as (connected, protocol):
        connected.sendall(first + (MOST_FRAMES - 1) * crumb)
        connected.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connected.recv(4096)
        connected.settimeout(TIMEOUT)
        connected.sendall(10 * crumb)
        protocol.receive_data(connected.recv(4096))
        assert protocol.close_rcvd is not None
        assert protocol.close_rcvd.code == 1009
        assert connected.recv(4096) == b""


def test_sockets_are_not_compressed(live: LiveServer) -> None:
    with websockets.connect(f"{live.address}/vosk") as connected:  # which offers compression
        assert connected.response is not None
        assert "Sec-WebSocket-Extensions" not in connected.response.headers


def test_a_text_that_is_no_utf8_ends_the_connection(
    live: LiveServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with raw(live) as (connected, protocol):
        connected.sendall(Frame(Opcode.TEXT, b"\xff").serialize(mask=True))
        protocol.receive_data(connected.recv(4096))
        assert protocol.close_rcvd is not None
        assert protocol.close_rcvd.code == 1007
    assert capfd.readouterr().err == ""
