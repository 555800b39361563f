"""Files to text: in order, whatever the batch, and on past a bad one.

Covers `asr/inference/transcript.py`.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from asr.audio.load import load_audio, write_wav
from asr.dataset.manifest import Utterance, read_manifest
from asr.decoding.decoder import Decoder
from asr.decoding.rows import as_rows
from asr.errors import CheckpointError
from asr.inference.onnx_model import load_onnx
from asr.inference.recognizer import Recognizer, load_model
from asr.inference.transcribe import default_model, trained_model, transcribe
from asr.models.bundle import Bundle, load_bundle
from tests.tones import RATE, one_thread, speak, trained_tones

# By name, because `asr.inference.transcribe` is also the function that the package offers.
module = importlib.import_module("asr.inference.transcribe")
batches = importlib.import_module("asr.inference.batches")


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[Utterance]]:
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    return load_bundle(model), list(read_manifest(manifests["test"]))


def test_texts_come_in_the_order_of_the_files(tones: tuple[Bundle, list[Utterance]]) -> None:
    bundle, utterances = tones
    chosen = utterances[::-1]
    results = list(transcribe(bundle, [u.audio for u in chosen]))
    assert [r.path for r in results] == [u.audio for u in chosen]
    assert [r.error for r in results] == [None] * len(chosen)
    right = sum(r.text == u.text for r, u in zip(results, chosen, strict=True))
    assert right >= 0.8 * len(chosen)
    assert [r.seconds for r in results] == pytest.approx([u.duration for u in chosen], abs=1e-3)


def test_several_threads_that_read_change_nothing(
    tones: tuple[Bundle, list[Utterance]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose batches are large: order, texts, errors, open files."""
    bundle, utterances = tones
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    files = [u.audio for u in utterances]
    files[3:3], files[7:7] = [broken], [tmp_path / "missing.wav"]
    expected = list(transcribe(bundle, files, words=True))
    process, threads = psutil.Process(), []
    before = process.num_fds()
    monkeypatch.setattr(batches.Batches, "readers", 4)
    found = []
    for result in transcribe(bundle, files, words=True):
        threads.append(process.num_threads())
        found.append(result)
    assert found == expected
    assert sum(result.error is not None for result in found) == 2
    assert process.num_fds() == before
    assert max(threads) <= threads[-1] + 4


def test_one_thread_reads_for_a_cpu(tones: tuple[Bundle, list[Utterance]]) -> None:
    decoder = Decoder(tones[0].tokens)
    assert batches.Batches(tones[0], decoder, False, 60.0).readers == 1
    assert 1 <= batches.Batches(tones[0], decoder, False, 9000.0).readers <= batches.READERS


@pytest.mark.parametrize(("seconds", "ahead"), [(60.0, 32), (3000.0, 100)])
def test_recordings_are_read_while_a_batch_is_computed(
    tones: tuple[Bundle, list[Utterance]],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    ahead: int,
) -> None:
    bundle, utterances = tones
    audio = load_audio(utterances[0].audio, RATE)
    audio = np.tile(audio, 10)[:RATE]
    taken = 0
    seen: list[int] = []

    def sources() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(300):
            taken += 1
            yield audio

    score = Bundle.score

    # A recording is three events: a piece, what was read, and an end. The first batch has 60 of a
    # second.
    expected = 60 + ahead // 3

    def slow(self: Bundle, waves: list[np.ndarray]) -> object:
        deadline = time.monotonic() + 10
        while not seen and taken < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        if not seen:
            time.sleep(0.1)  # no more are read
        seen.append(taken)
        return score(self, waves)

    monkeypatch.setattr(batches, "_batch_seconds", lambda model: seconds)
    monkeypatch.setattr(Bundle, "score", slow)
    results = list(transcribe(bundle, sources(), sample_rate=RATE))
    assert len({r.text for r in results}) == 1
    assert expected <= seen[0] <= expected + 2


def test_many_recordings_leave_nothing_behind(
    tones: tuple[Bundle, list[Utterance]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, utterances = tones
    monkeypatch.setattr(batches, "POOL_BATCHES", 1)
    monkeypatch.setattr(batches, "BATCH_SECONDS", 10.0)
    paths = itertools.islice(itertools.cycle(u.audio for u in utterances), 120)
    process, held, files = psutil.Process(), [], []
    tracemalloc.start()
    try:
        for done, _ in enumerate(transcribe(bundle, paths), start=1):
            if done % 40 == 0:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
                files.append(process.num_fds())
    finally:
        tracemalloc.stop()
    # The samples of 40 recordings take 1.6 megabytes.
    assert max(held[1:]) < held[0] + 500_000
    assert max(files[1:]) <= files[0] + 1


@pytest.mark.parametrize("seconds", [0.01, 1.5])
def test_the_batch_does_not_change_a_text(
    tones: tuple[Bundle, list[Utterance]], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    bundle, utterances = tones
    paths = [u.audio for u in utterances]
    together = list(transcribe(bundle, paths))
    monkeypatch.setattr(batches, "BATCH_SECONDS", seconds)
    assert list(transcribe(bundle, paths)) == together


def test_bad_files_are_told_without_waiting_for_good_ones(
    tones: tuple[Bundle, list[Utterance]], tmp_path: Path
) -> None:
    absent = [tmp_path / f"absent{i}.wav" for i in range(300)]
    read: list[Path] = []

    def told(paths: list[Path]) -> Iterator[Path]:
        for path in paths:
            read.append(path)
            yield path

    results = transcribe(tones[0], told(absent))
    assert next(results).path == absent[0]
    assert len(read) < 50
    assert len(list(results)) == 299
    # After a good one too, whose batch is not full.
    mixed = [tones[1][0].audio, *absent]
    read.clear()
    results = transcribe(tones[0], told(mixed))
    assert next(results).text == tones[1][0].text
    assert len(read) < 200
    assert [row.path for row in results] == mixed[1:]


def test_a_bad_file_is_an_entry_of_its_own(
    tones: tuple[Bundle, list[Utterance]], tmp_path: Path
) -> None:
    bundle, utterances = tones
    garbage, absent = tmp_path / "garbage.wav", tmp_path / "absent.wav"
    garbage.write_bytes(b"RIFF and nothing else")
    good = [u.audio for u in utterances[:2]]
    alone = list(transcribe(bundle, good))
    mixed = list(transcribe(bundle, [garbage, good[0], absent, good[1]]))
    assert [mixed[1], mixed[3]] == alone
    for result, path in ((mixed[0], garbage), (mixed[2], absent)):
        assert result.path == path
        assert (result.text, result.seconds) == ("", 0.0)
        assert result.error is not None
        assert str(path) in result.error
        assert "\n" not in result.error


class Broken(io.BytesIO):
    """An open file on a drive that has gone."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def closed() -> io.BytesIO:
    file = io.BytesIO(b"RIFF")
    file.close()
    return file


@pytest.mark.parametrize(
    "bad",
    ["x" * 300, Broken(), closed(), np.zeros((1700, 1600), np.float32)],
    ids=["a long name", "a broken drive", "a closed file", "axes exchanged"],
)
def test_a_source_that_fails_does_not_end_the_others(
    tones: tuple[Bundle, list[Utterance]], bad: Any
) -> None:
    recognizer = Recognizer(tones[0], Decoder(tones[0].tokens))
    good = speak("low high")
    first, middle, last = recognizer.transcribe([good, bad, good], RATE)
    assert first.text == last.text != ""
    assert middle.error is not None
    assert "expected" in middle.error


def test_only_bad_files_and_no_files(tones: tuple[Bundle, list[Utterance]], tmp_path: Path) -> None:
    assert list(transcribe(tones[0], [])) == []
    results = list(transcribe(tones[0], [tmp_path / "a.wav", tmp_path / "b.wav"]))
    assert all(result.error for result in results)


def test_other_rates_and_channels_are_converted(
    tones: tuple[Bundle, list[Utterance]], tmp_path: Path
) -> None:
    bundle, utterances = tones
    original = utterances[0]
    samples = load_audio(original.audio, 3 * RATE)
    stereo = tmp_path / "stereo.flac"
    soundfile.write(stereo, np.stack([samples, samples], axis=1), 3 * RATE)
    results = list(transcribe(bundle, [original.audio, stereo]))
    assert results[0].text == results[1].text == original.text
    assert results[1].seconds == pytest.approx(results[0].seconds, abs=1e-3)


def test_a_single_sample_is_transcribed(
    tones: tuple[Bundle, list[Utterance]], tmp_path: Path
) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(1), RATE)
    (result,) = transcribe(tones[0], [tmp_path / "short.wav"])
    assert result.error is None


def test_results_come_while_later_files_wait(
    tones: tuple[Bundle, list[Utterance]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, utterances = tones
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.01)
    endless = itertools.cycle([u.audio for u in utterances])
    first = list(itertools.islice(transcribe(bundle, endless), 3))
    assert [r.path for r in first] == [u.audio for u in utterances[:3]]


# --- the model that comes with the project ---


def test_without_a_shipped_model_one_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INCLUDED_ONNX", tmp_path / "default_onnx")
    with pytest.raises(CheckpointError, match="--model"):
        default_model()


@pytest.mark.parametrize(("folder", "megabytes"), [(trained_model, 16), (default_model, 9)])
def test_the_shipped_model_is_small_and_hears_an4(
    folder: Callable[[], Path], megabytes: float, shared_data: Path
) -> None:
    assert sum(f.stat().st_size for f in folder().iterdir()) <= megabytes * 1e6
    files = sorted((shared_data / "an4" / "wav").rglob("cen2-fcaw-b.sph"))
    (result,) = transcribe(load_model(folder()), files)
    assert result.text.split() == ["c", "i", "n", "d", "y"]


def test_the_shipped_graph_is_that_of_the_trained_model(shared_data: Path) -> None:
    exported, trained = load_onnx(default_model()), load_bundle(trained_model())
    for name in ("config.json", "tokens.json", "decoder.json", "lstm/tokens.json"):
        assert (default_model() / name).read_bytes() == (trained_model() / name).read_bytes()
    wave = load_audio(next((shared_data / "an4" / "wav").rglob("an406-fcaw-b.sph")), 16000)
    (found,) = as_rows(exported.score([wave])[0])
    (expected,) = as_rows(trained.score([wave])[0])
    assert np.abs(np.exp(found) - np.exp(expected)).max() < 0.2  # 8-bit weights
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95
