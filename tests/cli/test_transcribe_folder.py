"""`asr transcribe --out`: every format of every recording, in files; a stopped batch is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import srt
import webvtt

import asr.inference.recognizer
from asr.inference.formats import FORMATS
from asr.inference.output_folder import RECORD
from asr.inference.transcript import Segment, Transcript
from tests.commands import Command

Tones = tuple[dict[str, Path], Path]


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
