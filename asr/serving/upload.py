"""The body of a request, read into memory within limits. Nothing is written to disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from asr.serving.engine import Busy
from asr.serving.errors import ApiError
from asr.serving.limits import Limits

MOST_FIELDS = 300
FIELD_BYTES = 1 << 16
CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
RETRY_S = 5.0
MOST_JSON = 4 << 20  # bytes: the words of a recording of four hours take three million

T = TypeVar("T", bound=BaseModel)


logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of malformed requests


class _InMemory(MultiPartParser):
    spool_max_size = 0  # no size at which a file would go to disk


class Form:
    """The fields of a form, and its files as bytes."""

    def __init__(self, fields: list[tuple[str, str]], files: dict[str, bytes]) -> None:
        self._fields, self.files = fields, files

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._fields}

    def one(self, name: str) -> str | None:
        """The value of a field; None if it is missing or empty. Raises ApiError for several."""
        values = [value for key, value in self._fields if key == name and value != ""]
        if len(values) > 1:
            raise ApiError(400, f"expected {name} once, got it {len(values)} times", name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """The values of a field that may be repeated, with or without brackets."""
        return [value for key, value in self._fields if key in (name, f"{name}[]")]


class UploadMemory:
    """The bytes of all uploads in memory, within limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0

    @asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[Form]:
        """The multipart form of a request, which is held to the end of the block.

        Raises ApiError for anything else, and for one that is too large or too slow, and Busy if
        others take all the memory.
        """
        own = _Counted(self)
        try:
            yield await _read_form(request, own)
        finally:
            self.size -= own.size

    async def json(self, request: Request, model: type[T]) -> T:
        """The JSON object of a request, of a few megabytes at most.

        Raises ApiError for anything else, and for one that does not fit the model, and Busy.
        """
        most = min(self.limits.upload_bytes, MOST_JSON)
        own = _Counted(self, replace(self.limits, upload_bytes=most))
        try:
            return await _read_json(request, own, model)
        finally:
            self.size -= own.size


class _Counted:
    """The bytes of one upload."""

    def __init__(self, held: UploadMemory, limits: Limits | None = None) -> None:
        self._held, self.limits = held, limits or held.limits
        self.size = 0

    def add(self, count: int) -> None:
        self.size += count
        self._held.size += count
        if self.size > self.limits.upload_bytes:
            raise _too_large(self.limits)
        if self._held.size > self.limits.held_bytes:
            raise Busy("fewer uploads", RETRY_S)


async def _read_form(request: Request, counted: _Counted) -> Form:
    limits = counted.limits
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise ApiError(415, "expected a form (multipart/form-data), got another or no content type")
    # Python's codecs include some that are slow, and some that give no text.
    if (charset := options.get(b"charset", b"utf-8").lower()) not in CHARSETS:
        raise ApiError(415, f"expected a form in UTF-8, got {charset.decode('latin-1')[:50]!r}")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.upload_bytes:
        raise _too_large(limits)
    parser = _InMemory(
        request.headers,
        _limited(request, counted),
        max_files=1,
        max_fields=MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, f"expected a form (multipart/form-data): {error.message}") from None
    fields, files = [], {}
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            files[name] = await value.read()
            await value.close()
        else:
            fields.append((name, value))
    return Form(fields, files)


async def _read_json(request: Request, counted: _Counted, model: type[T]) -> T:
    # Another content type could come from a form on the page of another web site.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError(415, "expected application/json, got another or no content type")
    content = b"".join([part async for part in _limited(request, counted)])
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))[:100] or "the request"
        raise ApiError(422, f"{where}: {problem['msg']}", where) from None


def _too_large(limits: Limits) -> ApiError:
    most = f"{limits.upload_bytes / (1 << 20):g} MB"
    return ApiError(413, f"expected at most {most}, got more: compress or split it", "file")


async def _limited(request: Request, counted: _Counted) -> AsyncGenerator[bytes, None]:
    """The body, unless it becomes too large, or comes too slowly."""
    begun, limits = time.monotonic(), counted.limits
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):
                part = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow() from None
        except ClientDisconnect:
            raise ApiError(400, "expected a whole request, got a part of it") from None
        counted.add(len(part))
        late = time.monotonic() - begun - limits.idle_s
        if counted.size < limits.slowest_bytes * late:
            raise _too_slow()
        yield part


def _too_slow() -> ApiError:
    message = "expected the whole request, got nothing or too little for too long"
    return ApiError(408, message, headers={"Connection": "close"})
