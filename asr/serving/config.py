"""What the operator of a server has chosen, besides models and limits."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from asr.serving.review import Review


@dataclass(frozen=True)
class ServeConfig:
    """Access to a server, and its optional parts."""

    token: str | None = None
    """What clients must send as `Authorization: Bearer TOKEN`; None lets everyone in."""
    origins: tuple[str, ...] = ()
    """Other web sites whose pages may use the server, such as https://example.org."""
    hosts: frozenset[str] | None = None
    """The names by which clients may call the server; None is any."""
    wyoming: socket.socket | None = None
    """Listens for clients of Wyoming."""
    review: Review | None = None
    """Recordings whose texts are checked on the page."""
