"""OpenAI's form of transcription: `POST /v1/audio/transcriptions` and `GET /v1/models`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from asr.serving.engine import Engine, Options
from asr.serving.errors import ApiError
from asr.serving.upload import read_form

router = APIRouter()


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


@router.post("/v1/audio/transcriptions")
async def transcriptions(request: Request) -> Response:
    engine = _engine(request)
    form = await read_form(request, engine.limits)
    name = form.one("model") or next(iter(engine.models))
    if "file" not in form.files:
        raise ApiError(400, "expected a recording in the field file, got none", "file")
    transcript = await engine.transcribe(name, form.files["file"], Options(words=False))
    if form.one("response_format") == "text":
        return PlainTextResponse(transcript.text + "\n")
    return JSONResponse({"text": transcript.text})


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": "asr"}
        for name in _engine(request).models
    ]
    return {"object": "list", "data": rows}


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
