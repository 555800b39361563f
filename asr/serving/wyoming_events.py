"""Events of the Wyoming protocol, read and written with limits.

An event is a line of JSON: its type, perhaps its data, and the sizes of what follows, which is more
data as JSON and a payload. See https://github.com/OHF-Voice/wyoming. The package of that name reads
any size that a client states; here a client cannot make memory grow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asr.serving.errors import ApiError

MOST_HEAD = 1 << 16  # bytes of the line, and of the data after it
MOST_PAYLOAD = 1 << 20


@dataclass(frozen=True)
class Event:
    """A message of either side."""

    kind: str
    data: Mapping[str, Any]
    payload: bytes = b""

    @property
    def encoded(self) -> bytes:
        head = {"type": self.kind, "data": dict(self.data)}
        return json.dumps(head).encode() + b"\n"


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event; None at the end. The reader has a limit of `MOST_HEAD`.

    Raises ApiError for anything else.
    """
    try:
        line = await reader.readuntil(b"\n")
        head = _object(line)
        data = head.get("data") or {}
        data_size = _size(head, "data_length", MOST_HEAD)
        payload_size = _size(head, "payload_length", MOST_PAYLOAD)
        if data_size:
            data = {**_object(data), **_object(await reader.readexactly(data_size))}
        payload = await reader.readexactly(payload_size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ApiError(400, "expected a whole event, got a part of one") from None
        return None
    except asyncio.LimitOverrunError:
        raise ApiError(
            400, f"expected a line of at most {MOST_HEAD} bytes, got a longer one"
        ) from None
    kind = head.get("type")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise ApiError(400, "expected an event with its type and data, got something else")
    return Event(kind, data, payload)


def _object(text: bytes | Mapping[str, Any]) -> dict[str, Any]:
    try:
        values = json.loads(text) if isinstance(text, bytes) else text
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ApiError(400, "expected a JSON object, got something else")
    return values


def _size(head: Mapping[str, Any], name: str, most: int) -> int:
    size = head.get(name)
    if size is None:
        return 0
    if not isinstance(size, int) or not 0 <= size <= most:
        raise ApiError(400, f"expected {name} of 0 to {most}, got {str(size)[:20]}")
    return size
