"""OpenAI's form of transcription: `POST /v1/audio/transcriptions` and `GET /v1/models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from asr.inference.transcript import Segment, Transcript
from asr.serving.engine import Engine
from asr.serving.errors import about_audio, api_error
from asr.serving.openai_answers import MEDIA_TYPES, json_answer, log_probs, text_answer, usage
from asr.serving.openai_request import Wanted, read_request
from asr.serving.upload import UploadMemory
from asr.serving.while_connected import while_connected

router = APIRouter()


@router.post("/v1/audio/transcriptions")
async def transcriptions(request: Request) -> Response:
    """The text of an uploaded recording."""
    engine: Engine = request.app.state.engine
    held: UploadMemory = request.app.state.held
    async with AsyncExitStack() as kept:
        form = await kept.enter_async_context(held.form(request))
        wanted = read_request(form, engine)
        if wanted.stream:
            return await _streamed(request, engine, wanted, kept.pop_all())
        recognised = engine.transcribe(wanted.model, wanted.audio, wanted.options)
        transcript = await while_connected(request, recognised)
    if wanted.format in MEDIA_TYPES:
        # Subtitles of hours take seconds, for which live clients must not wait.
        text = await run_in_threadpool(text_answer, transcript, wanted.format)
        return Response(text, media_type=MEDIA_TYPES[wanted.format], headers=_warning(transcript))
    return JSONResponse(json_answer(transcript, wanted), headers=_warning(transcript))


def _warning(transcript: Transcript) -> dict[str, str]:
    """A header for audio that stops halfway."""
    if transcript.error is None:
        return {}
    text = about_audio(transcript.error)
    return {"X-Warning": text.encode("ascii", "replace").decode()}


async def _streamed(
    request: Request, engine: Engine, wanted: Wanted, kept: AsyncExitStack
) -> Response:
    """The answer as server-sent events: a delta for each segment as soon as it is recognised."""
    segments: asyncio.Queue[Segment | None] = asyncio.Queue()

    async def recognise() -> Transcript:
        try:
            return await engine.transcribe(
                wanted.model, wanted.audio, wanted.options, segments.put_nowait
            )
        finally:
            segments.put_nowait(None)
            await kept.aclose()

    task = asyncio.create_task(recognise())
    try:
        first = await while_connected(request, segments.get())
        if first is None:
            await task  # an error has a status of its own as long as nothing has been sent
    except BaseException:
        task.cancel()
        raise
    return StreamingResponse(
        _events(task, first, segments, wanted),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    task: asyncio.Task[Transcript],
    first: Segment | None,
    segments: asyncio.Queue[Segment | None],
    wanted: Wanted,
) -> AsyncIterator[str]:
    try:
        segment, gap = first, ""
        while segment is not None:
            if segment.text:
                delta = {"type": "transcript.text.delta", "delta": gap + segment.text}
                sure = {"logprobs": log_probs(segment.words)} if wanted.log_probs else {}
                yield _event(delta | sure)
                gap = " "
            segment = await segments.get()
        transcript = await task
    except Exception as error:
        yield _event(api_error(error).body)
        return
    finally:
        task.cancel()
    answer = json_answer(transcript, wanted)
    yield _event({"type": "transcript.text.done"} | answer | {"usage": usage(transcript)})


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n"


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The models by name."""
    names = request.app.state.engine.models
    return {"object": "list", "data": [_model(request, name) for name in names]}


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """A model by its name."""
    request.app.state.engine.model(name)
    return _model(request, name)


def _model(request: Request, name: str) -> dict[str, Any]:
    created = request.app.state.started
    return {"id": name, "object": "model", "created": created, "owned_by": "asr"}
