"""Folders for sherpa-onnx, run by sherpa-onnx: the texts of torch.

Covers `asr/export/sherpa_graphs.py`, `asr/export/sherpa_readme.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.audio.load import load_audio, write_wav
from asr.dataset.manifest import read_manifest
from asr.decoding.greedy import greedy_decode
from asr.errors import AsrError, ConfigError
from asr.export import sherpa
from asr.export.sherpa import choose_slot, export_sherpa, verify
from asr.export.sherpa_files import SAMPLES
from asr.features.extractor import FeatureConfig
from asr.inference.transcribe import default_model
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.padded import pad
from tests.export.test_network import bundle
from tests.tones import RATE, speak, trained_tones

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs sherpa-onnx")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, list[np.ndarray]]:
    """A model, its folder for sherpa-onnx, and recordings."""
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("sherpa") / "tones"
    result = export_sherpa(model, folder)
    assert result.verified
    waves = [load_audio(u.audio, RATE) for u in read_manifest(manifests["test"])]
    return load_bundle(model), folder, waves


def in_torch(bundle: Bundle, waves: list[np.ndarray]) -> list[tuple[str, list[int]]]:
    """The greedy texts, and the frames at which the tokens of each begin."""
    model = bundle.model.eval()
    found: dict[int, tuple[str, list[int]]] = {}
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    for batch in (order[i : i + 10] for i in range(0, len(order), 10)):
        with torch.inference_mode():
            scores = model(model.features(pad([torch.from_numpy(waves[i]) for i in batch])))
        for i, row, ids in zip(batch, scores.unpad(), greedy_decode(scores), strict=True):
            best = row.argmax(dim=1).tolist()
            starts = [t for t, k in enumerate(best) if k and (t == 0 or best[t - 1] != k)]
            found[i] = (bundle.tokens.decode(ids), starts)
    return [found[i] for i in range(len(waves))]


def from_samples(folder: Path, graph: str = "model.onnx") -> Any:
    return sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(folder / graph), tokens=str(folder / "tokens.txt"), num_threads=1
    )


def recognize(recognizer: Any, waves: list[np.ndarray], rate: int) -> list[Any]:
    streams = []
    for wave in waves:
        streams.append(recognizer.create_stream())
        streams[-1].accept_waveform(rate, wave)
    recognizer.decode_streams(streams)
    return [stream.result for stream in streams]


@pytest.mark.parametrize("graph", ["model.onnx", "model.int8.onnx"])
def test_texts_and_times_are_those_of_torch(
    tones: tuple[Bundle, Path, list[np.ndarray]], graph: str
) -> None:
    source, folder, waves = tones
    expected = in_torch(source, waves)
    found = recognize(from_samples(folder, graph), waves, RATE)
    assert [result.text.strip() for result in found] == [text for text, _ in expected]
    assert len({text for text, _ in expected}) > 10
    for result, (_, starts) in zip(found, expected, strict=True):
        apart = np.array(result.timestamps) - 0.02 * np.array(starts)
        assert np.abs(apart).max() <= 0.02


def test_times_are_right_where_frames_are_not_of_20_ms(tmp_path: Path) -> None:
    source = bundle(strides=(3,), channels=(4,), hidden=8, layers=1)
    save_bundle(tmp_path / "model", source)
    export_sherpa(tmp_path / "model", tmp_path / "out")
    wave = np.random.default_rng(3).normal(size=2 * source.sample_rate).astype(np.float32) * 0.1
    (found,) = recognize(from_samples(tmp_path / "out"), [wave], source.sample_rate)
    ((text, starts),) = in_torch(source, [wave])
    assert found.text.split() == text.split()
    apart = np.array(found.timestamps) - 0.03 * np.array(starts)
    assert len(starts) > 3
    assert apart.min() >= -1e-6
    assert apart.max() < 0.02


@pytest.mark.slow
def test_the_shipped_model_gives_the_texts_of_torch(shared_data: Path, tmp_path: Path) -> None:
    export_sherpa(default_model(), tmp_path / "an4")
    source = load_bundle(default_model())
    files = sorted((shared_data / "an4" / "wav" / "an4test_clstk").rglob("*.sph"))
    waves = [load_audio(path, source.sample_rate) for path in files]
    found = recognize(from_samples(tmp_path / "an4"), waves, source.sample_rate)
    expected = [text for text, _ in in_torch(source, waves)]
    assert len(files) == 130
    assert [result.text.strip() for result in found] == expected


@pytest.fixture
def speech(tones: tuple[Bundle, Path, list[np.ndarray]], tmp_path: Path) -> Path:
    """A copy of the folder with a recording in it."""
    folder = shutil.copytree(tones[1], tmp_path / "copy")
    write_wav(folder / "speech.wav", speak("low high up"), RATE)
    return folder


def code(folder: Path, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_python_of_the_readme_runs(speech: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code(speech, "python")], cwd=speech, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["low", "high", "up"], ended.stderr


def test_the_command_of_the_readme_runs(speech: Path) -> None:
    programs = Path(sys.executable).parent
    if not (programs / "sherpa-onnx-offline").exists():
        pytest.skip("needs sherpa-onnx-bin")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["sh", "-c", code(speech, "bash")],
        cwd=speech,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert '"text": "low high up"' in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"cmvn": "global"}, "features.kind"),
        ({"cmvn": "none"}, "changes the level"),
        ({"sample_rate": 22050}, "16000 or 8000 Hz, got 22050"),
    ],
    ids=str,
)
def test_features_that_sherpa_cannot_give_are_refused(
    settings: dict[str, Any], advice: str
) -> None:
    source = bundle()
    features = FeatureConfig(**settings)
    model = AcousticModel(features, source.model.config, len(source.tokens))
    with pytest.raises(ConfigError, match=advice):
        choose_slot(Bundle(model, source.tokens, source.text))


def test_sherpa_really_changes_the_level(tones: tuple[Bundle, Path, list[np.ndarray]]) -> None:
    """The reason for refusing features that follow the level."""
    _, folder, waves = tones
    recognizer = from_samples(folder)
    loud, faint = (recognize(recognizer, [gain * waves[0]], RATE)[0] for gain in (1.0, 0.01))
    assert loud.text == faint.text
    assert loud.timestamps == faint.timestamps


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bundle(hidden=5)
    save_bundle(tmp_path / "model", bundle())
    build: Callable[..., Any] = sherpa.build_graph
    monkeypatch.setattr(sherpa, "build_graph", lambda _, slot: build(other, slot))
    with pytest.raises(AsrError, match="please report"):
        export_sherpa(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_sherpa_refuses_is_an_error(speech: Path) -> None:
    (speech / "tokens.txt").write_text("no blank 1 2 3\n")
    with pytest.raises(AsrError, match="expected sherpa-onnx to read"):
        verify(speech, SAMPLES)


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    save_bundle(tmp_path / "model", bundle())
    with pytest.raises(AsrError, match="choose another name"):
        export_sherpa(tmp_path / "model", tmp_path / "out")
