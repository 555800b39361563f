"""A server in a thread, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.server import listen, make_server


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    engine: Engine
    port: int
    app: Any
    """The application."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(engine: Engine, config: ServeConfig | None = None) -> Iterator[Running]:
    """Serve until the end of the block, then stop gracefully."""
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = make_server(engine, config or ServeConfig(), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert ready.wait(60)
            yield Running(engine, port, server.config.app)
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()
