"""Covers `asr/dataset/validate_text.py`."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, write_manifest
from asr.dataset.validate import CheckReport, Problem, check_manifests
from asr.dataset.validate_text import render
from asr.errors import ManifestError
from asr.text.tokens import TokenConfig, Tokens, build_tokens

TOKENS = build_tokens(["yes no"], TokenConfig())


def sound(folder: Path, name: str, seconds: float = 1.0, peak: float = 0.5) -> Path:
    samples = peak * np.sin(np.arange(round(seconds * 16000)))
    write_wav(folder / name, samples, 16000)
    return folder / name


def manifest(path: Path, *records: dict[str, Any]) -> Path:
    """Lines with defaults: a good recording of one second that says yes."""
    name = sound(path.parent, f"good-{path.stem}.wav", peak=0.4 + len(path.stem) / 100).name
    defaults = {"audio": name, "text": "yes", "duration": 1.0}
    lines = [json.dumps({"id": f"{path.stem}{n}"} | defaults | r) for n, r in enumerate(records)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kinds(report: CheckReport) -> list[tuple[str, str]]:
    return [(problem.kind, problem.id) for problem in report.problems]


def test_a_good_corpus_has_no_problems(tmp_path: Path) -> None:
    train = manifest(tmp_path / "train.jsonl", {"speaker": "a"}, {"speaker": "b", "text": "no yes"})
    test = manifest(tmp_path / "test.jsonl", {"speaker": "c"}, {})
    report = check_manifests([train, test], TOKENS, lambda seconds: int(seconds * 100))
    assert report.problems == ()
    assert [(m.path, m.utterances, m.speakers) for m in report.manifests] == [
        (train, 2, 2),
        (test, 2, 1),
    ]
    assert report.manifests[0].hours == pytest.approx(2 / 3600)
    assert report.units == {"y": 4, "e": 4, "s": 4, "n": 1, "o": 1, " ": 1}
    assert sum(length.count for length in report.lengths) == 4
    assert "no problems" in render(report)


def test_every_problem_is_found_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"RIFF and nothing more")
    (tmp_path / "empty.wav").touch()
    sound(tmp_path, "none.wav", seconds=0)
    sound(tmp_path, "silent.wav", peak=5e-5)
    train = manifest(
        tmp_path / "train.jsonl",
        {"audio": "missing.wav"},
        {"audio": "noise.wav"},
        {"audio": "empty.wav"},
        {"audio": "none.wav"},
        {"audio": "silent.wav"},
        {"duration": 1.2},
        {"text": " "},
        {"text": "yés ñ"},
        {"id": "train0"},
        {"text": "yes" * 40},
        {"duration": -1},
        {"speaker": "a", "audio": "missing.wav", "text": ""},
    )
    test = manifest(tmp_path / "test.jsonl", {"id": "train1"}, {"speaker": "a"})
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    paths = [train, test, empty]
    report = check_manifests(paths, TOKENS, lambda seconds: int(seconds * 100))
    assert sorted(kinds(report)) == sorted(
        [
            ("missing audio", "train0"),
            ("undecodable audio", "train1"),
            ("undecodable audio", "train2"),
            ("undecodable audio", "train3"),
            ("silent audio", "train4"),
            ("wrong duration", "train5"),
            ("empty text", "train6"),
            ("unknown characters", "train7"),
            ("duplicate id", "train0"),
            ("text does not fit", "train9"),
            ("malformed line", "train10"),
            ("missing audio", "train11"),
            ("empty text", "train11"),
            ("duplicate id", "train1"),
            ("shared speaker", "a"),
            ("empty manifest", "empty.jsonl"),
        ]
    )
    ranks = [paths.index(problem.manifest) for problem in report.problems]
    assert ranks == sorted(ranks)
    details = {(problem.kind, problem.id): problem.detail for problem in report.problems}
    assert details["unknown characters", "train7"].endswith("é (U+00E9), ñ (U+00F1)")
    assert details["wrong duration", "train5"].startswith("1.20 s in the manifest, 1.00 s in ")
    assert details["duplicate id", "train1"] == f"line 1: already at {train}:2"
    assert details["malformed line", "train10"].startswith("line 11: expected 'duration'")
    assert details["text does not fit", "train9"].startswith("121 frames needed for the text, 100")
    text = render(report)
    for problem in report.problems:
        assert f"  {problem.id}  ({problem.manifest})  {problem.detail}" in text
    assert "16 problems" in text
    assert "unknown characters: 1" in text


@pytest.mark.parametrize(
    ("text", "tokens", "needed"),
    [
        ("yes", None, 3),
        ("see", None, 4),
        ("eee", None, 5),
        ("see", TOKENS, 5),  # with the mark that begins a word
        ("see ñ", TOKENS, 5),
        ("see see", build_tokens(["see"], TokenConfig(kind="words", word_count=1)), 3),
    ],
)
def test_repeated_units_need_a_frame_between_them(
    text: str, tokens: Tokens | None, needed: int, tmp_path: Path
) -> None:
    path = manifest(tmp_path / "m.jsonl", {"text": text})
    enough = check_manifests([path], tokens, lambda seconds: needed)
    scarce = check_manifests([path], tokens, lambda seconds: needed - 1)
    assert "text does not fit" not in dict(kinds(enough))
    assert dict(kinds(scarce))["text does not fit"] == "m0"


def test_fit_is_judged_by_the_audio_and_not_by_the_manifest(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", {"duration": 9.0})
    report = check_manifests([path], None, lambda seconds: round(seconds * 2))
    assert kinds(report) == [("wrong duration", "m0"), ("text does not fit", "m0")]


def test_texts_are_judged_after_normalisation(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", {"text": "YES"})
    assert kinds(check_manifests([path], TOKENS)) == [("unknown characters", "m0")]
    report = check_manifests([path], TOKENS, normalise=str.lower)
    assert not report.problems
    assert report.units == {"y": 1, "e": 1, "s": 1}


def test_stretches_are_measured_alone(tmp_path: Path) -> None:
    sound(tmp_path, "long.wav", seconds=3)
    base = {"audio": "long.wav"}
    path = manifest(
        tmp_path / "m.jsonl",
        base | {"start": 1.0, "end": 2.0},
        base | {"start": 2.0},
        base | {"start": 2.5, "end": 3.5},
        base | {"start": 4.0, "end": 5.0},
    )
    report = check_manifests([path])
    assert kinds(report) == [("wrong duration", "m2"), ("undecodable audio", "m3")]


def test_progress_and_many_threads_keep_the_order(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", *({"duration": 5.0} for _ in range(40)))
    calls: list[tuple[int, int]] = []
    threads = set()

    def frames(seconds: float) -> int:
        threads.add(threading.get_ident())
        return 100

    report = check_manifests(
        [path], None, frames, workers=4, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(n, 40) for n in range(1, 41)]
    assert [problem.id for problem in report.problems] == [f"m{n}" for n in range(40)]
    assert threading.get_ident() not in threads


def test_an_interrupted_check_stops_at_once(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", *({} for _ in range(2000)))
    decoded = []

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def frames(seconds: float) -> int:
        decoded.append(seconds)
        return 100

    with pytest.raises(KeyboardInterrupt):
        check_manifests([path], None, frames, workers=1, progress=interrupt)
    assert len(decoded) < 2000


def test_the_same_manifest_twice_is_told_and_read_once(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", {"speaker": "a"})
    (tmp_path / "link.jsonl").symlink_to(path)
    report = check_manifests([path, str(path), tmp_path / "link.jsonl"])
    assert kinds(report) == [("repeated manifest", "m.jsonl"), ("repeated manifest", "link.jsonl")]
    assert report.problems[1].detail == f"given again as {tmp_path / 'link.jsonl'}, read once"
    assert len(report.manifests) == 1


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="expected a manifest"):
        check_manifests([tmp_path / "missing.jsonl"])


@pytest.mark.parametrize("longest", [0.05, 0.9, 1.1, 7.3, 100.0, 5000.0, 9e8])
def test_the_histogram_holds_every_length_in_a_few_round_bins(
    longest: float, tmp_path: Path
) -> None:
    durations = [float(x) for x in np.linspace(longest / 50, longest, 30)]
    path = manifest(tmp_path / "m.jsonl", *({"duration": d} for d in durations))
    lengths = check_manifests([path]).lengths
    assert 1 <= len(lengths) <= 13
    for one in lengths:
        assert one.count == sum(one.low <= d < one.high for d in durations)
    for one, following in pairwise(lengths):
        assert one.high == following.low
    assert sum(one.count for one in lengths) == 30


def test_render_is_printable_whatever_the_ids(tmp_path: Path) -> None:
    report = check_manifests([manifest(tmp_path / "m.jsonl", {"id": "a\nb\x1b", "text": "\n"})])
    assert report.problems == (
        Problem("empty text", "a\nb\x1b", tmp_path / "m.jsonl", "text is '\\n'"),
    )
    text = render(report)
    assert "a\\nb\\x1b" in text
    assert "\x1b" not in text


def test_real_recordings_have_no_problems(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "an4" / "wav" / "an4test_clstk").rglob("*.sph"))[:30]
    utterances = []
    for path in paths:
        seconds = (path.stat().st_size - 1024) / 2 / 16000
        utterances.append(Utterance(path.stem, path, "some words", seconds, path.parent.name))
    write_manifest(tmp_path / "an4.jsonl", utterances)
    report = check_manifests([tmp_path / "an4.jsonl"], None, lambda seconds: int(seconds * 25))
    assert not report.problems
    assert report.manifests[0].hours == pytest.approx(sum(u.duration for u in utterances) / 3600)


def test_damaged_recordings_are_notes_and_no_problems(tmp_path: Path) -> None:
    path = manifest(tmp_path / "a.jsonl", {}, {"audio": "cut.wav", "duration": 0.5})
    whole = sound(tmp_path, "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: 44 + 16000])
    report = check_manifests([path])
    assert report.problems == ()
    assert [(note.kind, note.id) for note in report.notes] == [("damaged audio", "a1")]
    assert "no problems\n\n1 note\ndamaged audio: 1\n  a1 " in render(report)
