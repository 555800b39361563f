"""The front door: every kind of recording, one or many, and the text of the command line."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import asr
from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import save_decoder
from asr.lm.words import read_word_list
from tests.commands import Command
from tests.tones import RATE, one_thread

LEXICON = "low\nhigh\nup\n"  # without "down", so that the folder's decoder writes other texts


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tones: tuple[dict[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a decoder of its own."""
    copy = tmp_path_factory.mktemp("recognizer") / "model"
    shutil.copytree(tones[1], copy)
    (copy.parent / "words").write_text(LEXICON)
    tokens = asr.load(copy).bundle.tokens
    lexicon = read_word_list(copy.parent / "words", str)
    save_decoder(copy, Decoder(tokens, DecoderConfig(kind="beam"), lexicon=lexicon))
    return copy


@pytest.fixture(scope="module")
def utterances(tones: tuple[dict[str, Path], Path]) -> list[Utterance]:
    return list(read_manifest(tones[0]["test"]))


def test_python_and_the_command_line_give_the_same_text(
    run: Command, folder: Path, tones: tuple[dict[str, Path], Path], utterances: list[Utterance]
) -> None:
    recognizer, others = asr.load(str(folder)), 0
    for u in utterances[:6]:
        text = recognizer.transcribe(str(u.audio)).text
        assert run("transcribe", u.audio, "--model", folder).out == f"{text}\n"
        assert "down" not in text.split()
        others += text != asr.load(tones[1]).transcribe(u.audio).text
    assert others


def test_the_shipped_model_gives_the_text_of_the_command(run: Command, shared_data: Path) -> None:
    file = sorted((shared_data / "an4" / "wav").rglob("an406-fcaw-b.sph"))[0]
    text = asr.load().transcribe(file).text
    assert len(text.split()) > 3
    assert run("transcribe", file).out == f"{text}\n"


def test_every_kind_of_recording_is_one(folder: Path, utterances: list[Utterance]) -> None:
    recognizer, file = asr.load(folder), utterances[0].audio
    samples, rate = soundfile.read(file, dtype="int16")
    expected = recognizer.transcribe(file)
    assert expected.text
    assert expected.path == file
    assert expected.words[-1].end <= expected.seconds
    content = file.read_bytes()
    with file.open("rb") as opened:
        kinds: list[asr.Source] = [str(file), content, bytearray(content), opened]
        kinds += [io.BytesIO(content), samples, samples / np.float32(32768), samples / 32768]
        kinds += [np.stack([samples, samples], axis=1), samples.astype(">i2")]
        kinds.append((samples / 32768).astype(">f4"))
        tensor: Any = torch.tensor(samples / 32768).requires_grad_()
        kinds.append(tensor)
        for recording in kinds:
            result = recognizer.transcribe(recording, sample_rate=rate)
            assert (result.text, result.words) == (expected.text, expected.words), type(recording)
    slow = np.repeat(samples, 2)
    assert recognizer.transcribe(slow, sample_rate=2 * rate).seconds == expected.seconds


def test_words_have_times_and_confidences_or_are_left_out(
    folder: Path, utterances: list[Utterance]
) -> None:
    recognizer, file = asr.load(folder), utterances[0].audio
    result = recognizer.transcribe(file)
    bare = recognizer.transcribe(file, words=False)
    assert (bare.text, bare.words) == (result.text, ())
    assert len(result.words) == len(result.text.split())
    for word in result.words:
        assert 0 <= word.start < word.end <= result.seconds
        assert word.confidence is not None
        assert 0 < word.confidence < 1


def test_many_come_in_order_and_an_error_is_an_entry(
    folder: Path, utterances: list[Utterance], tmp_path: Path
) -> None:
    recognizer = asr.load(folder)
    samples = np.zeros(800, np.float32)
    files = [u.audio for u in utterances[:3]]
    many = [files[0], b"RIFF", tmp_path / "absent.wav", str(files[1]), 3, samples, files[2]]
    results = list(recognizer.transcribe(iter(many)))  # type: ignore[arg-type]
    texts = [recognizer.transcribe(file).text for file in files]
    assert [results[0].text, results[3].text, results[6].text] == texts
    assert [r.path for r in results] == [files[0], None, many[2], files[1], None, None, files[2]]
    assert [r.error is None for r in results] == [True, False, False, True, False, False, True]
    assert "got int" in str(results[4].error)
    assert "sample_rate=" in str(results[5].error)


@pytest.mark.parametrize(
    ("recording", "hint"),
    [
        ("absent.wav", "absent.wav: expected an audio file"),
        (b"nothing", "<7 bytes>: expected"),
        (np.zeros((4, 2000), np.float32), "shape [4, 2000]"),
        (np.zeros(100, bool), "got bool"),
        (np.full(100, np.nan), "NaN"),
    ],
)
def test_a_single_bad_recording_raises_one_line(
    folder: Path, recording: asr.Source, hint: str
) -> None:
    with pytest.raises(asr.AudioError) as error:
        asr.load(folder).transcribe(recording, sample_rate=RATE)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_and_a_text_file_are_no_recordings(folder: Path, tmp_path: Path) -> None:
    recognizer = asr.load(folder)
    for path in ("", str(tmp_path), tmp_path):
        with pytest.raises(asr.AudioError, match="expected a file, got a folder"):
            recognizer.transcribe(path)
    with (
        Path(__file__).open(encoding="utf-8") as text,
        pytest.raises(asr.AudioError, match="binary mode"),
    ):
        recognizer.transcribe(text)


def test_a_rate_that_is_none_is_refused(folder: Path) -> None:
    rates: list[Any] = [0, -1, 10**9, 44100.5, True, "16000"]
    for rate in rates:
        with pytest.raises(asr.AudioError, match="expected a sample"):
            asr.load(folder).transcribe(np.zeros(100), sample_rate=rate)


def test_a_model_of_whole_utterances_cannot_stream(folder: Path) -> None:
    with pytest.raises(asr.AsrError, match="expected a model that can stream"):
        asr.load(folder).stream()


def test_train_and_evaluate_take_paths_as_text(
    tones: tuple[dict[str, Path], Path], folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    manifests, _ = tones
    recipe.write_text(f"data: {{train: {manifests['train']}, dev: {manifests['dev']}}}\nout: run\n")
    small = ["features.sample_rate=8000", "features.bands=16", "model.layers=1", "model.hidden=8"]
    model = asr.train(str(recipe), [*small, "train.epochs=1"])
    assert model == tmp_path / "run" / "model"
    result = asr.evaluate(str(folder), str(manifests["test"]), str(tmp_path / "report"))
    assert (tmp_path / "report" / "report.html").is_file()
    assert result.unreadable == {}
    assert "down" not in {word for u in result.report.scores.utterances for word in u.hypothesis}


def test_a_wav_with_its_own_rate_needs_none(folder: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(2000), 2 * RATE)
    assert asr.load(folder).transcribe(tmp_path / "a.wav").seconds == pytest.approx(1000 / RATE)
    assert not torch.is_grad_enabled() or torch.is_inference_mode_enabled() is False
