"""The requests of the page of reviews, and the recognition of what is reviewed.

A recording is asked for by its id in the manifest, which is looked up and never part of a path.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any

import numpy as np
import soundfile
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from asr.dataset.manifest import Utterance
from asr.dataset.shards import load_recording
from asr.errors import AsrError, AudioError
from asr.inference.time_formats import to_json
from asr.inference.transcript import Transcript
from asr.io.terminal import tell
from asr.serving.engine import Busy, Engine, Options
from asr.serving.errors import ApiError
from asr.serving.page import HEADERS
from asr.serving.review import ChangedError, Item, Review, Suggestion, TextError
from asr.serving.upload import UploadMemory

MOST_SECONDS = 600
"""Of a recording that is reviewed; it is loaded as a whole."""
SHOWN = 200  # recordings in the list
AT_ONCE = 4  # recordings in the queue of recognition: clients wait for no more of them
PATIENCE_S = 3.0  # that a person waits for the recognition of a recording
PLAYED_RATE = 16000  # Hz


class ReviewRecognizer:
    """Recognises the recordings of a review by the first model of an engine, few at a time."""

    def __init__(self, review: Review, engine: Engine) -> None:
        self.review = review
        self._engine = engine
        self._model = next(iter(engine.models))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._all: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to recognise all recordings, in the running event loop."""
        self._all = asyncio.create_task(self.recognize_all())

    async def close(self) -> None:
        """Stop recognising. Texts that were checked are on the disk already."""
        tasks = [task for task in (self._all, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def recognize(self, id: str, patience: float | None = None) -> Item | None:
        """The recording, after its recognition, or as it is when the patience has ended; None for
        an unknown id."""
        item = self.review.item(id)
        if item is None or item.suggestion is not None:
            return item
        task = self._running.get(id)
        if task is None:
            task = self._running[id] = asyncio.create_task(self._suggest(item.utterance))
            task.add_done_callback(lambda _: self._running.pop(id, None))
        await asyncio.wait([task], timeout=patience)
        return self.review.item(id)

    async def recognize_all(self) -> None:
        """Recognise every recording that nobody has decided about, in the order of the manifest."""
        ids = iter(self.review.ids)

        async def work() -> None:
            for id in ids:
                item = self.review.item(id)
                if item is not None and item.is_open:
                    await self.recognize(id)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def _suggest(self, utterance: Utterance) -> None:
        try:
            rate = self._engine.model(self._model).sample_rate
            samples = await asyncio.to_thread(load, utterance, rate)
            transcript = await self._transcribe(samples)
            suggestion = Suggestion(transcript.text, transcript.words, transcript.error or "")
        except (AsrError, OSError) as error:
            tell(f"{utterance.id}: {error}")  # with its path, which is for the server's owner
            suggestion = Suggestion(
                error="The recording cannot be read: the server's messages say why."
            )
        self.review.suggest(utterance.id, suggestion)

    async def _transcribe(self, samples: np.ndarray) -> Transcript:
        while True:  # clients come first
            try:
                return await self._engine.transcribe(self._model, samples, Options())
            except Busy as busy:
                await asyncio.sleep(busy.retry_after)


def load(utterance: Utterance, rate: int) -> np.ndarray:
    """The samples [S] of an utterance, float32.

    Raises AudioError for one that cannot be read or is too long.
    """
    last = utterance.start + MOST_SECONDS + 1
    end = last if utterance.end is None else min(utterance.end, last)
    samples = load_recording(
        utterance.audio, rate, utterance.start, end, utterance.packed, say=lambda _: None
    )
    if len(samples) > MOST_SECONDS * rate:
        raise AudioError(
            f"{utterance.audio}: expected at most {MOST_SECONDS / 60:g} minutes for a review, got "
            "more: cut it into shorter recordings"
        )
    return samples


class _Decision(BaseModel):
    id: str
    text: str | None
    """None leaves the recording out."""
    version: str


def review_router(recognizer: ReviewRecognizer) -> APIRouter:
    """The list of recordings, a recording, its sound, and its checked text."""
    router = APIRouter(prefix="/review", include_in_schema=False)
    review = recognizer.review
    name = hashlib.sha256(str(review.path.absolute()).encode("utf-8", "replace")).hexdigest()[:16]

    @router.get("/list")
    def listed() -> dict[str, Any]:
        rows = [_row(item) for item in review.items()[:SHOWN]]
        # The name tells the unsaved texts of several reviews apart in a browser.
        return {"review": name, "counts": review.counts(), "items": rows}

    @router.get("/item")
    async def item(id: str) -> dict[str, Any]:
        return _detailed(_known(await recognizer.recognize(id, PATIENCE_S)))

    @router.get("/audio")
    def audio(id: str) -> Response:
        utterance = _known(review.item(id)).utterance
        try:
            content = _flac(load(utterance, PLAYED_RATE))
        except AudioError as error:
            tell(f"{utterance.id}: {error}")
            raise ApiError(
                404,
                "expected a recording that can be read, got none: the server's messages say why",
            ) from None
        headers = HEADERS | {"Cache-Control": "no-store"}
        return Response(content, media_type="audio/flac", headers=headers)

    @router.put("/item")
    async def decide(request: Request) -> dict[str, Any]:
        held: UploadMemory = request.app.state.held
        decision = await held.json(request, _Decision)
        _known(review.item(decision.id))
        return _detailed(await run_in_threadpool(_decide, review, decision))

    return router


def _decide(review: Review, decision: _Decision) -> Item:
    try:
        if decision.text is None:
            return review.leave_out(decision.id, decision.version)
        return review.check(decision.id, decision.text, decision.version)
    except ChangedError as error:
        raise ApiError(409, str(error), "version", "changed") from None
    except TextError as error:
        raise ApiError(422, str(error), "text") from None
    except (AsrError, OSError) as error:
        tell(f"error: {decision.id}: {error}")  # with a path, which is for the server's owner
        raise ApiError(
            500, "expected to write the text, got an error: the server's messages say which"
        ) from None


def _known(item: Item | None) -> Item:
    if item is None:
        raise ApiError(404, "expected an id of the review, got another", "id")
    return item


def _row(item: Item) -> dict[str, Any]:
    return {
        "id": item.utterance.id,
        "text": item.text,
        "confidence": None if item.suggestion is None else item.suggestion.confidence,
        "error": item.suggestion is not None and bool(item.suggestion.error),
        "checked": item.checked is not None,
        "left_out": item.left_out,
    }


def _detailed(item: Item) -> dict[str, Any]:
    utterance, suggestion = item.utterance, item.suggestion
    origin = "left out" if item.left_out else "manifest" if utterance.text else "suggestion"
    return _row(item) | {
        "speaker": utterance.speaker,
        "seconds": utterance.duration or None,
        "origin": origin if item.checked is None else "checked",
        "version": item.version,
        "suggestion": suggestion
        and {
            "text": suggestion.text,
            "words": to_json(suggestion.words, units=False),
            "error": suggestion.error,
        },
    }


def _flac(samples: np.ndarray) -> bytes:
    """A lossless recording that every browser plays; too loud samples are made less loud."""
    file = io.BytesIO()
    samples = samples / max(1.0, float(np.abs(samples).max()))
    soundfile.write(file, samples, PLAYED_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()
