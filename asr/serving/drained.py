"""Middleware that reads a request to its end before it is refused.

A connection that is closed while the client sends is reset, and the client loses the answer.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOO_SLOW = 408  # the status of an answer to a client that does not send


class DrainBodyMiddleware:
    """Drops the rest of a body before an answer, for a limited time."""

    def __init__(self, app: ASGIApp, most_seconds: float) -> None:
        self._app, self._most = app, most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A client that waits for leave to send its body gets the answer instead.
        waits = any(name == b"expect" for name, _ in scope["headers"])
        complete = False

        async def noted() -> Message:
            nonlocal complete, waits
            message = await receive()
            waits = False
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drained(message: Message) -> None:
            begins = message["type"] == "http.response.start" and message["status"] != TOO_SLOW
            if begins and not complete and not waits:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._most):
                        while not complete:
                            await noted()
            await send(message)

        await self._app(scope, noted, drained)
