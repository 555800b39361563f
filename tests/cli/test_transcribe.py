"""`asr transcribe`: one line a recording, or files in a folder that can be gone on with.

Covers `asr/cli/option_groups.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt

from asr.audio.vad import speech_detector
from asr.dataset.manifest import read_manifest
from asr.inference import long_form
from tests.cli.test_transcribe_folder import files_in
from tests.commands import Command
from tests.inference.test_long_form import talk
from tests.tones import RATE

Tones = tuple[dict[str, Path], Path]


def test_transcribe_prints_a_line_a_file(run: Command, tones: tuple[dict[str, Path], Path]) -> None:
    manifests, model = tones
    first, second = read_manifest(manifests["test"])[:2]
    alone = run("transcribe", first.audio, "--model", model)
    # Nothing of a progress bar is left where there is no terminal.
    assert (alone.status, alone.out, alone.err) == (0, f"{first.text}\n", "")
    both = run("transcribe", first.audio, second.audio, "--model", model)
    assert both.out == f"{first.audio}\t{first.text}\n{second.audio}\t{second.text}\n"


def test_transcribe_prints_json(run: Command, tones: tuple[dict[str, Path], Path]) -> None:
    manifests, model = tones
    utterance = read_manifest(manifests["test"])[0]
    ended = run("transcribe", utterance.audio, "--model", model, "--format", "json")
    (line,) = ended.out.splitlines()
    row = json.loads(line)
    assert row.pop("seconds") == pytest.approx(utterance.duration, abs=1e-3)
    (segment,) = row.pop("segments")
    assert [word["word"] for word in segment["words"]] == utterance.text.split()
    assert (segment["start"], segment["text"]) == (0.0, utterance.text)
    assert row == {"file": str(utterance.audio), "text": utterance.text}


def test_transcribe_searches_folders(run: Command, tones: tuple[dict[str, Path], Path]) -> None:
    manifests, model = tones
    utterances = read_manifest(manifests["test"])
    ended = run("transcribe", utterances[0].audio.parent, "--model", model)
    assert ended.status == 0
    named = [line.split("\t")[0] for line in ended.out.splitlines()]
    assert named == sorted(str(u.audio) for u in utterances)


def test_transcribe_goes_on_past_bad_files_names_them_and_fails(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    good = read_manifest(manifests["test"])[0]
    garbage, empty, absent = (
        tmp_path / name for name in ("garbage.wav", "empty.mp3", "absent.wav")
    )
    garbage.write_bytes(b"RIFF....WAVE")
    empty.write_bytes(b"")
    ended = run("transcribe", garbage, absent, good.audio, empty, "--model", model)
    assert ended.status == 1
    assert ended.err.splitlines()[-1] == "3 of 4 recordings failed"
    assert ended.out == f"{good.audio}\t{good.text}\n"
    assert len(ended.errors) == 3
    for path in (garbage, empty, absent):
        assert sum(str(path) in line for line in ended.errors) == 1


def test_damage_is_told_once_a_recording_and_what_is_passed_over(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    good = read_manifest(manifests["test"])[0]
    cut, folder = tmp_path / "cut.wav", tmp_path / "folder"
    cut.write_bytes(good.audio.read_bytes()[:-100])
    folder.mkdir()
    shutil.copy(good.audio, folder)
    (folder / "film.xyz").touch()
    ended = run("transcribe", cut, folder, "--model", model)
    assert (ended.status, len(ended.out.splitlines())) == (0, 2)
    note, warning = ended.err.splitlines()
    assert note == f"note: {folder}: skipped 1 file, neither recordings nor texts: film.xyz"
    assert warning.startswith(f"warning: {cut}: its header states")


def test_transcribe_names_the_file_whenever_several_were_given(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    good = read_manifest(manifests["test"])[0]
    ended = run("transcribe", tmp_path / "absent.wav", good.audio, "--model", model)
    assert ended.status == 1
    assert ended.out == f"{good.audio}\t{good.text}\n"


def test_transcribe_refuses_a_folder_without_recordings(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    assert str(tmp_path) in run("transcribe", tmp_path, "--model", tones[1]).error()


def test_transcribe_refuses_a_bad_model(run: Command, tmp_path: Path) -> None:
    assert "nowhere" in run("transcribe", "a.wav", "--model", tmp_path / "nowhere").error()
    (tmp_path / "empty").mkdir()
    assert "config.json" in run("transcribe", "a.wav", "--model", tmp_path / "empty").error()


# --- formats and folders ---


def test_options_of_subtitles(run: Command, tones: Tones) -> None:
    utterance = max(read_manifest(tones[0]["test"]), key=lambda u: len(u.text))
    words = ("transcribe", utterance.audio, "--model", tones[1], "--format", "srt")
    (plain,) = srt.parse(run(*words).out)
    assert plain.content == utterance.text
    (narrow,) = srt.parse(run(*words, "--line-width", "12", "--line-count", "9").out)
    assert narrow.content.split() == utterance.text.split()
    assert "\n" in narrow.content
    assert all(len(line) <= 12 for line in narrow.content.splitlines())
    several = list(srt.parse(run(*words, "--highlight").out))
    assert len(several) == len(utterance.text.split())
    assert all(cue.content.count("<u>") == 1 for cue in several)
    slow = list(srt.parse(run(*words, "--shortest", "2", "--reading-speed", "5").out))
    assert (slow[0].end - slow[0].start).total_seconds() >= 2
    short = ("--line-width", "5", "--line-count", "1", "--shortest", "0.01")
    for gap in (0.0, 0.05):
        apart = list(srt.parse(run(*words, *short, "--gap", gap).out))
        spaces = [b.start - a.end for a, b in itertools.pairwise(apart)]
        assert len(spaces) >= 2
        assert min(spaces).total_seconds() == pytest.approx(gap, abs=1e-3)
    error = run(*words, "--shortest", "9").error()
    assert "expected the longest subtitle to last at least 9 s" in error


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    """Gives standard input some bytes."""

    def give(content: bytes) -> None:
        (tmp_path / "stdin").write_bytes(content)
        monkeypatch.setattr(sys, "stdin", (tmp_path / "stdin").open())

    return give


def test_ctrl_c_ends_an_input_that_stays_open(
    run: Command, tones: Tones, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, bytes(RATE))
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    before = signal.getsignal(signal.SIGINT)

    def send() -> None:
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    ended = run("transcribe", "-", "--rate", RATE, "--model", tones[1])
    sender.join()
    assert (ended.status, ended.out) == (130, "")
    assert ended.err.splitlines()[-1] == "stopped"
    assert signal.getsignal(signal.SIGINT) is before
    os.close(writing)


def test_standard_input(
    run: Command, tones: Tones, tree: Path, piped: Callable[[bytes], None]
) -> None:
    options = ("--model", tones[1])
    content = (tree / "y.wav").read_bytes()
    text = run("transcribe", tree / "y.wav", *options).out
    piped(content)
    ended = run("transcribe", "-", *options)
    assert (ended.status, ended.out, ended.err) == (0, text, "")
    piped(content[44:])  # raw samples
    assert run("transcribe", "-", "--rate", RATE, *options).out == text
    piped(content)
    both = run("transcribe", tree / "y.wav", "-", *options)
    assert both.out == f"{tree / 'y.wav'}\t{text}-\t{text}"
    out = tree.parent / "out"
    for _ in range(2):  # never taken for done
        piped(content)
        words = ("--format", "txt,json", "--out", out, "--resume")
        assert run("transcribe", "-", *options, *words).status == 0
        assert files_in(out).pop("stdin.txt").decode() == text
        (out / "stdin.txt").unlink()
    assert json.loads(files_in(out)["stdin.json"])["file"] == "-"


def test_standard_input_that_is_no_recording(
    run: Command, tones: Tones, piped: Callable[[bytes], None]
) -> None:
    options = ("--model", tones[1])
    for content in (b"", b"no recording"):
        piped(content)
        error = run("transcribe", "-", *options).error()
        assert "<standard input>: expected" in error
        assert "/standard-input" not in error
    piped(b"RIFF....WAVEfmt ")
    assert "leave out the rate" in run("transcribe", "-", "--rate", "8000", *options).error()


def test_channels_and_a_part_of_a_recording(
    run: Command, tones: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # the others do not hear tones
        long_form, "speech_detector", lambda rate, kind: speech_detector(rate, "energy")
    )
    question, answer = talk(["low low low"], 1.0, 1), talk(["high high up"], 1.0, 2)
    columns = [
        np.concatenate([question, talk([], len(answer) / RATE, 3)]),
        np.concatenate([talk([], len(question) / RATE, 4), answer]),
    ]
    soundfile.write(tmp_path / "call.wav", np.stack(columns, axis=1), RATE)
    words = ("transcribe", tmp_path / "call.wav", "--model", tones[1])
    each = run(*words, "--channels", "each")
    first, second = each.out.splitlines()
    assert first.startswith("channel 1: low ")
    assert second.startswith("channel 2: high ")
    cues = list(srt.parse(run(*words, "--channels", "each", "--format", "srt").out))
    assert [cue.content for cue in cues] == each.out.splitlines()
    assert cues[1].start.total_seconds() == pytest.approx(len(question) / RATE + 1, abs=0.2)
    turn = str(len(question) / RATE)
    part = json.loads(run(*words, "--start", turn, "--format", "json").out)
    assert part["segments"][0]["start"] == pytest.approx(float(turn), abs=1e-3)
    part = json.loads(run(*words, "--end", turn, "--format", "json").out)
    assert (part["segments"][0]["start"], part["seconds"]) == (
        0,
        pytest.approx(float(turn), abs=1e-3),
    )
    assert run(*words, "--channels", "left").status == 2
    assert "end after start" in run(*words, "--start", "2", "--end", "1").error()
