"""Data folders of Kaldi: texts, speakers, segments, and pipes, which are not run.

Covers `asr/dataset/kaldi.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.dataset.importers import detect, read_source
from asr.dataset.kaldi import decoded_file
from asr.errors import AsrError
from tests.dataset.test_importers import SPEAKERS, check, texts
from tests.tones import write_recordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_recordings(tmp_path / "rec", SPEAKERS)
    return tmp_path / "rec"


def kaldi(folder: Path) -> dict[str, str]:
    spoken = texts(folder)
    (folder / "text").write_text("".join(f"{n} {t}\n" for n, t in spoken.items()))
    (folder / "wav.scp").write_text("".join(f"{n} {n[:3]}/{n}.wav\n" for n in spoken))
    (folder / "utt2spk").write_text("".join(f"{n} {n[:3]}\n" for n in spoken))
    return spoken


def test_kaldi(folder: Path) -> None:
    spoken = kaldi(folder)
    assert detect(folder) == "Kaldi"
    check(read_source(folder), spoken, speakers=True)
    (folder / "utt2spk").write_text("".join(f"{n} {n}\n" for n in spoken))
    check(read_source(folder), spoken, speakers=False)
    (folder / "utt2spk").unlink()
    (folder / "text").write_text("ann00\nann01 low\nghost low\n")
    found = read_source(folder)
    assert [u.id for u in found.utterances] == ["ann01"]
    assert len(found.left_out) == 4


def test_kaldi_segments(folder: Path) -> None:
    kaldi(folder)
    (folder / "text").write_text("a low\nb up\n")
    (folder / "segments").write_text("a ann00 0.0 0.2\nb ann00 0.2 -1\nc ben00 0 1\n")
    found = read_source(folder)
    assert [(u.id, u.start, u.end) for u in found.utterances] == [("a", 0, 0.2), ("b", 0.2, None)]
    assert [item.name for item in found.left_out] == ["c"]
    (folder / "segments").write_text("a ann00 0.0 0.2\nb ann00 0.2\n")
    with pytest.raises(AsrError, match="segments:2"):
        read_source(folder)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("flac -c -d -s a.flac", "a.flac"),
        ("/usr/bin/flac -cds 'my talk.flac'", "my talk.flac"),
        ("sox a.ogg -t wav -r 16000 -c 1 -b 16 -", "a.ogg"),
        ("sph2pipe -f wav -p a.sph", "a.sph"),
        ("ffmpeg -nostdin -i a.mp3 -ar 16000 -ac 1 -f wav -", "a.mp3"),
        ("cat a.wav", "a.wav"),
        ("sox a.wav -t wav - speed 0.9", None),
        ("sox -v 0.5 a.wav -t wav -", None),
        ("sox a.wav b.wav -t wav -", None),
        ("sph2pipe -f wav -p -c 2 a.sph", None),
        ("ffmpeg -ss 3 -i a.mp3 -f wav -", None),
        ("flac -c -d --skip=1 a.flac", None),
        ("cat a.wav; rm -rf x", None),
        ("cat $(ls)", None),
        ("sox a.wav -t wav - | wav-reverberate - -", None),
        ("rm a.wav", None),
        ("cat 'a.wav", None),
        ("", None),
    ],
)
def test_only_commands_that_decode_one_file_are_understood(command: str, file: str | None) -> None:
    assert decoded_file(command) == file


def test_kaldi_pipes_are_never_run(folder: Path) -> None:
    kaldi(folder)
    (folder / "text").write_text("a low\nb low\nc low\nd low\n")
    (folder / "wav.scp").write_text(
        f"a cat ann/ann00.wav |\nb touch {folder}/ran |\nc raw.ark:12\nd none.wav\n"
    )
    found = read_source(folder)
    assert [(u.id, u.audio.name) for u in found.utterances] == [("a", "ann00.wav")]
    assert not (folder / "ran").exists()
    why = {item.name.split()[0]: item.why for item in found.left_out}
    assert "commands are not run" in why["b"]
    assert "archive of Kaldi" in why["c"]
    assert why["d"] == "no such recording: none.wav"


def test_kaldi_speakers_by_list_and_segments_of_channels(folder: Path) -> None:
    spoken = kaldi(folder)
    (folder / "utt2spk").unlink()
    lists = "".join(
        f"{who} {' '.join(n for n in spoken if n[:3] == who)}\n" for who in ("ann", "ben")
    )
    (folder / "spk2utt").write_text(lists)
    found = read_source(folder)
    assert {u.id: u.speaker for u in found.utterances} == {n: n[:3] for n in spoken}
    assert found.speakers == "spk2utt"
    (folder / "segments").write_text("ann00 ann00 0 0.2 1\nann01 ann01 0 -1.000\n")
    found = read_source(folder)
    assert [(u.id, u.end) for u in found.utterances] == [("ann01", None)]
    assert "names a channel" in found.left_out[0].why
