"""`asr transcribe`: one line a recording, or files in a folder that can be gone on with.

Covers `asr/cli/option_groups.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import srt
import webvtt

import asr.inference.recognizer
from asr.audio.vad import speech_detector
from asr.dataset.manifest import read_manifest
from asr.inference import long_form
from asr.inference.formats import FORMATS
from asr.inference.output_folder import RECORD
from asr.inference.transcript import Segment, Transcript
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


@pytest.fixture
def tree(tmp_path: Path, tones: Tones) -> Path:
    """Recordings whose names are equal but for their folders and suffixes."""
    audio = [u.audio for u in read_manifest(tones[0]["test"])]
    tree = tmp_path / "tree"
    for source, name in zip(audio, ("a/x.wav", "b/x.wav", "b/x.flac", "y.wav"), strict=False):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tree / name)
    return tree


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }


def test_every_format_of_every_recording(run: Command, tones: Tones, tree: Path) -> None:
    out = tree.parent / "out"
    options = ("--model", tones[1], "--out", out)
    ended = run("transcribe", tree, "--format", "all", *options)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    written = files_in(out)
    suffixes = {"textgrid": "TextGrid"}
    assert set(written) == {
        f"{name}.{suffixes.get(format, format)}"
        for name in ("a/x", "b/x.wav", "b/x.flac", "y")
        for format in FORMATS
    }
    for recording, name in (("a/x.wav", "a/x"), ("b/x.flac", "b/x.flac"), ("y.wav", "y")):
        alone = run("transcribe", tree / recording, "--model", tones[1])
        assert written[f"{name}.txt"].decode() == alone.out
        said = alone.out.split()
        cues = srt.parse(written[f"{name}.srt"].decode())
        assert " ".join(cue.content for cue in cues).split() == said
        seen = webvtt.read(str(out / f"{name}.vtt"), strict=True)
        assert " ".join(cue.text for cue in seen.captions).split() == said
        assert json.loads(written[f"{name}.json"])["text"].split() == said
        assert [line.split()[4] for line in written[f"{name}.ctm"].decode().splitlines()] == said
        as_srt = run("transcribe", tree / recording, "--model", tones[1], "--format", "srt")
        assert as_srt.out.encode() == written[f"{name}.srt"]
    # Two in one command, either way of writing that, and without the others.
    assert (
        run("transcribe", tree / "y.wav", "--format", "srt, json", *options[:3], tree / "2").status
        == 0
    )
    run(
        "transcribe",
        tree / "y.wav",
        *options[:3],
        tree / "3",
        "--format",
        "json",
        "--format",
        "srt",
    )
    assert set(files_in(tree / "2")) == set(files_in(tree / "3")) == {"y.srt", "y.json"}


def test_formats_that_stdout_cannot_hold(run: Command, tones: Tones, tree: Path) -> None:
    def refused(*arguments: object) -> str:
        return run("transcribe", tree, "--model", tones[1], *arguments).error()

    assert "--out with several formats" in refused("--format", "srt,json")
    assert "--out with --format vtt of 4 recordings" in refused("--format", "vtt")
    assert "--out with --resume" in refused("--resume")
    for words in ("srt,", "mp4", "", "srt;json"):
        assert run("transcribe", tree, "--model", tones[1], "--format", words).status == 2
    ctm = run("transcribe", tree, "--model", tones[1], "--format", "ctm")
    assert len({line.split()[0] for line in ctm.out.splitlines()}) == 4


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
    error = run(*words, "--shortest", "9").error()
    assert "expected the longest subtitle to last at least 9 s" in error


def test_one_bad_file_leaves_the_others(run: Command, tones: Tones, tree: Path) -> None:
    (tree / "a" / "bad.wav").write_bytes(b"RIFF....WAVE")
    out = tree.parent / "out"
    ended = run("transcribe", tree, tree / "absent.wav", "--model", tones[1], "--out", out)
    assert ended.status == 1
    assert ended.err.splitlines()[-1] == "2 of 6 recordings failed"
    assert len(ended.errors) == 2
    assert set(files_in(out)) == {"a/x.txt", "b/x.wav.txt", "b/x.flac.txt", "y.txt"}


def test_a_place_that_cannot_be_written(run: Command, tones: Tones, tree: Path) -> None:
    options = ("transcribe", tree, "--model", tones[1], "--out")
    assert "choose another --out" in run(*options, tree / "y.wav").error()
    (tree.parent / "out" / "y.txt").mkdir(parents=True)
    ended = run(*options, tree.parent / "out")
    assert ended.status == 1
    assert len(ended.errors) == 1
    assert "y.txt" in ended.errors[0]
    assert len(files_in(tree.parent / "out")) == 3
    # A recording named like an output is not replaced.
    shutil.copy(tree / "y.wav", tree / "z.txt")
    error = run("transcribe", tree / "z.txt", "--model", tones[1], "--out", tree).error()
    assert "no recording is replaced" in error
    assert (tree / "z.txt").read_bytes() == (tree / "y.wav").read_bytes()


def test_patterns_are_expanded(run: Command, tones: Tones, tree: Path) -> None:
    ended = run("transcribe", tree / "*" / "x.wav", "--model", tones[1])
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == [
        str(tree / "a" / "x.wav"), str(tree / "b" / "x.wav")
    ]  # fmt: skip
    out = tree.parent / "out"
    assert run("transcribe", tree / "**" / "x.*", "--model", tones[1], "--out", out).status == 0
    assert set(files_in(out)) == {"a/x.txt", "b/x.wav.txt", "b/x.flac.txt"}
    assert "got no match" in run("transcribe", tree / "*.mp3", "--model", tones[1]).error()


# --- an audio that stops, and resuming ---


@pytest.fixture
def transcribed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The recordings that are transcribed from here on."""
    seen: list[Path] = []
    real = asr.inference.recognizer.transcribe

    def noting(bundle: Any, sources: Any, *others: Any, **named: Any) -> Iterator[Transcript]:
        sources = list(sources)
        seen.extend(sources)
        return real(bundle, sources, *others, **named)

    monkeypatch.setattr(asr.inference.recognizer, "transcribe", noting)
    return seen


def replaced(monkeypatch: pytest.MonkeyPatch, change: Callable[[Transcript], Transcript]) -> None:
    """Let every transcript be changed."""
    real = asr.inference.recognizer.transcribe

    def changed(*arguments: Any, **named: Any) -> Iterator[Transcript]:
        return map(change, real(*arguments, **named))

    monkeypatch.setattr(asr.inference.recognizer, "transcribe", changed)


def test_the_text_up_to_where_the_audio_stops_is_written(
    run: Command, tones: Tones, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tree.parent / "out"
    options = ("--model", tones[1], "--out", out, "--format", "txt,json")
    with monkeypatch.context() as patch:
        replaced(patch, lambda t: Transcript(t.path, (Segment(0, 1, "low"),), 1.0, "it stopped"))
        ended = run("transcribe", tree / "y.wav", *options)
        printed = run("transcribe", tree / "y.wav", "--model", tones[1])
    assert (ended.status, ended.errors) == (1, ["error: it stopped"])
    assert (printed.status, printed.out) == (1, "low\n")
    assert files_in(out)["y.txt"] == b"low\n"
    assert json.loads(files_in(out)["y.json"])["error"] == "it stopped"
    # It is done again, since it failed.
    assert run("transcribe", tree / "y.wav", *options, "--resume").status == 0
    assert files_in(out)["y.txt"] != b"low\n"


def test_a_batch_that_was_stopped_goes_on(
    run: Command, tones: Tones, tree: Path, monkeypatch: pytest.MonkeyPatch, transcribed: list[Path]
) -> None:
    out, whole = tree.parent / "out", tree.parent / "whole"
    options = ("transcribe", tree, "--model", tones[1], "--format", "all", "--out")
    assert run(*options, whole).status == 0
    with monkeypatch.context() as patch:
        count = iter(range(3))

        def stop(transcript: Transcript) -> Transcript:
            if next(count) == 2:
                raise KeyboardInterrupt
            return transcript

        replaced(patch, stop)
        ended = run(*options, out)
    assert ended.status == 130
    assert ended.err.splitlines() == ["2 of 4 recordings are transcribed", "stopped"]
    before = files_in(out)
    assert len(before) == 2 * len(FORMATS)
    transcribed.clear()
    ended = run(*options, out, "--resume")
    assert ended.err == "note: 2 of 4 recordings are done already\n"
    assert len(transcribed) == 2
    assert files_in(out) == files_in(whole)
    transcribed.clear()
    run(*options, out, "--resume")
    assert transcribed == []


def test_what_has_changed_is_done_again(
    run: Command, tones: Tones, tree: Path, transcribed: list[Path]
) -> None:
    out, model = tree.parent / "out", tree.parent / "model"
    shutil.copytree(tones[1], model)

    def again(*changes: object, model: Path = model) -> set[str]:
        transcribed.clear()
        options = ("transcribe", tree, "--model", model, "--out", out, "--resume", *changes)
        assert run(*options).status == 0
        return {path.relative_to(tree).as_posix() for path in transcribed}

    everything = {"a/x.wav", "b/x.wav", "b/x.flac", "y.wav"}
    assert again() == everything
    assert again() == set()
    shutil.copy(tree / "b" / "x.wav", tree / "y.wav")  # another recording
    assert again() == {"y.wav"}
    os.utime(tree / "a" / "x.wav", (1, 1))  # another time
    assert again() == {"a/x.wav"}
    (out / "y.txt").unlink()
    (out / "a" / "x.txt").write_text("")  # cut off
    assert again() == {"y.wav", "a/x.wav"}
    assert again("--format", "srt") == everything
    assert again("--format", "srt", "--line-width", "20") == everything
    assert again("--set", "beam.size=4", "--decoder", "beam") == everything
    shutil.copytree(model, tree.parent / "copy")
    assert again("--set", "beam.size=4", "--decoder", "beam", model=tree.parent / "copy") == set()
    assert again() == everything
    with (model / "info.json").open("a") as file:
        file.write(" ")
    assert again() == everything
    with (out / RECORD).open("a") as file:  # the machine stopped while this was written
        file.write('{"name": "y", "siz')
    assert again() == set()
    (tree / "new.wav").write_bytes((tree / "y.wav").read_bytes())
    assert again() == {"new.wav"}
    assert again() == set()


# --- standard input, channels, and a part of a recording ---


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
