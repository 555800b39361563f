"""Recordings without transcripts as utterances with a text and a confidence."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jiwer
import numpy as np
import pytest

import asr.inference.long_form as long_form
from asr.audio.load import write_wav
from asr.audio.vad import speech_detector
from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.shards import load_recording
from asr.errors import AsrError, ConfigError, ReportError
from asr.inference.label import (
    Labelled,
    _utterances,
    check_writes_words,
    confidence_of,
    label_all,
    label_values,
    read_labelled,
    recordings,
    write_labels,
)
from asr.inference.recognizer import Recognizer, load_recognizer
from asr.inference.time_formats import TokenTime, Word
from asr.inference.transcript import Segment, Transcript
from tests.tones import RATE, WORDS, one_thread, speak, trained_tones

transcribing = importlib.import_module("asr.inference.transcribe")


@pytest.fixture(autouse=True)
def _tones_are_speech(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Detectors of speech do not hear tones; the level does. Tones are much shorter than words."""
    monkeypatch.setattr(
        long_form, "speech_detector", lambda rate, kind: speech_detector(rate, "energy")
    )
    monkeypatch.setattr(transcribing, "longest_piece", lambda info: 1.0)
    with one_thread():
        yield


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return load_recognizer(trained_tones(tmp_path_factory.getbasetemp())[1])


def words(seed: int, count: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(list(WORDS), count).tolist())


def write(path: Path, texts: list[str], pause: float = 1.5) -> Utterance:
    """Sentences with a pause of faint noise after each."""
    random = np.random.default_rng(0)
    parts = []
    for number, text in enumerate(texts):
        parts.append(speak(text, number))
        parts.append(random.normal(0, 0.005, int(pause * RATE)).astype(np.float32))
    samples = np.concatenate(parts)
    write_wav(path, samples, RATE)
    return Utterance(path.stem, path, "", len(samples) / RATE)


def test_short_recordings_are_one_utterance_each(
    recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    test = read_manifest(trained_tones(tmp_path_factory.getbasetemp())[0]["test"])[:6]
    rows = [replace(u, text="", speaker="ann", extra={"room": 3}) for u in test]
    broken = Utterance("broken", tmp_path / "no.wav", "", 1.0)
    part = replace(test[1], id="part", start=0.0, end=test[1].duration - 0.02, duration=0.0)
    gone = replace(part, id="gone", audio=tmp_path / "no.wav")
    found = list(label_all(recognizer, [*rows, broken, part, gone]))
    assert [row.recording.id for row in found] == [u.id for u in rows] + ["broken", "part", "gone"]
    for row, spoken in zip(found, test, strict=False):
        (u,) = row.utterances
        assert row.text == spoken.text
        assert (u.id, u.speaker, u.start, u.end) == (spoken.id, "ann", 0.0, None)
        assert u.duration == pytest.approx(spoken.duration, abs=1e-3)
        assert 0.3 < confidence_of(u) <= 1
        assert row.confidence == pytest.approx(confidence_of(u))
    assert found[0].utterances[0].extra.keys() == {"room", "confidence"}
    for bad in (found[6], found[8]):
        assert bad.utterances == ()
        assert "no.wav" in (bad.error or "")
    (u,) = found[7].utterances
    assert (u.start, u.end, u.text) == (part.start, part.end, test[1].text)
    values = json.loads(json.dumps([label_values(row) for row in found]))
    again = [read_labelled(v, r.recording, r.error) for v, r in zip(values, found, strict=True)]
    assert again == found


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_long_recording_gives_an_utterance_for_each_stretch_of_speech(
    recognizer: Recognizer, tmp_path: Path, start: float
) -> None:
    texts = [words(1, 5), words(2, 3), words(3, 60), *(words(n, 4) for n in range(4, 9))]
    u = write(tmp_path / "talk.wav", texts, 2.5)
    if start:  # a segment of a recording
        u = replace(u, start=start, end=u.duration)
    (row,) = label_all(recognizer, [u], seconds=2.0)
    assert row.error is None
    spoken = " ".join(texts).split()
    written = row.text.split()
    missing = 5 if start else 0  # of the first sentence
    assert 0.9 * (len(spoken) - missing) <= len(written) <= len(spoken)
    assert len(row.utterances) > 8
    assert all(0 < part.duration <= 3.0 + 0.9 for part in row.utterances)
    reached = start
    for part in row.utterances:
        assert part.end is not None
        assert part.start >= reached - 0.01
        assert part.duration == pytest.approx(part.end - part.start, abs=1e-3)
        reached = part.end
    # What a training reads is what was recognised there.
    longest = max(row.utterances, key=lambda part: part.duration)
    samples = load_recording(longest.audio, RATE, longest.start, longest.end, None)
    heard = recognizer.transcribe(samples, RATE)
    assert jiwer.wer(longest.text, heard.text) <= 0.2, (longest.text, heard.text)
    # The id of another recording is not taken.
    write_labels(tmp_path / "out.jsonl", [row], ["talk", "talk-2"])
    ids = [part.id for part in read_manifest(tmp_path / "out.jsonl")]
    assert ids[:3] == ["talk-1", "talk-2x", "talk-3"]


def test_a_script_without_spaces_is_cut_between_tokens(tmp_path: Path) -> None:
    text = "甲乙丙丁戊己庚辛" * 4
    units = tuple(TokenTime(c, float(i), i + 0.8) for i, c in enumerate(text))
    segment = Segment(0.0, 32.0, text, (Word(text, 0.0, 32.0, 0.5, units),))
    samples = np.random.default_rng(0).normal(0, 0.1, 32 * RATE).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples, RATE)
    u = Utterance("a", tmp_path / "a.wav", "", 32.0)
    parts = list(_utterances(u, Transcript(u.audio, (segment,), 32.0), RATE, 4.0))
    assert len(parts) > 5
    assert all(2.0 <= part.duration <= 6.0 for part in parts)
    assert "".join(part.text for part in parts) == text
    assert {confidence_of(part) for part in parts} == {0.5}


def test_nothing_said_is_no_label(recognizer: Recognizer, tmp_path: Path) -> None:
    write_wav(tmp_path / "quiet.wav", np.zeros(RATE, np.float32), RATE)
    write(tmp_path / "said.wav", ["low high"], 0.1)
    rows = recordings(tmp_path, lambda text: None)
    assert [u.id for u in rows] == ["quiet", "said"]
    found = list(label_all(recognizer, rows))
    assert [row.text for row in found] == ["", "low high"]
    assert found[0].confidence == 0
    written = write_labels(tmp_path / "labels.jsonl", found, ["quiet", "said"])
    assert (written.kept, written.labels, written.empty) == (1, 1, 1)
    with pytest.raises(ReportError, match="at least 1, got none of 1"):
        write_labels(tmp_path / "labels.jsonl", found, [], 1.0)


def test_labels_are_kept_by_their_confidence(tmp_path: Path) -> None:
    rows = [Utterance(name, tmp_path / "x.wav", "", 0.0) for name in "abc"]
    found = [
        Labelled(u, 36.0, (replace(u, text="low", duration=36.0, extra={"confidence": sure}),))
        for u, sure in zip(rows, (0.9, 0.8, 0.7), strict=True)
    ]
    written = write_labels(tmp_path / "labels.jsonl", found, "abc", 0.8)
    assert str(written) == "2 of 3 labels, 0.02 of 0.03 hours"
    assert [u.id for u in read_manifest(tmp_path / "labels.jsonl")] == ["a", "b"]


def test_what_cannot_be_labelled(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="expected recordings to label, got none"):
        recordings(tmp_path, lambda text: None)
    bundle: Any = SimpleNamespace(text=SimpleNamespace(phones={"a": "a"}))
    with pytest.raises(ConfigError, match="expected a model that writes words, got one of phones"):
        check_writes_words(cast(Recognizer, SimpleNamespace(bundle=bundle)))
