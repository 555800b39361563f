"""When words are said: near the truth, in formats that other programs read, with clear errors."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AlignmentError
from asr.inference.forced_alignment import align_words, time_words
from asr.inference.time_formats import TokenTime, Word, to_textgrid
from asr.inference.transcribe import transcribe
from asr.models.bundle import load_bundle
from asr.text.tokens import TokenConfig, build_tokens
from tests.commands import Command
from tests.tones import GAP_SECONDS, RATE, TONE_SECONDS, speak

Tones = tuple[dict[str, Path], Path]


def true_middles(count: int) -> list[float]:
    """Seconds in the middle of each word that `speak` says."""
    word = 2 * TONE_SECONDS
    return [GAP_SECONDS + i * (word + GAP_SECONDS) + word / 2 for i in range(count)]


def test_words_are_where_they_are_said(tones: Tones) -> None:
    bundle = load_bundle(tones[1])
    text = "low up down high up"
    words = align_words(bundle, torch.from_numpy(speak(text, seed=3)), text, "a")
    assert [word.text for word in words] == text.split()
    for word, middle in zip(words, true_middles(5), strict=True):
        # A word that is one unit may be written in a single frame.
        assert abs((word.start + word.end) / 2 - middle) < 0.1
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


def test_a_long_recording(tones: Tones) -> None:
    bundle = load_bundle(tones[1])
    random = np.random.default_rng(0)
    text = " ".join(random.choice(["low", "high", "up", "down"], 600))
    words = align_words(bundle, torch.from_numpy(speak(text, seed=4)), text, "a")
    middles = np.array([(word.start + word.end) / 2 for word in words])
    off = np.abs(middles - true_middles(600))
    assert np.median(off) < 0.05
    assert off[-1] < 0.2


def spelled_times(path: str, text: str) -> list[Word]:
    """Words of a path with a unit a frame of 0.1 s: "." is a blank, "_" the mark of a word."""
    tokens = build_tokens([text], TokenConfig())
    units = ["<blank>" if c == "." else "▁" if c == "_" else c for c in path]
    log_probs = torch.full((len(path), len(tokens)), -20.0)
    for t, unit in enumerate(units):
        log_probs[t, tokens.units.index(unit)] = -0.01
    return time_words(tokens, log_probs, False, text, 0.1 * len(path), "a")


def test_a_word_begins_with_the_last_frame_of_its_mark() -> None:
    hi, al = spelled_times("____hi..__a.l..", "hi al")
    assert (hi.start, hi.end) == (0.3, 0.6)
    assert (al.start, al.end) == (0.9, 1.3)
    assert [unit.unit for unit in al.units] == ["▁", "a", "l"]
    # A mark long before its word: the word begins 120 ms before its first sound.
    (late,) = spelled_times("_......yo.", "yo")
    assert late.start == pytest.approx(0.58)


def test_textgrid_covers_the_recording() -> None:
    units = (TokenTime("▁", 0.2, 0.3), TokenTime('"', 0.3, 0.4))
    words = [Word('"', 0.2, 0.4, units=units), Word("b", 0.4, 0.5)]
    text = to_textgrid({"": words}, 1.0)
    tiers = re.split(r"item \[\d\]:", text)[1:]
    edges = re.findall(r"xmin = (\S+)\n +xmax = (\S+)\n +text = (.*)", tiers[0])
    assert edges == [
        ("0.000", "0.200", '""'),
        ("0.200", "0.400", '""""'),
        ("0.400", "0.500", '"b"'),
        ("0.500", "1.000", '""'),
    ]
    assert "intervals: size = 4" in tiers[0]
    assert 'name = "units"' in tiers[1]
    assert 'text = ""\n' in to_textgrid({"": []}, 1.0)
    # A word that ends with the recording, whose length is no whole number of milliseconds.
    ended = to_textgrid({"": [Word("a", 0.2, 1.234)]}, 1.23437)
    assert "xmin = 1.234" not in ended
    assert ended.count("xmax = 1.234") == 5


def test_align_a_manifest(run: Command, tones: Tones, tmp_path: Path) -> None:
    manifests, model = tones
    utterances = read_manifest(manifests["test"])[:3]
    bad = replace(utterances[1], id="bad", audio=tmp_path / "none.wav")
    long = replace(utterances[1], id="long", text="low " * 200)
    write_manifest(tmp_path / "some.jsonl", [utterances[0], bad, long, utterances[2]])
    ended = run("align", model, tmp_path / "some.jsonl")
    assert ended.status == 1
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["id"] for row in rows] == [utterances[0].id, utterances[2].id]
    for row, utterance in zip(rows, (utterances[0], utterances[2]), strict=True):
        assert [word["word"] for word in row["words"]] == utterance.text.split()
    missing, too_long = ended.errors
    assert "none.wav" in missing
    assert re.search(r"long: expected at least \d+ frames, got \d+: check that text", too_long)


@pytest.mark.parametrize(
    ("format", "name", "start"),
    [("ctm", "talk.ctm", "talk 1 0."), ("textgrid", "talk.TextGrid", 'File type = "ooTextFile"')],
)
def test_align_a_recording(
    run: Command, tones: Tones, tmp_path: Path, format: str, name: str, start: str
) -> None:
    write_wav(tmp_path / "talk.wav", speak("low high"), RATE)
    (tmp_path / "talk.txt").write_text("low\nhigh\n")
    talk = [tones[1], tmp_path / "talk.wav", "--text", tmp_path / "talk.txt", "--format", format]
    assert run("align", *talk, "--out", tmp_path / "out").status == 0
    written = (tmp_path / "out" / name).read_text()
    assert written.startswith(start)
    assert run("align", *talk).out == written


def test_ctm_counts_from_the_beginning_of_the_recording(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    text = "low up down high up"
    samples = np.concatenate([np.zeros(2 * RATE, np.float32), speak(text, seed=3)])
    write_wav(tmp_path / "talk.wav", samples, RATE)
    whole = len(samples) / RATE
    stretch = Utterance("part-2", tmp_path / "talk.wav", text, whole - 2, start=2.0)
    write_manifest(tmp_path / "some.jsonl", [stretch])
    lines = run("align", tones[1], tmp_path / "some.jsonl", "--format", "ctm").out.splitlines()
    for line, word, middle in zip(lines, text.split(), true_middles(5), strict=True):
        name, _, start, duration, written = line.split()
        assert (name, written) == ("talk", word)
        assert abs(float(start) + float(duration) / 2 - 2 - middle) < 0.1
    row = json.loads(run("align", tones[1], tmp_path / "some.jsonl").out)
    assert (row["id"], row["words"][0]["start"] < 2) == ("part-2", True)


def test_recordings_of_one_name_are_told_apart_in_ctm(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_wav(tmp_path / folder / "x.wav", speak("low high", seed=5), RATE)
    write_wav(tmp_path / "a" / "y.wav", speak("low high", seed=5), RATE)
    lines = run("transcribe", tmp_path, "--model", tones[1], "--format", "ctm").out.splitlines()
    names = list(dict.fromkeys(line.split()[0] for line in lines))
    assert names == [f"{tmp_path}/a/x", "y", f"{tmp_path}/b/x"]


def test_what_cannot_be_aligned(run: Command, tones: Tones, tmp_path: Path) -> None:
    write_wav(tmp_path / "talk.wav", speak("low"), RATE)
    talk = tones[1], tmp_path / "talk.wav"
    assert "or give --text" in run("align", *talk).error()
    (tmp_path / "empty.txt").write_text(" \n")
    assert "got nothing in" in run("align", *talk, "--text", tmp_path / "empty.txt").error()
    missing = run("align", *talk, "--text", tmp_path / "none.txt").error()
    assert missing.endswith(
        "none.txt: expected text, got no such file: correct the path or the file"
    )
    (tmp_path / "marked.txt").write_text("\ufefflow", encoding="utf-8")
    assert run("align", *talk, "--text", tmp_path / "marked.txt").status == 0
    (tmp_path / "other.txt").write_text("łow")
    foreign = run("align", *talk, "--text", tmp_path / "other.txt").error()
    assert "got 'ł' in the text: spell it otherwise" in foreign
    assert foreign.count(": ") == 3  # one hint
    with pytest.raises(AlignmentError, match=r"^a: expected at least"):
        spelled_times("_a", "ab ab")


def test_ids_name_files_in_folders_and_one_that_cannot_is_left_out(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    (utterance, *_) = read_manifest(tones[0]["test"])
    ids = ["ann/hello", "../out", "/root", "ann//x", "a" * 300, "bob"]
    write_manifest(tmp_path / "ids.jsonl", [replace(utterance, id=id_) for id_ in ids])
    ended = run("align", tones[1], tmp_path / "ids.jsonl", "--out", tmp_path / "out")
    assert ended.status == 1
    assert len(ended.errors) == 4
    for id_, line in zip(ids[1:-1], ended.errors, strict=True):
        assert "can name a file" in line
        assert repr(id_) in line
    written = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {tmp_path / "out" / "ann" / "hello.json", tmp_path / "out" / "bob.json"}
    assert json.loads((tmp_path / "out" / "ann" / "hello.json").read_text())["id"] == "ann/hello"


def test_where_nothing_is_said(run: Command, tones: Tones, tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(RATE, np.float32), RATE)
    write_wav(tmp_path / "talk.wav", speak("low high", seed=5), RATE)
    files = tmp_path / "silence.wav", tmp_path / "talk.wav"
    ended = run("transcribe", *files, "--model", tones[1], "--format", "json")
    assert ended.status == 0
    assert [json.loads(line)["file"] for line in ended.out.splitlines()] == list(map(str, files))
    (utterance, *_) = read_manifest(tones[0]["test"])
    write_manifest(tmp_path / "empty.jsonl", [replace(utterance, text="")])
    row = json.loads(run("align", tones[1], tmp_path / "empty.jsonl").out)
    assert row["words"] == []


def test_transcripts_with_words(run: Command, tones: Tones, tmp_path: Path) -> None:
    bundle = load_bundle(tones[1])
    write_wav(tmp_path / "talk.wav", speak("low high up", seed=5), RATE)
    (plain,), (timed,) = (
        list(transcribe(bundle, [tmp_path / "talk.wav"], words=words)) for words in (False, True)
    )
    assert plain.words == ()
    assert " ".join(word.text for word in timed.words) == timed.text == plain.text
    for word in timed.words:
        assert word.confidence is not None
        assert 0 < word.confidence < 1
        assert 0 <= word.start < word.end <= timed.seconds + 1e-3
    arguments = "transcribe", tmp_path / "talk.wav", "--model", tones[1], "--format"
    lines = run(*arguments, "ctm").out.splitlines()
    assert [line.split()[4] for line in lines] == plain.text.split()
    (row,) = map(json.loads, run(*arguments, "json").out.splitlines())
    (segment,) = row["segments"]
    assert [word["confidence"] for word in segment["words"]] == [
        round(word.confidence or 0, 4) for word in timed.words
    ]
