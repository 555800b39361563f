"""Folders with links, and names in either Unicode form, wherever files are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from asr.audio.files import AUDIO_SUFFIXES, find_audio
from asr.audio.load import load_audio, write_wav
from asr.augment.config import AugmentConfig, NoiseConfig
from asr.augment.noise import load_sounds
from asr.dataset.importers import read_source
from asr.dataset.manifest import Utterance
from asr.dataset.validate import check_audio
from asr.io.paths import as_stored, files_below
from tests.recordings import tone

NFC, NFD = "für", "fu\u0308r"


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    made(tmp_path, "store/ben/b.wav", "store/ben/deep/c.wav", "corpus/ann/a.wav")
    (tmp_path / "corpus" / "ben").symlink_to("../store/ben")
    (tmp_path / "corpus" / "file.wav").symlink_to("ann/a.wav")
    assert names_below(tmp_path / "corpus") == [
        "ann/a.wav",
        "ben/b.wav",
        "ben/deep/c.wav",
        "file.wav",
    ]
    (tmp_path / "whole").symlink_to("corpus")
    assert len(files_below(tmp_path / "whole")) == 4


def test_circles_end_and_a_folder_counts_once(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    made(tmp_path, "corpus/z/ann/a.wav", "corpus/b.wav", "beside.wav")
    (corpus / "again").symlink_to("z/ann")  # comes first, but is another way to the same
    (corpus / "z" / "self").symlink_to(".")
    (corpus / "z" / "up").symlink_to("..")
    (corpus / "z" / "out").symlink_to("../..")  # what holds the corpus is no part of it
    (corpus / "z" / "root").symlink_to("/")
    (corpus / "nowhere").symlink_to("missing")
    assert names_below(corpus) == ["b.wav", "nowhere", "z/ann/a.wav"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").symlink_to("../corpus")
    (corpus / "y").symlink_to("../other")
    assert names_below(corpus) == ["b.wav", "nowhere", "z/ann/a.wav"]


def test_what_begins_with_a_dot_is_left_out(tmp_path: Path) -> None:
    made(tmp_path, "a.wav", "._a.wav", ".cache/b.wav")
    assert names_below(tmp_path) == ["a.wav"]


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a.wav", "closed/b.wav")
    scandir = os.scandir

    def refuse(path: str) -> object:  # root, as whom tests may run, can read everything
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said: list[str] = []
    assert files_below(tmp_path, said.append) == [tmp_path / "a.wav"]
    assert said == [f"{tmp_path}/closed: Permission denied; its files are left out"]
    with pytest.raises(PermissionError):
        files_below(tmp_path)


def test_every_suffix_is_found_and_other_files_are_named(tmp_path: Path) -> None:
    recordings = [f"{number}{suffix.upper()}" for number, suffix in enumerate(AUDIO_SUFFIXES)]
    made(tmp_path, *recordings, "a.txt", "b.lab", "film.xyz", "notes\n.pdf")
    said: list[str] = []
    assert len(find_audio([tmp_path], said.append)) == len(recordings)
    assert said == [
        f"{tmp_path}: skipped 2 files, neither recordings nor texts: film.xyz, notes\\n.pdf"
    ]
    made(tmp_path, *(f"x{number}.dat" for number in range(20)))
    said.clear()
    find_audio([tmp_path], said.append)
    assert "skipped 22 files" in said[0]
    assert said[0].endswith("and 12 more")


@pytest.mark.parametrize(("stored", "asked"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_names_meet_in_either_form(stored: str, asked: str, tmp_path: Path) -> None:
    folder = tmp_path / stored
    write_wav(folder / f"{stored}.wav", tone(0.5, 16000), 16000)
    there, wanted = folder / f"{stored}.wav", tmp_path / asked / f"{asked}.wav"
    assert as_stored(wanted) == there
    assert find_audio([wanted]) == [there]
    assert find_audio([tmp_path / asked]) == [there]
    assert len(load_audio(wanted)) == 8000
    assert not check_audio(Utterance("a", wanted, "yes", 0.5))[1]


def test_a_path_of_both_forms(tmp_path: Path) -> None:
    made(tmp_path, f"{NFD}/{NFC}.wav")
    assert as_stored(tmp_path / NFC / f"{NFD}.wav") == tmp_path / NFD / f"{NFC}.wav"
    both = tmp_path / NFC / f"{NFC}.wav"
    made(tmp_path, f"{NFC}/{NFC}.wav")
    assert as_stored(both) == both
    missing = tmp_path / f"{NFD} {NFC}.wav"
    assert as_stored(missing) == missing


def speech(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_wav(folder / f"{name}.wav", tone(0.5, 16000) * (number + 1) / 20, 16000)


@pytest.mark.parametrize(("recording", "text"), [(NFC, NFD), (NFD, NFC)])
def test_a_recording_meets_its_text(recording: str, text: str, tmp_path: Path) -> None:
    for place in (tmp_path / "beside", tmp_path / "apart"):
        speech(place, recording)
    made(tmp_path, f"beside/{text}.txt", f"beside/{text}.lab", f"apart/texts/{text}.txt")
    for place in (tmp_path / "beside", tmp_path / "apart"):
        source = read_source(place)
        assert len(source.utterances) == 1
        assert not source.left_out


@pytest.mark.parametrize(("recording", "row"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize("suffix", ["", ".wav"])
def test_a_table_meets_its_recordings(
    recording: str, row: str, suffix: str, tmp_path: Path
) -> None:
    speech(tmp_path / "wavs", recording)
    (tmp_path / "t.csv").write_text(f"path,sentence\n{row}{suffix},yes\n", encoding="utf-8")
    source = read_source(tmp_path / "t.csv")
    assert [u.audio for u in source.utterances] == [tmp_path / "wavs" / f"{recording}.wav"]


def test_kaldi_meets_its_recordings(tmp_path: Path) -> None:
    speech(tmp_path, NFD)
    (tmp_path / "wav.scp").write_text(f"a {NFC}.wav\n", encoding="utf-8")
    (tmp_path / "text").write_text("a yes\n", encoding="utf-8")
    assert len(read_source(tmp_path).utterances) == 1


def test_linked_speakers_and_other_files_of_a_source(tmp_path: Path) -> None:
    speech(tmp_path / "corpus" / "ann", "a")
    speech(tmp_path / "store" / "ben", "b")
    made(tmp_path, "corpus/ann/a.txt", "store/ben/b.txt", "corpus/list.pdf")
    (tmp_path / "corpus" / "ben").symlink_to("../store/ben")
    source = read_source(tmp_path / "corpus")
    assert [u.speaker for u in source.utterances] == ["ann", "ben"]
    assert source.note == "skipped 1 file, neither recordings nor texts: list.pdf"


def test_noise_in_linked_folders(tmp_path: Path) -> None:
    speech(tmp_path / "store", "a")
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "kind").symlink_to("../store")
    made(tmp_path / "noise", "odd.bin")
    augment = AugmentConfig(noise=NoiseConfig(folder=tmp_path / "noise"))
    with pytest.warns(UserWarning, match=r"noise: skipped 1 file.*odd\.bin"):
        sounds = load_sounds(augment, 16000)
    assert len(sounds.noise) == 8000
    assert np.abs(sounds.noise.numpy()).max() > 0
