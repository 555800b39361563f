"""HTTP connections with limits that uvicorn lacks: on their number, and on the time for a head."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from asr.serving.errors import ApiError
from asr.serving.limits import Limits
from asr.serving.socket_connections import limited_sockets


class Connection(H11Protocol):
    """A connection that is closed when the client is too slow."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(ApiError(503, "expected fewer connections: try again later"))
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "expected a request in HTTP/1.1, got something else"))

    @property
    def _waits_for_client(self) -> bool:
        """Whether the client still has to send: the head of a request, or the rest of a request
        that has already been answered."""
        return self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE

    def _watch(self) -> None:
        """Run a timer while the client has to send."""
        if self.transport.is_closing() or not self._waits_for_client:
            self._stop_watching()
        elif self._timer is None and self.transport.get_protocol() is self:
            self._timer = self.loop.call_later(self.limits.idle_s, self._cut)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is not h11.IDLE:
            self.transport.close()
        elif self._waits_for_client:
            self._refuse(ApiError(408, "expected a request, got none for too long"))

    def _refuse(self, error: ApiError) -> None:
        content = json.dumps(error.body).encode()
        status = HTTPStatus(error.status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()


def limited(limits: Limits) -> type[Connection]:
    """The class of connections for uvicorn."""
    return type("LimitedConnection", (Connection,), {"limits": limits})


def uvicorn_options(limits: Limits) -> dict[str, Any]:
    """The settings of uvicorn."""
    return {
        "http": limited(limits),
        "log_config": None,
        "log_level": "error",  # a warning for each malformed request would fill the disk
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": max(1, round(limits.idle_s)),
        "timeout_graceful_shutdown": round(limits.stop_s),
        "backlog": 2 * limits.connections,
        "ws": limited_sockets(limits),
        "ws_max_size": 1 << 22,
        "ws_per_message_deflate": False,  # a few bytes could be many messages of that size
    }
