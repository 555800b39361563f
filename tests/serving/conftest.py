"""A model of tones, exported, and a server of it for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.export.onnx_folder import export_onnx
from asr.inference.recognizer import Recognizer, load_recognizer
from asr.serving.engine import Engine
from asr.serving.limits import Limits
from tests.serving.live_server import LiveServer, live_server
from tests.serving.running import Running, running
from tests.tones import trained_tones

LIMITS = Limits(decoders=1, idle_s=1.0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of tones for onnxruntime."""
    _, model = trained_tones(tmp_path_factory.getbasetemp())
    out = tmp_path_factory.mktemp("served") / "tones"
    export_onnx(model, out)
    return out


@pytest.fixture(scope="session")
def recognizer(exported: Path) -> Recognizer:
    return load_recognizer(exported)


@pytest.fixture(scope="module")
def server(recognizer: Recognizer) -> Iterator[Running]:
    """A server of the model `tones`."""
    with running(Engine({"tones": recognizer}, LIMITS, "energy")) as started:
        yield started


@pytest.fixture(scope="package")
def live(recognizer: Recognizer) -> Iterator[LiveServer]:
    """A server of live sockets."""
    with live_server(recognizer) as started:
        yield started
