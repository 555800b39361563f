"""The pages for people: static files, and transcripts in the formats that the page offers.

Everything is read when the server starts, so that no request touches the file system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from asr.inference.formats import to_text
from asr.inference.time_formats import Word
from asr.inference.transcript import Segment, Transcript
from asr.serving.engine import Busy
from asr.serving.errors import ApiError
from asr.serving.upload import RETRY_S, UploadMemory

# The page runs its own scripts and speaks to its own server; all else is refused by the browser.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
# Pieces that the page of an evaluation has too, by their name here.
_SHARED = {
    "base.css": "style.css",
    "text.js": "text.js",
    "spectrogram.js": "spectrogram.js",
    "pictures.js": "pictures.js",
}
LATEST = 1e9  # seconds
MOST_CHARACTERS = 300_000  # four hours of speech have 200,000
MOST_WAITING = 8  # transcripts that wait in memory to be formatted
_TEXT_TYPE = "text/plain; charset=utf-8"


class _Word(BaseModel):
    word: str
    start: float = Field(ge=0, le=LATEST)
    end: float = Field(ge=0, le=LATEST)
    confidence: float | None = Field(default=None, ge=0, le=1)


class _Segment(BaseModel):
    start: float = Field(ge=0, le=LATEST)
    end: float = Field(ge=0, le=LATEST)
    text: str
    words: list[_Word] = Field(default=[], fail_fast=True)
    channel: int | None = Field(default=None, ge=1)

    def segment(self) -> Segment:
        words = tuple(Word(w.word, w.start, w.end, w.confidence) for w in self.words)
        return Segment(self.start, self.end, self.text, words, self.channel)


class _Transcript(BaseModel):
    """A transcript as the page has it."""

    seconds: float = Field(ge=0, le=LATEST)
    segments: list[_Segment] = Field(fail_fast=True)  # an error for each would fill the memory

    def transcript(self) -> Transcript:
        segments = tuple(segment.segment() for segment in self.segments)
        return Transcript(None, segments, self.seconds)

    def size(self) -> int:
        """The number of characters to be laid out as subtitles."""
        return sum(
            max(len(segment.text), sum(len(word.word) + 1 for word in segment.words))
            for segment in self.segments
        )


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of every static file, by its path on the server."""
    own, shared = resources.files("asr.serving"), resources.files("asr.evaluation")
    pages = {file.name: file.read_bytes() for file in (own / "page").iterdir() if file.is_file()}
    for name, source in _SHARED.items():
        pages[name] = (shared / "templates" / source).read_bytes()
    places = {"index.html": "/", "review.html": "/review"}
    return {
        places.get(name, f"/page/{name}"): (content, _TYPES[name.rpartition(".")[2]])
        for name, content in pages.items()
    }


def router(with_review: bool) -> APIRouter:
    """The static files, which need no token since they tell nothing about the server, and what they
    ask for besides recognition. Without a review, its page is missing."""
    router = APIRouter(include_in_schema=False)
    formatting = asyncio.Lock()  # a long transcript takes seconds of a core
    waiting: set[asyncio.Task[Any] | None] = set()
    for path, (content, kind) in static_files().items():
        if with_review or path != "/review":
            router.add_api_route(path, _answer(content, kind), methods=["GET", "HEAD"])

    @router.get("/page/settings")
    def settings() -> dict[str, bool]:
        return {"review": with_review}

    @router.post("/page/format")
    async def format(request: Request, to: Literal["txt", "srt", "vtt", "json"]) -> Response:
        """A transcript that the page has, as a file: the rules of subtitles are those of `asr
        transcribe`."""
        held: UploadMemory = request.app.state.held
        given = await held.json(request, _Transcript)
        if (size := given.size()) > MOST_CHARACTERS:
            raise ApiError(413, f"expected at most {MOST_CHARACTERS} characters, got {size}")
        if len(waiting) >= MOST_WAITING:
            raise Busy("fewer transcripts to format", RETRY_S)
        waiting.add(asyncio.current_task())
        try:
            async with formatting:
                text = await run_in_threadpool(to_text, given.transcript(), to, "recording")
        finally:
            waiting.discard(asyncio.current_task())
        return Response(text.encode("utf-8", "replace"), media_type=_TEXT_TYPE, headers=HEADERS)

    return router


def _answer(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return answer
