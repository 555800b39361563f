"""Covers `asr/inference/cached_pieces.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio.load import write_wav
from asr.audio.vad import speech_detector
from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import AudioError, ManifestError
from asr.inference import cached_pieces as kept
from asr.inference import untranscribed
from asr.inference.cached_pieces import cached_pieces
from asr.inference.untranscribed import Found, cut_recordings, find_recordings, hold_out, without
from tests.tones import RATE, speak, write_recordings

WORDS = " ".join(["low high up down"] * 5)  # 4 s


def found_in(*sources: Path) -> list[Utterance]:
    return find_recordings(list(sources), pytest.fail)


def test_a_folder_and_a_manifest_may_be_mixed(tmp_path: Path) -> None:
    write_recordings(tmp_path / "a", {"ann": 2, "ben": 1})
    rows = found_in(tmp_path / "a")
    assert [(u.id, u.speaker, u.text) for u in rows] == [
        ("ann/ann00", "ann", ""),
        ("ann/ann01", "ann", ""),
        ("ben/ben00", "ben", ""),
    ]
    listed = [Utterance("ann/ann00", rows[0].audio, "some text", 1.0, "ann")]
    write_manifest(tmp_path / "m.jsonl", listed)
    both = found_in(tmp_path / "m.jsonl", tmp_path / "a")
    assert [u.id for u in both] == ["ann/ann00", "ann/ann00-2", "ann/ann01", "ben/ben00"]
    assert both[0].text == ""
    assert [u.id for u in without(both, listed)] == ["ann/ann01", "ben/ben00"]


def test_long_recordings_are_cut_and_silence_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tones are no speech for a better detector.
    monkeypatch.setattr(untranscribed, "speech_detector", partial(speech_detector, kind="energy"))
    pause = np.zeros(12 * RATE, np.float32)
    samples = np.concatenate([pause, speak(WORDS), pause, speak(WORDS + " " + WORDS), pause])
    write_wav(tmp_path / "long.wav", samples, RATE)
    write_wav(tmp_path / "pause.wav", pause, RATE)
    write_wav(tmp_path / "short.wav", pause[: RATE // 10], RATE)
    write_wav(tmp_path / "whole.wav", speak(WORDS), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    found = cut_recordings(found_in(tmp_path), RATE, longest=6.0, shortest=0.3)
    seconds = {u.id: u.duration for u in found.utterances}
    assert len(speak(WORDS)) / RATE == pytest.approx(seconds.pop("whole"), abs=1e-3)
    assert len(seconds) >= 3
    assert all(name.startswith("long-") and 0.3 <= s <= 6.0 for name, s in seconds.items())
    spoken = 3 * len(speak(WORDS)) / RATE
    assert spoken - 1 < sum(seconds.values()) < spoken + 4
    starts = [u.start for u in found.utterances if u.id != "whole"]
    ends = [u.end or 0.0 for u in found.utterances if u.id != "whole"]
    # Nothing is in two pieces.
    assert all(end <= start + 1e-6 for end, start in zip(ends, starts[1:], strict=False))
    assert (found.short, found.silent, len(found.unreadable)) == (1, 1, 1)
    assert found.summary() == "1 too short, 1 without speech, 1 not readable"
    # Kept, until a file or a setting changes.
    cut = partial(cached_pieces, tmp_path / "out" / "pieces.json", found_in(tmp_path), RATE)
    assert cut(6.0, 0.3) == found
    with monkeypatch.context() as context:
        read: list[Utterance] = []

        def counted(rows: list[Utterance], *settings: Any) -> Found:
            read.extend(rows)
            return cut_recordings(rows, *settings)

        context.setattr(kept, "cut_recordings", counted)
        assert cut(6.0, 0.3) == found
        assert [u.id for u in read] == ["broken"]  # which may be readable now
        context.setattr(untranscribed, "audio_duration", lambda path: 1.0)
        (tmp_path / "out" / "checkpoint").mkdir()  # what has begun keeps to what it has
        assert cut(6.0, 0.3) == found
        (tmp_path / "out" / "checkpoint").rmdir()
        assert "broken" in {u.id for u in cut(6.0, 0.3).utterances}
    assert cut(6.0, 0.2).short == 1
    longer = cut(7.0, 0.3)
    assert longer != found
    write_wav(tmp_path / "long.wav", pause, RATE)
    assert cut(7.0, 0.3).silent == 2
    (tmp_path / "out" / "pieces.json").write_text("{")
    assert cut(7.0, 0.3).silent == 2


def test_whole_speakers_or_recordings_are_held_out() -> None:
    def rows(speakers: str, files: str = "abcdefgh") -> list[Utterance]:
        pairs = enumerate(zip(speakers, files, strict=True))
        return [Utterance(str(i), Path(file), "", 2.0, who.strip()) for i, (who, file) in pairs]

    train, dev = hold_out(rows("xxyyzzww"), seed=1)
    assert {u.speaker for u in train}.isdisjoint(u.speaker for u in dev)
    assert len(dev) == 2
    train, dev = hold_out(rows("        ", "aabbccdd"), seed=1)
    assert {u.audio for u in train}.isdisjoint(u.audio for u in dev)
    assert len(dev) == 2
    train, dev = hold_out(rows("        ", "aaaaaaaa"), seed=1)
    assert (len(train), len(dev)) == (7, 1)
    assert hold_out(rows("xxyyzzww"), seed=1) == hold_out(rows("xxyyzzww"), seed=1)
    with pytest.raises(AudioError, match="expected at least two pieces of speech"):
        hold_out(rows("x", "a"), seed=1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("hours", "most"),
    [
        ([10, 1, 1], 1.0),
        ([5, 5, 5], 0.5),
        ([30] * 30, 0.5),
        ([1] * 19, 1.0),
        ([40, 0.1, 0.1], 0.21),
    ],
)
def test_not_much_is_held_out(hours: list[float], most: float, seed: int) -> None:
    rows = [
        Utterance(f"{who}-{n}", Path(f"{who}-{n // 2}"), "", 36.0, str(who))
        for who, size in enumerate(hours)
        for n in range(round(100 * size))
    ]
    train, dev = hold_out(rows, seed)
    assert len(train) + len(dev) == len(rows)
    assert 0 < sum(u.duration for u in dev) <= 3600 * most


def test_unusable_sources_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="expected recordings, got a folder without any"):
        found_in(tmp_path)
    with pytest.raises(AudioError, match="got no such file"):
        found_in(tmp_path / "absent")
    write_manifest(tmp_path / "m.jsonl", [Utterance("one", tmp_path / "gone.wav", "", 1.0)])
    with pytest.raises(AudioError, match=r"m\.jsonl: expected every recording.*gone\.wav of one"):
        found_in(tmp_path / "m.jsonl")
    (tmp_path / "n.jsonl").write_text('{"id": "one", "text": ""}\n')
    with pytest.raises(ManifestError, match="expected the key 'audio'"):
        found_in(tmp_path / "n.jsonl")
