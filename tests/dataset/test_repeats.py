"""The same recording never lies in two parts of a split, and is named where it does.

Covers `asr/dataset/splits.py`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.repeats import joined, recording_keys
from asr.dataset.splits import split_utterances
from asr.dataset.validate import check_manifests
from asr.project.new import new_project
from tests.commands import Command

PARTS = ("train", "dev", "test")


def noise(path: Path, seed: int, seconds: float = 1.0) -> Path:
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, random.normal(0, 0.1, round(16000 * seconds)).astype(np.float32), 16000)
    return path


def made(project: Path, source: Path) -> str:
    said: list[str] = []
    new_project(project, source, said.append)
    return "\n".join(said)


def contents(project: Path) -> dict[str, set[bytes]]:
    """The samples in each part."""
    found = {}
    for part in PARTS:
        waves = [soundfile.read(u.audio)[0] for u in read_manifest(project / f"{part}.jsonl")]
        found[part] = {(wave * 32768).round().astype(np.int16).tobytes() for wave in waves}
    return found


def assert_apart(project: Path) -> None:
    found = contents(project)
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    paths = [project / f"{part}.jsonl" for part in PARTS]
    assert not [p for p in check_manifests(paths).problems if p.kind == "same recording"]


def spans(*stretches: tuple[float, float | None], audio: str = "a.wav") -> list[Utterance]:
    return [
        Utterance(f"{audio}{n}", Path(audio), "yes", 1.0, start=start, end=end)
        for n, (start, end) in enumerate(stretches)
    ]


@pytest.mark.parametrize(
    ("stretches", "labels"),
    [
        ([(0, None), (0, None)], [0, 0]),
        ([(0, None), (3, 4)], [0, 0]),
        ([(0, 2), (2, 4)], [0, 1]),
        ([(0, 5), (4.8, 9)], [0, 1]),  # silence at the edges
        ([(0, 5), (4.4, 9)], [0, 0]),
        ([(0, 1), (0.7, 1.7)], [0, 0]),  # a third of either
        ([(0, 9), (2, 2.4), (20, 21)], [0, 0, 2]),
        ([(5, 9), (0, 3), (2, 6)], [0, 0, 0]),  # a chain
    ],
)
def test_stretches_that_overlap_are_one_recording(
    stretches: list[tuple[float, float | None]], labels: list[int]
) -> None:
    assert joined(recording_keys(spans(*stretches), {})) == labels


def test_links_suffixes_and_equal_samples_are_one_recording(tmp_path: Path) -> None:
    first = noise(tmp_path / "u1.wav", 0)
    (tmp_path / "link.wav").symlink_to(first)
    names = ["u1.wav", "u1.FLAC", "link.wav", "copy.wav", "u1.part.wav", "sub/u1.wav"]
    utterances = [Utterance(n, tmp_path / n, "yes", 1.0) for n in names]
    sounds = {"u1.wav": "x", "copy.wav": "x", "sub/u1.wav": "y"}
    assert joined(recording_keys(utterances, sounds)) == [0, 0, 0, 0, 4, 5]


@pytest.mark.parametrize("speakers", [False, True])
def test_two_transcripts_of_a_recording_stay_together(tmp_path: Path, speakers: bool) -> None:
    rows = ["path,text" + (",speaker" if speakers else "")]
    for n in range(18):
        noise(tmp_path / "wavs" / f"u{n}.wav", n)
        for text in ("ride to school", "ride to the school"):
            rows.append(f"wavs/u{n}.wav,{text}" + (f",s{n % 6}" if speakers else ""))
    (tmp_path / "two.csv").write_text("\n".join(rows))
    assert "no problems" in made(tmp_path / "p", tmp_path / "two.csv")
    assert_apart(tmp_path / "p")


def test_annotators_that_are_given_as_speakers_are_not_split(tmp_path: Path) -> None:
    rows = ["path,text,speaker"]
    for n in range(18):
        noise(tmp_path / f"u{n}.wav", n)
        rows += [f"u{n}.wav,yes,{who}" for who in ("ann", "ben", "cid")]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    made(tmp_path / "p", tmp_path / "t.csv")
    assert_apart(tmp_path / "p")


def test_copies_in_other_formats_and_under_other_names_stay_together(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    for n in range(12):
        wav = noise(folder / f"u{n}.wav", n)
        samples, rate = soundfile.read(wav, dtype="int16")
        soundfile.write(folder / f"u{n}.flac", samples, rate)
        soundfile.write(folder / f"other{n}.flac", samples, rate)
        shutil.copy(wav, folder / f"copy{n}.wav")
        for name in ("u", "other", "copy"):
            (folder / f"{name}{n}.txt").write_text("yes")
    assert "no problems" in made(tmp_path / "p", folder)
    assert_apart(tmp_path / "p")


def test_a_copy_of_what_is_marked_for_testing_is_not_learnt(tmp_path: Path) -> None:
    # The name of pytest's own folder would mark everything.
    folder = tmp_path / "a" / "b" / "c" / "rec"
    for n in range(20):
        noise(folder / "rest" / f"u{n}.wav", n)
        (folder / "rest" / f"u{n}.txt").write_text("yes")
    for n in range(5):
        (folder / "test").mkdir(exist_ok=True)
        shutil.copy(folder / "rest" / f"u{n}.wav", folder / "test" / f"t{n}.wav")
        (folder / "test" / f"t{n}.txt").write_text("yes")
    made(folder.parent / "p", folder)
    assert_apart(folder.parent / "p")
    test = {u.audio.stem for u in read_manifest(folder.parent / "p" / "test.jsonl")}
    assert {f"t{n}" for n in range(5)} <= test


def test_one_recording_alone_is_split_and_told(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 0)
    (tmp_path / "t.csv").write_text("path,text\n" + "a.wav,yes\n" * 12)
    said = made(tmp_path / "p", tmp_path / "t.csv")
    assert "the same recordings are in several parts" in said
    manifests = [tmp_path / "p" / f"{part}.jsonl" for part in PARTS]
    assert {p.kind for p in check_manifests(manifests).problems} == {"same recording"}


def test_the_split_of_different_recordings_is_what_it_was() -> None:
    """The choice by ids and speakers is not changed where no recording repeats."""
    many = [Utterance(f"u{n}", Path(f"{n}.wav"), "yes", 9.0, f"s{n % 7}") for n in range(70)]
    split = split_utterances(many)
    assert not split.repeated
    assert {name: {u.speaker for u in split.parts[name]} for name in PARTS} == {
        "train": {"s0", "s1", "s2", "s4", "s6"}, "dev": {"s3"}, "test": {"s5"},
    }  # fmt: skip


def test_check_names_recordings_in_two_manifests(run: Command, tmp_path: Path) -> None:
    wav = noise(tmp_path / "u1.wav", 0, seconds=4.0)
    samples, rate = soundfile.read(wav, dtype="int16")
    soundfile.write(tmp_path / "other.flac", samples, rate)
    whole = Utterance("u1", wav, "yes", 4.0)
    write_manifest(tmp_path / "train.jsonl", [whole, replace(whole, id="again", text="yes no")])
    write_manifest(tmp_path / "dev.jsonl", [replace(whole, id="x", audio=tmp_path / "other.flac")])
    part = replace(whole, id="part", start=1.0, end=2.0, duration=1.0)
    write_manifest(
        tmp_path / "test.jsonl", [part, Utterance("new", noise(tmp_path / "n.wav", 1), "no", 1.0)]
    )
    ended = run("check", *(tmp_path / f"{name}.jsonl" for name in PARTS))
    assert ended.status == 1
    assert "same recording: 2" in ended.out
    assert f"as u1 at {tmp_path / 'train.jsonl'}:1" in ended.out


# --- stretches past the end ---


@pytest.mark.parametrize("form", ["Kaldi", "table", "NeMo"])
def test_a_stretch_past_the_end_is_left_out_by_name(tmp_path: Path, form: str) -> None:
    ends = {
        f"u{n}": 1.9 if n < 11 else 2.4 if n == 11 else 2.6 if n == 12 else 99 for n in range(14)
    }
    for n, name in enumerate(ends):
        noise(tmp_path / f"{name}.wav", n, seconds=2.0)
    if form == "Kaldi":
        source = tmp_path
        (tmp_path / "wav.scp").write_text("".join(f"{n} {n}.wav\n" for n in ends))
        (tmp_path / "text").write_text("".join(f"{n} yes\n" for n in ends))
        (tmp_path / "segments").write_text("".join(f"{n} {n} 0.5 {e}\n" for n, e in ends.items()))
    elif form == "table":
        source = tmp_path / "t.csv"
        rows = [f"{n},{n}.wav,yes,0.5,{e}" for n, e in ends.items()]
        source.write_text("\n".join(["id,path,text,start,end", *rows]))
    else:
        source = tmp_path / "t.json"
        row = '{{"audio_filepath": "{0}.wav", "text": "yes", "offset": 0.5, "duration": {1}}}'
        source.write_text("\n".join(row.format(n, e - 0.5) for n, e in ends.items()))
    said = made(tmp_path / "p", source)
    assert "left out: 2" in said
    listed = (tmp_path / "p" / "left-out.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == ["u12", "u13"]
    assert "u13: ends at 99 s, 97.0 s after the end of" in listed[1]
    kept = {u.id: u for part in PARTS for u in read_manifest(tmp_path / "p" / f"{part}.jsonl")}
    assert (kept["u11"].end, kept["u11"].duration) == (2.0, 1.5)


def test_check_names_a_stretch_past_the_end_whatever_its_duration(tmp_path: Path) -> None:
    wav = noise(tmp_path / "a.wav", 0, seconds=2.0)
    rows = [
        Utterance("ok", wav, "yes", 1.0, start=1.0, end=2.3),
        Utterance("past", wav, "yes", 1.0, start=1.0, end=99.0),
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    problems = check_manifests([tmp_path / "m.jsonl"]).problems
    assert [(p.kind, p.id) for p in problems] == [("past the end", "past")]
    assert os.fspath(wav) in problems[0].detail
