"""WebSocket connections with limits that uvicorn lacks: a client that does not read is not read
either, and its connection ends; a message has a bounded number of frames; and one that is not UTF-8
ends the connection without filling the log."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from asr.serving.limits import Limits

MOST_FRAMES = 1000
"""Of a message: each takes memory beyond its bytes."""


def limited_sockets(limits: Limits) -> type[WebSocketsSansIOProtocol]:
    """The class of WebSocket connections for uvicorn."""

    class Connection(WebSocketsSansIOProtocol):
        """A connection whose buffers stay small."""

        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.pause_reading()  # pings would be answered into the buffer

        def resume_writing(self) -> None:
            super().resume_writing()
            if not self.read_paused:
                self.transport.resume_reading()

        async def receive(self) -> Any:
            await self.writable.wait()
            return await super().receive()

        async def run_asgi(self) -> None:
            try:
                await super().run_asgi()
            finally:  # what the client does not read would keep the connection
                self.loop.call_later(limits.idle_s, self.transport.abort)

        def handle_cont(self, event: Frame) -> None:
            if len(self.frames) < MOST_FRAMES:
                super().handle_cont(event)
            elif self.conn.close_sent is None:
                self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many frames")
                self.handle_parser_exception()

        def send_receive_event_to_app(self) -> None:
            if self.curr_msg_data_type != "text" or _is_utf8(b"".join(self.frames)):
                super().send_receive_event_to_app()
            elif self.conn.close_sent is None:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA)
                self.handle_parser_exception()

    return Connection


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
