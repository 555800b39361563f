"""Errors in OpenAI's JSON form: what was expected and what came, and nothing about the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from asr.errors import AsrError, AudioError, ConfigError, LanguageModelError
from asr.serving.engine import Busy, TooLong, UnknownModel

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_MESSAGES = {
    404: "expected an address of this server, got another one",
    405: "expected another method for this address: see the header Allow",
    500: "the server has failed at this request",
}
_SOURCE = re.compile(r"^<[^<>]*>: ")  # "<812 bytes>: ", in messages about audio


class ApiError(Exception):
    """An answer other than the one that was asked for."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """In OpenAI's form."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def api_error(error: Exception) -> ApiError:
    """The response to an exception; for an unexpected one, it has no details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        wait = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), code="busy", headers=wait)
    if isinstance(error, UnknownModel):
        return ApiError(404, str(error), "model", "model_not_found")
    if isinstance(error, TooLong):
        return ApiError(413, str(error), "file", "audio_too_long")
    if isinstance(error, AudioError):
        return ApiError(400, about_audio(str(error)), "file", "invalid_audio")
    if isinstance(error, LanguageModelError | ConfigError):
        return ApiError(400, str(error), "keywords", "invalid_keywords")
    if isinstance(error, HTTPException):
        usual = HTTPStatus(error.status_code).phrase.lower()
        message = _MESSAGES.get(error.status_code, usual)
        return ApiError(error.status_code, message, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return ApiError(422, _first_problem(error))
    if isinstance(error, ClientDisconnect):
        return ApiError(499, "expected a client that waits for the answer, got one that left")
    return ApiError(500, _MESSAGES[500])


def about_audio(message: str) -> str:
    """A message about a recording, without the name that an upload does not have."""
    return _SOURCE.sub("", message)


def _first_problem(error: RequestValidationError) -> str:
    for problem in error.errors():
        where = ".".join(map(str, problem.get("loc", ())))[:100]
        return f"{where}: {problem.get('msg', 'expected another value')}"
    return "expected another request"


def add_handlers(app: FastAPI) -> None:
    """Answer all exceptions in this form."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return api_error(error).response()

    known = ApiError, AsrError, HTTPException, RequestValidationError, ClientDisconnect
    for kind in (*known, Exception):
        app.add_exception_handler(kind, handle)
