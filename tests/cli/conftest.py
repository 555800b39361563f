"""Recordings in folders, for the tests of commands that read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asr.dataset.manifest import read_manifest


@pytest.fixture
def tree(tmp_path: Path, tones: tuple[dict[str, Path], Path]) -> Path:
    """Recordings whose names are equal but for their folders and suffixes."""
    audio = [u.audio for u in read_manifest(tones[0]["test"])]
    tree = tmp_path / "tree"
    for source, name in zip(audio, ("a/x.wav", "b/x.wav", "b/x.flac", "y.wav"), strict=False):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tree / name)
    return tree
