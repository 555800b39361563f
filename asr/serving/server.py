"""A running server: its socket, its signals, and its end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn

from asr.errors import AsrError, reason
from asr.io.terminal import IMPATIENT_S
from asr.serving.app import build_app
from asr.serving.config import ServeConfig
from asr.serving.connections import uvicorn_options
from asr.serving.engine import Engine


class Server(uvicorn.Server):
    """Stops gracefully at the first SIGINT or SIGTERM, and at once at a second SIGINT."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._asked = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if not self.should_exit:
            self.should_exit, self._asked = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked >= IMPATIENT_S:
            self.force_exit = True
            logging.getLogger("uvicorn.error").disabled = True  # it logs what is cut off


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 is any free one. Raises AsrError naming the option."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio sets this for other sockets only. Without it, each answer waits 40 ms for the
        # client to confirm its head. Connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:  # the latter: a host name that cannot be one
        raise AsrError(
            f"expected an address to listen at, got {host} port {port} ({reason(error)}): choose "
            f"another --host or {option}"
        ) from None


def address_of(listening: socket.socket) -> str:
    """The address of a server as a person types it.

    >>> with listen("127.0.0.1", 0) as listening:
    ...     address_of(listening).startswith("http://127.0.0.1:")
    True
    """
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def make_server(engine: Engine, config: ServeConfig, on_ready: Callable[[], None]) -> Server:
    """A server that calls `on_ready` when it answers; `run(sockets=[...])` runs it."""
    options = uvicorn_options(engine.limits)
    return Server(uvicorn.Config(build_app(engine, config), **options), on_ready)
