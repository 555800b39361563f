"""Folders for sherpa-onnx, run by sherpa-onnx: the texts of torch.

Covers `asr/export/sherpa_graphs.py`, `asr/export/sherpa_readme.py`.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from asr.audio.load import load_audio, write_wav
from asr.dataset.manifest import read_manifest
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import save_decoder
from asr.decoding.greedy import greedy_decode
from asr.errors import AsrError, ConfigError
from asr.export import sherpa
from asr.export.onnx_folder import export_onnx
from asr.export.sherpa import export_sherpa, verify
from asr.export.sherpa_files import KALDI, NEMO, SAMPLES, STREAM, Slot, slot_options
from asr.export.streaming import chunks_of, tail_seconds
from asr.features.extractor import FeatureConfig
from asr.inference.streaming import Stream, fix_chunk, latency
from asr.inference.transcribe import trained_model
from asr.lm.estimate import estimate
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.padded import pad
from tests.export.test_network import bundle
from tests.export.test_streaming import noise, streaming_bundle
from tests.tones import RATE, run_quietly, speak, tone_recipe, trained_tones

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


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a second where the test itself runs the folder."""
    monkeypatch.setattr(sherpa, "verify", lambda *_: None)


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


@pytest.mark.parametrize("cmvn", ["utterance", "level"])
def test_times_are_right_where_frames_are_not_of_20_ms(
    tmp_path: Path, unverified: None, cmvn: str
) -> None:
    features = FeatureConfig.model_validate({"bands": 12, "cmvn": cmvn})
    source = bundle(features, strides=(3,), channels=(4,), hidden=8, layers=1)
    wave = np.random.default_rng(3).normal(size=2 * source.sample_rate).astype(np.float32) * 0.1
    source.model.features.observe(pad([torch.from_numpy(wave)]))
    save_bundle(tmp_path / "model", source)
    export_sherpa(tmp_path / "model", tmp_path / "out")
    (found,) = recognize(from_samples(tmp_path / "out"), [wave], source.sample_rate)
    ((text, starts),) = in_torch(source, [wave])
    assert found.text.split() == text.split()
    apart = np.array(found.timestamps) - 0.03 * np.array(starts)
    assert len(starts) > 3
    assert apart.min() >= -1e-6
    assert apart.max() < 0.02


@pytest.mark.parametrize(
    ("features", "slot"),
    [
        ({"kind": "kaldi"}, KALDI),
        ({"kind": "kaldi", "cmvn": "utterance"}, KALDI),
        ({"kind": "kaldi", "cmvn": "level"}, KALDI),
        ({"kind": "nemo", "cmvn": "utterance"}, NEMO),
        ({"kind": "nemo", "cmvn": "utterance", "sample_rate": 8000, "bands": 40}, NEMO),
    ],
    ids=str,
)
def test_features_of_devices_give_the_texts_of_torch(
    tmp_path: Path, unverified: None, features: dict[str, Any], slot: Slot
) -> None:
    source = streaming_bundle(features, strides=(3,), channels=(4,))
    rate = source.sample_rate
    save_bundle(tmp_path / "model", source)
    result = export_sherpa(tmp_path / "model", tmp_path / "out")
    assert result.recognizer == f"{slot.recognizer}.{slot.factory}"
    recognizer = made(tmp_path / "out", source, slot)
    waves = [noise(seconds, rate).numpy() for seconds in (0.5, 1.33, 2.0)]
    expected = in_torch(source, waves)
    found = recognize(recognizer, waves, rate)
    for one, (text, starts) in zip(found, expected, strict=True):
        assert one.text.split() == text.split()
        assert one.timestamps == pytest.approx([0.03 * t for t in starts], abs=1e-4)
    assert len(expected[2][1]) > 3


def made(folder: Path, source: Bundle, slot: Slot) -> Any:
    factory = getattr(getattr(sherpa_onnx, slot.recognizer), slot.factory)
    paths = {"model": str(folder / "model.onnx"), "tokens": str(folder / "tokens.txt")}
    return factory(**paths, num_threads=1, **slot_options(source, slot))


@pytest.mark.parametrize("settings", [{"chunk": 6, "right_context": 3}, {"bidirectional": False}])
def test_streams_give_the_texts_of_torch(
    tmp_path: Path, unverified: None, settings: dict[str, Any]
) -> None:
    source = streaming_bundle(**{"strides": (3,), "channels": (4,)} | settings)
    save_bundle(tmp_path / "model", source)
    result = export_sherpa(tmp_path / "model", tmp_path / "out")
    assert result.recognizer == "OnlineRecognizer.from_nemo_ctc"
    recognizer = made(tmp_path / "out", source, STREAM)
    silence = np.zeros(round(tail_seconds(source.model) * 16000), np.float32)
    waves = [np.concatenate([noise(seconds).numpy(), silence]) for seconds in (0.5, 1.33, 2.0)]
    streams = [recognizer.create_stream() for _ in waves]
    for start in range(0, max(map(len, waves)), 1600):
        for stream, wave in zip(streams, waves, strict=True):
            stream.accept_waveform(16000, wave[start : start + 1600])
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
    for stream, wave in zip(streams, waves, strict=True):
        pushed = Stream(source.model)
        scores = torch.cat([pushed.push(torch.from_numpy(wave)), pushed.finish()])
        heard = recognizer.get_result_all(stream)
        text = source.tokens.decode(greedy_decode(pad([scores]))[0])
        # The last window may not be whole.
        assert text.replace(" ", "").startswith(heard.text.replace(" ", ""))
        assert len(heard.tokens) > 3


def test_a_model_trained_to_stream_gives_the_texts_of_torch(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, unverified: None
) -> None:
    corpus, _ = trained_tones(tmp_path_factory.getbasetemp())
    plain = tone_recipe(corpus, tmp_path / "run", epochs=8, learning_rate=0.02)
    features = FeatureConfig(sample_rate=RATE, bands=16, kind="nemo", cmvn="global")
    network = plain.model.model_copy(update={"chunk": 8, "right_context": 4})
    model, _ = run_quietly(plain.model_copy(update={"features": features, "model": network}))
    source = load_bundle(model)
    export_sherpa(model, tmp_path / "out")
    recognizer = made(tmp_path / "out", source, STREAM)
    silence = np.zeros(round(tail_seconds(source.model) * RATE), np.float32)
    utterances = list(read_manifest(corpus["test"]))
    right = 0
    for utterance in utterances:
        wave = np.concatenate([load_audio(utterance.audio, RATE), silence])
        pushed, stream = Stream(source.model), recognizer.create_stream()
        scores = torch.cat([pushed.push(torch.from_numpy(wave)), pushed.finish()])
        for start in range(0, len(wave), 800):
            stream.accept_waveform(RATE, wave[start : start + 800])
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
        text = recognizer.get_result(stream).strip()
        assert text == source.tokens.decode(greedy_decode(pad([scores]))[0])
        right += text == utterance.text
    assert right >= len(utterances) // 2


def test_a_delay_chooses_the_chunks_of_the_graph(tmp_path: Path, unverified: None) -> None:
    source = streaming_bundle(chunk=(3, 9), right_context=2)
    model = tmp_path / "model"
    save_bundle(model, source)
    delay = latency(source.model, 7)
    streams = export_sherpa(model, tmp_path / "streams", delay=delay)
    assert streams.other_delays is None
    assert streams.recognizer == "OnlineRecognizer.from_nemo_ctc"
    fix_chunk(source.model, 7)
    graph = onnx.load(str(tmp_path / "streams" / "model.onnx"))
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert int(facts["chunk_shift"]) == chunks_of(source.model).shift
    whole = export_sherpa(model, tmp_path / "whole")
    assert whole.recognizer == "OfflineRecognizer.from_nemo_ctc"
    assert whole.other_delays == (
        latency(streaming_bundle(chunk=3, right_context=2).model),
        latency(streaming_bundle(chunk=9, right_context=2).model),
    )
    with pytest.raises(ConfigError, match="expected a delay of at least"):
        export_sherpa(model, tmp_path / "short", delay=0.1)
    save_bundle(model, streaming_bundle(chunk=3))
    with pytest.raises(ConfigError, match=r"whose model\.chunk is a range"):
        export_sherpa(model, tmp_path / "fixed", delay=1.0)


def test_the_python_of_a_streaming_readme_runs(tmp_path: Path) -> None:
    source = streaming_bundle(chunk=6, right_context=3)
    save_bundle(tmp_path / "model", source)
    export_sherpa(tmp_path / "model", tmp_path / "out")
    write_wav(tmp_path / "out" / "speech.wav", noise(2.0).numpy(), 16000)
    ended = subprocess.run(
        [sys.executable, "-c", code(tmp_path / "out", "python")],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
    )
    lines = ended.stdout.splitlines()
    assert len(lines) > 5, ended.stderr
    assert all(after.startswith(before) for before, after in itertools.pairwise(lines))


@pytest.mark.parametrize("streams", [False, True])
def test_the_readme_uses_the_decoding_graph(tmp_path: Path, streams: bool) -> None:
    features = {} if streams else {"cmvn": "utterance"}
    source = streaming_bundle(features, **({"chunk": 6, "right_context": 3} if streams else {}))
    save_bundle(tmp_path / "model", source)
    words = [unit for unit in source.tokens.units[2:] if len(unit) == 1]
    config = DecoderConfig(kind="beam")
    text = " ".join("".join(words[i:] + words[:i]) for i in range(len(words)))
    save_decoder(tmp_path / "model", Decoder(source.tokens, config, estimate([text], 2)))
    out = tmp_path / "out"
    export_sherpa(tmp_path / "model", out, with_graph=True)
    write_wav(out / "speech.wav", noise(2.0).numpy(), 16000)
    making, using = code(out, "python").split("samples, rate", 1)
    graph = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]
    program = f"{making}\n{graph}\nsamples, rate{using}"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=out, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split()


@pytest.mark.slow
def test_the_shipped_model_gives_the_texts_of_torch(shared_data: Path, tmp_path: Path) -> None:
    export_sherpa(trained_model(), tmp_path / "an4")
    source = load_bundle(trained_model())
    files = sorted((shared_data / "an4" / "wav" / "an4test_clstk").rglob("*.sph"))
    waves = [load_audio(path, source.sample_rate) for path in files]
    found = recognize(from_samples(tmp_path / "an4"), waves, source.sample_rate)
    # sherpa-onnx subtracts the mean, and writes two spaces around a word without letters.
    expected = [text for text, _ in in_torch(source, [wave - wave.mean() for wave in waves])]
    assert len(files) == 130
    assert [" ".join(result.text.split()) for result in found] == expected


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
    monkeypatch.setattr(sherpa, "build_graph", lambda _, slot, exact: build(other, slot, exact))
    with pytest.raises(AsrError, match="please report"):
        export_sherpa(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_sherpa_refuses_is_an_error(
    speech: Path, tones: tuple[Bundle, Path, list[np.ndarray]]
) -> None:
    (speech / "tokens.txt").write_text("no blank 1 2 3\n")
    with pytest.raises(AsrError, match="expected sherpa-onnx to read"):
        verify(speech, tones[0], SAMPLES)


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    save_bundle(tmp_path / "model", bundle())
    with pytest.raises(AsrError, match="choose another name"):
        export_sherpa(tmp_path / "model", tmp_path / "out")


def test_a_folder_with_other_files_is_not_replaced(
    tones: tuple[Bundle, Path, list[np.ndarray]], tmp_path: Path
) -> None:
    out = shutil.copytree(tones[1], tmp_path / "out")
    (out / "thesis").write_text("mine")
    model = tmp_path / "model"
    save_bundle(model, tones[0])
    with pytest.raises(AsrError, match="with thesis in it, which would be lost"):
        export_sherpa(model, out)
    with pytest.raises(AsrError, match=r"with index\.html in it, which would be lost"):
        export_onnx(model, out)
    assert (out / "thesis").read_text() == "mine"
    (out / "thesis").unlink()
    export_sherpa(model, out)
