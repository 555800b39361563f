"""Outputs never share a name, never leave their folder and never replace a recording.

Covers `asr/inference/output_names.py`.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.inference.output_folder import OutputFolder, settings_digest
from asr.inference.output_names import LONGEST_NAME, output_names
from asr.inference.transcript import Segment, Transcript

parts = st.sampled_from(["a", "b", "A", "x.wav", "x", "X", "é", "e\u0301", "a b", "..a", "n\n"])
names = st.builds(
    lambda folders, stem, suffix: Path("talks", *folders, stem + suffix),
    st.lists(parts, max_size=2),
    parts | st.just("x" * 250),
    st.sampled_from([".wav", ".mp3", ".WAV", ""]),
)


def key(name: PurePath) -> str:
    return unicodedata.normalize("NFC", name.as_posix()).casefold()


@given(st.lists(names, unique=True, max_size=12), st.lists(names, unique=True, max_size=4))
def test_no_two_outputs_share_a_name(below: list[Path], alone: list[Path]) -> None:
    found = [(Path("talks"), below), *((path, [path]) for path in alone)]
    made = output_names(found)
    assert set(made) == {*below, *alone}
    assert len(set(map(key, made.values()))) == len(made)
    for name in made.values():
        assert not name.is_absolute()
        assert ".." not in name.parts
        assert len(os.fsencode(name.name)) <= LONGEST_NAME + 9


def test_folders_below_an_argument_are_kept() -> None:
    def named(*arguments: tuple[str, list[str]]) -> list[str]:
        found = [(Path(root), list(map(Path, paths))) for root, paths in arguments]
        return [name.as_posix() for name in output_names(found).values()]

    assert named(("t", ["t/x.wav", "t/a/x.wav", "t/a/x.mp3"])) == ["x", "a/x.wav", "a/x.mp3"]
    assert named(("t/x.wav", ["t/x.wav"]), ("u", ["u/v/y.wav"])) == ["x", "v/y"]
    # As a shell expands t/*/x.wav.
    assert named(("t/a/x.wav", ["t/a/x.wav"]), ("t/b/x.wav", ["t/b/x.wav"])) == ["a/x", "b/x"]
    assert named(("t/a", ["t/a/x.wav"]), ("t/b", ["t/b/x.wav"])) == ["a/x", "b/x"]
    assert named(("..", ["../b/x.wav"]), (".", ["y.wav"])) == ["b/x", "y"]
    first, second = named(("t", ["t/x.wav", "t/X.wav"]))
    assert first.startswith("x.wav-")
    assert second.startswith("X.wav-")


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "a").symlink_to(other)
    recording = tmp_path / "t" / "a" / "x.wav"
    names = output_names([(tmp_path / "t", [recording])])
    folder = OutputFolder(out, names, {recording: "x"}, ["txt"])
    with pytest.raises(AsrError, match="a link out of it"):
        folder.write(recording, Transcript(recording, (Segment(0, 1, "yes"),), 1.0))
    assert list(other.iterdir()) == []


def test_the_digest_is_of_what_files_hold(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "lm").mkdir(parents=True)
        (tmp_path / name / "lm" / "model").write_text("same")
    one, two = ({"model": tmp_path / name, "beam": 3} for name in ("one", "two"))
    assert settings_digest(one) == settings_digest(two)
    assert settings_digest(one) != settings_digest(one | {"beam": 4})
    (tmp_path / "two" / "lm" / "model").write_text("other")
    assert settings_digest(one) != settings_digest(two)
    with pytest.raises(FileNotFoundError):
        settings_digest({"model": tmp_path / "absent"})
