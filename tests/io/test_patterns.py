"""Patterns of paths that the shell has left to the program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asr.audio.files import find_audio
from asr.errors import AudioError
from asr.io.patterns import expanded

FILES = (
    "a.wav",
    "b.flac",
    "deep/c.wav",
    "deep/er/d.wav",
    "deep/er/.hidden.wav",
    "e[1].wav",
    "e1.wav",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["a.wav", "e1.wav", "e[1].wav"]),
        ("?.*", ["a.wav", "b.flac"]),
        ("**/*.wav", ["a.wav", "deep/c.wav", "deep/er/d.wav", "e1.wav", "e[1].wav"]),
        ("deep/**/*.wav", ["deep/c.wav", "deep/er/d.wav"]),
        ("deep/**/er/*.wav", ["deep/er/d.wav"]),
        ("*/*.wav", ["deep/c.wav"]),
        ("deep/er/.*.wav", ["deep/er/.hidden.wav"]),
        ("d*p", ["deep"]),
        ("deep/**", ["deep"]),
        ("[ab].*", ["a.wav", "b.flac"]),
        ("e[1].wav", ["e[1].wav"]),  # a real name
        ("e[12].wav", ["e1.wav"]),
        ("a.wav/*", []),
        ("missing/*.wav", []),
        ("*.mp3", []),
    ],
)
def test_what_a_pattern_matches(folder: Path, pattern: str, expected: list[str]) -> None:
    assert [path.as_posix() for path in expanded(pattern)] == expected
    assert expanded(folder / pattern) == [folder / name for name in expected]


def test_brackets_in_the_name_of_a_folder(folder: Path) -> None:
    (folder / "calls [2020]").mkdir()
    (folder / "calls [2020]" / "f.wav").touch()
    assert expanded("calls [2020]/*.wav") == [Path("calls [2020]/f.wav")]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_loop_end(folder: Path) -> None:
    for name in ("x", "y"):  # two loops: 2^40 paths until the system refuses
        (folder / "deep" / name).symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    names = [path.as_posix() for path in expanded("**/*.wav")]
    assert names == ["a.wav", "deep/c.wav", "deep/er/d.wav", "e1.wav", "e[1].wav", "gone.wav"]
    assert len(expanded("deep/**/*.wav")) == 6


def test_recordings_by_a_pattern(folder: Path) -> None:
    found = find_audio(["e[1].wav", "**/*.wav", "d*"])
    assert [p.as_posix() for p in found] == [
        "e[1].wav", "a.wav", "deep/c.wav", "deep/er/d.wav", "e1.wav",
    ]  # fmt: skip
    with pytest.raises(AudioError, match=r"^calls/\*\.wav: expected a pattern .* got no match"):
        find_audio(["calls/*.wav"])


def test_a_name_in_the_other_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "Gru\u0308n1.wav").touch()
    assert len(expanded(tmp_path / "Gr\u00fcn*.wav")) == 1
