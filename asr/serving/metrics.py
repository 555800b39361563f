"""What a server does, for Prometheus: `GET /metrics`; and `GET /health`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.serving.engine import Engine
from asr.serving.errors import ApiError
from asr.serving.live_session import LiveSessions

router = APIRouter()

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """The numbers of one server."""

    def __init__(self, engine: Engine, live: LiveSessions) -> None:
        self.registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("asr_requests", "Requests.", labels, registry=self.registry)
        self.seconds = Histogram(
            "asr_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Work(engine, live))


class _Work(Collector):
    """The numbers of an engine."""

    def __init__(self, engine: Engine, live: LiveSessions) -> None:
        self._engine, self._live = engine, live

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        queue = "Requests that are recognised or wait for it."
        yield GaugeMetricFamily("asr_queue_requests", queue, engine.waiting)
        queue = "Seconds of decoded audio that wait for recognition."
        yield GaugeMetricFamily("asr_queue_audio_seconds", queue, engine.waiting_seconds)
        live = "Clients that are recognised live."
        yield GaugeMetricFamily("asr_live_sessions", live, self._live.count)
        audio = "Seconds of audio that have been recognised."
        yield CounterMetricFamily("asr_audio_seconds", audio, engine.recognised_seconds)
        work = "Seconds in which the engine recognised."
        yield CounterMetricFamily("asr_recognition_seconds", work, engine.busy_seconds)
        yield CounterMetricFamily("asr_batches", "Batches recognised.", engine.batches)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The numbers in Prometheus's text format."""
    registry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@router.api_route("/health", methods=["GET", "HEAD"])
async def health(request: Request) -> JSONResponse:
    """Whether the server recognises."""
    alive = request.app.state.engine.is_alive
    return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)


class MetricsMiddleware:
    """Middleware that counts requests, and ends those that take too long."""

    def __init__(self, app: ASGIApp, metrics: Metrics, most_seconds: float) -> None:
        self._app, self._metrics, self._most = app, metrics, most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            async with asyncio.timeout(self._most) as deadline:
                await self._app(scope, receive, noted)
        except TimeoutError:
            if status or not deadline.expired():
                raise  # uvicorn closes the connection
            error = ApiError(
                503,
                f"expected a request that is answered within {self._most:g} s, got a longer one: "
                "split the recording",
            )
            await error.response()(scope, receive, noted)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not status:
                error = ApiError(503, "the server is stopping: send the request again later")
                await error.response()(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, status or 500).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - begun)
