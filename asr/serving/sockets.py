"""WebSockets with limits: messages one at a time, a limit on silence, and one error at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from asr.serving.errors import ApiError, api_error
from asr.serving.limits import Limits

REFUSED, FAILED, BUSY = 1008, 1011, 1013
"""Codes of closing (RFC 6455, section 7.4.1): against the rules, a fault here, too much to do."""


class Socket:
    """A WebSocket that has been accepted."""

    def __init__(self, socket: WebSocket, limits: Limits) -> None:
        self._socket, self._limits = socket, limits

    async def receive(self, is_answering: Callable[[], bool] = lambda: False) -> str | bytes | None:
        """The next message; None if the client has gone.

        Raises ApiError if none comes in time, unless the client waits for an answer.
        """
        message = None
        while message is None:
            try:
                async with asyncio.timeout(self._limits.live_idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                if not is_answering():
                    most = self._limits.live_idle_s
                    raise ApiError(
                        408, f"expected a message at least every {most:g} s, got none"
                    ) from None
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        return message.get("bytes") if text is None else text

    async def send(self, values: Mapping[str, Any]) -> None:
        """Send an object as JSON. Raises WebSocketDisconnect if the client does not take it."""
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._socket.send_text(json.dumps(values))
        except TimeoutError:
            raise WebSocketDisconnect from None

    async def close(self, code: int = 1000) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._socket.close(code)
        except (TimeoutError, RuntimeError):  # closed already
            pass


async def converse(
    socket: WebSocket,
    limits: Limits,
    talk: Callable[[Socket], Awaitable[None]],
    describe: Callable[[ApiError], Mapping[str, Any]],
) -> None:
    """Accept a client, talk with it, and close. What goes wrong is sent as one error, in the words
    of the protocol, and ends the conversation."""
    # A browser that offers protocols wants one of them back. Those of OpenAI bring the token.
    offered = [p for p in socket.scope.get("subprotocols", ()) if not p.startswith("openai-")]
    await socket.accept(offered[0] if offered else None)
    own, code = Socket(socket, limits), 1000
    try:
        try:
            await talk(own)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            refusal = api_error(error)
            code = {429: BUSY, 500: FAILED}.get(refusal.status, REFUSED)
            await own.send(describe(refusal))
        await own.close(code)
    except WebSocketDisconnect:
        pass


def json_object(text: str) -> dict[str, Any]:
    """A message. Raises ApiError if it is no JSON object."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ApiError(400, "expected a JSON object, got something else", code="invalid_json")
    return values


def pcm16(content: bytes) -> np.ndarray:
    """16-bit samples, little-endian. Shape: [S], int16. Raises ApiError for half a sample."""
    if len(content) % 2:
        raise ApiError(
            400, f"expected 16-bit samples, got {len(content)} bytes", code="invalid_audio"
        )
    return np.frombuffer(content, "<i2").astype(np.int16)
