"""The application: all routes of a server, its access rules and its errors."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from asr.serving import metrics, openai_api, page, realtime, vosk_api
from asr.serving.auth import Access
from asr.serving.config import ServeConfig
from asr.serving.drained import DrainBodyMiddleware
from asr.serving.engine import Engine
from asr.serving.errors import add_handlers
from asr.serving.live_session import LiveSessions
from asr.serving.metrics import Metrics, MetricsMiddleware
from asr.serving.review_api import ReviewRecognizer, review_router
from asr.serving.upload import UploadMemory
from asr.serving.wyoming_server import WyomingServer

OPEN_PATHS = frozenset({"/health", *page.static_files()})
"""Addresses that need no token."""


def build_app(engine: Engine, config: ServeConfig | None = None) -> FastAPI:
    """The application around an engine, which it starts and closes.

    Routes find what they share as `request.app.state.engine`, `.live`, `.held`, `.metrics` and
    `.started`.
    """
    config = config or ServeConfig()
    live, wyoming = LiveSessions(engine), WyomingServer(engine)
    reviewed = None if config.review is None else ReviewRecognizer(config.review, engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
            await live.warm_up()
            if config.wyoming is not None:
                await wyoming.start(config.wyoming)
            if reviewed is not None:
                reviewed.start()
            yield
        finally:
            if reviewed is not None:
                await reviewed.close()
            await wyoming.close()
            live.close()
            await engine.close()

    # Pages of documentation would load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.engine, app.state.live = engine, live
    add_handlers(app)
    app.state.held, app.state.metrics = UploadMemory(engine.limits), Metrics(engine, live)
    app.state.started = round(time.time())
    for api in (openai_api, realtime, vosk_api, metrics):
        app.include_router(api.router)
    app.include_router(page.router(with_review=reviewed is not None))
    if reviewed is not None:
        app.include_router(review_router(reviewed))
    app.add_middleware(Access, config=config, open_paths=OPEN_PATHS)
    if config.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(DrainBodyMiddleware, most_seconds=engine.limits.idle_s)
    app.add_middleware(
        MetricsMiddleware, metrics=app.state.metrics, most_seconds=engine.limits.request_s
    )
    return app
