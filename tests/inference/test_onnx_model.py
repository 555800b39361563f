"""Exported models recognise as those of torch do, and without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import asr.inference.live
from asr.audio.load import load_audio
from asr.audio.vad import SpeechDetector, speech_detector
from asr.dataset.manifest import read_manifest
from asr.errors import CheckpointError, ConfigError
from asr.export.onnx_folder import export_onnx
from asr.inference.onnx_model import OnnxModel
from asr.inference.recognizer import Recognizer, load_recognizer
from tests.commands import Command
from tests.tones import RATE, trained_tones


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Path]]:
    """A model, its export, and recordings."""
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    out = tmp_path_factory.mktemp("onnx") / "model"
    export_onnx(model, out)
    return model, out, [u.audio for u in read_manifest(manifests["test"])[:8]]


def test_texts_words_and_times_are_those_of_torch(paths: tuple[Path, Path, list[Path]]) -> None:
    model, out, audio = paths
    expected = [load_recognizer(model).transcribe(path) for path in audio]
    recognizer = load_recognizer(out)
    assert isinstance(recognizer.bundle, OnnxModel)
    for ours, theirs in zip(recognizer.transcribe(audio), expected, strict=True):
        assert ours.text == theirs.text
        assert [(w.text, w.start, w.end) for w in ours.words] == [
            (w.text, w.start, w.end) for w in theirs.words
        ]
        for a, b in zip(ours.words, theirs.words, strict=True):
            assert a.confidence == pytest.approx(b.confidence, abs=1e-3)


def test_live_texts_are_those_of_torch(
    paths: tuple[Path, Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def detector(rate: int) -> SpeechDetector:
        return speech_detector(rate, "energy")  # tones are no speech to silero's

    monkeypatch.setattr(asr.inference.live, "speech_detector", detector)
    model, out, audio = paths
    quiet = np.zeros(RATE, np.float32)
    samples = np.concatenate([p for path in audio for p in (load_audio(path, RATE), quiet)])
    texts = [
        [event.text for event in load_recognizer(folder).live([samples], RATE) if event.is_final]
        for folder in (model, out)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) >= len(audio) - 2
    with pytest.raises(ConfigError, match="a model that torch runs"):
        load_recognizer(out).stream()


def test_the_command_does_not_import_torch(
    paths: tuple[Path, Path, list[Path]], run: Command
) -> None:
    model, out, audio = paths
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['asr', *sys.argv[1:]]; "
        "from asr.cli.main import main; main()"
    )
    arguments = ["transcribe", str(audio[0]), "--model", str(out), "--format", "json"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == run("transcribe", audio[0], "--model", model, "--format", "json").out


def test_a_recognizer_may_have_another_decoder(paths: tuple[Path, Path, list[Path]]) -> None:
    _, out, audio = paths
    recognizer = load_recognizer(out)
    config = recognizer.decoder.config.model_copy(update={"kind": "beam"})
    beam = Recognizer(recognizer.bundle, replace(recognizer.decoder, config=config))
    assert beam.transcribe(audio[0]).text


@pytest.mark.parametrize("rate", ["", "0", "16k", "-16000", "²", "9" * 5000])
def test_a_rate_that_no_recording_has_is_refused(
    paths: tuple[Path, Path, list[Path]], tmp_path: Path, rate: str
) -> None:
    damaged = shutil.copytree(paths[1], tmp_path / "damaged")
    graph = onnx.load(damaged / "model.onnx")
    for entry in graph.metadata_props:
        if entry.key == "sample_rate":
            entry.value = rate
    onnx.save(graph, damaged / "model.onnx")
    with pytest.raises(CheckpointError, match="expected sample_rate 1000 to 1000000"):
        load_recognizer(damaged)
