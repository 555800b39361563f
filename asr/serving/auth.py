"""Who may use a server: those with the token, and no page of another web site."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from asr.serving.config import ServeConfig
from asr.serving.errors import ApiError

KEY_PROTOCOL = "openai-insecure-api-key."
"""Prefix of a token among the subprotocols of a WebSocket: browsers cannot send it otherwise."""

READS = ("GET", "HEAD")


def has_token(headers: Headers, config: ServeConfig, protocols: Iterable[str] = ()) -> bool:
    """Whether a request brings the token, in the header or, for a WebSocket, as a subprotocol."""
    if config.token is None:
        return True
    kind, _, given = headers.get("authorization", "").partition(" ")
    candidates = [given.strip()] if kind.lower() == "bearer" else []
    candidates += [p.removeprefix(KEY_PROTOCOL) for p in protocols if p.startswith(KEY_PROTOCOL)]
    wanted = config.token.encode()
    return any(hmac.compare_digest(c.encode(), wanted) for c in candidates)


def is_own_origin(headers: Headers, config: ServeConfig) -> bool:
    """Whether a request comes from no page, from this server's, or from an allowed one."""
    origin = headers.get("origin")
    if origin is None or origin in config.origins:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:  # no address
        return False


def is_known_host(headers: Headers, config: ServeConfig) -> bool:
    """Whether a request calls the server by one of its names. A page of another web site can make
    its own name mean this machine (DNS rebinding)."""
    if config.hosts is None:
        return True
    try:
        name = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:
        return False
    allowed = {urlsplit(origin).hostname for origin in config.origins}
    return name in config.hosts or name in allowed


class Access:
    """Middleware that refuses requests and sockets of others."""

    def __init__(self, app: ASGIApp, config: ServeConfig, open_paths: frozenset[str]) -> None:
        """`open_paths` need no token: they expose no data and have no effects."""
        self._app, self._config, self._open = app, config, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            error = self._refusal(scope)
            if error is not None:
                if scope["type"] == "websocket":
                    await receive()
                    await send({"type": "websocket.close", "code": 1008, "reason": error.message})
                else:
                    await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if not is_known_host(headers, self._config):
            return ApiError(403, "expected a name of this server in Host, got another one")
        reads = scope["type"] == "http" and scope["method"] in READS
        if not reads and not is_own_origin(headers, self._config):
            return ApiError(403, "expected a page of this server, got one of another web site")
        if scope["path"] in self._open and reads:
            return None
        if not has_token(headers, self._config, scope.get("subprotocols", ())):
            asked = {"WWW-Authenticate": "Bearer"}
            message = "expected the token of this server as Authorization: Bearer, got another one"
            return ApiError(401, message, code="invalid_api_key", headers=asked)
        return None
