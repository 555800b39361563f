"""The folder of an n-gram model: mapped from disk, complete, or refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from asr.errors import LanguageModelError
from asr.io.files import read_json
from asr.lm.estimate import estimate
from asr.lm.storage import ARRAYS, load_ngram, save_ngram
from tests.lm.test_ngram import TEXT


def test_a_folder_is_mapped_and_not_read(tmp_path: Path) -> None:
    save_ngram(tmp_path / "lm", estimate(TEXT, 3))
    loaded = load_ngram(tmp_path / "lm")
    stored = [getattr(loaded, name) for name in ARRAYS]
    assert all(isinstance(array, np.memmap) for array in stored)
    assert all(map(np.shares_memory, loaded.arrays, stored))
    assert not any(array.flags.writeable for array in loaded.arrays)


@pytest.mark.parametrize("name", ["words.bin", "log_probs.bin", "vocabulary.txt"])
def test_a_damaged_folder_never_loads(tmp_path: Path, name: str) -> None:
    save_ngram(tmp_path / "lm", estimate(TEXT, 3))
    path = tmp_path / "lm" / name
    whole = path.read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    for damaged in (flipped, whole[:-1], whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError, match=rf"{name}: expected \d+ bytes"):
            load_ngram(tmp_path / "lm")
    path.unlink()
    with pytest.raises(LanguageModelError, match=f"{name}, got no such file"):
        load_ngram(tmp_path / "lm")


@pytest.mark.parametrize("facts", ["", "[]", '{"format": 2}', '{"format": 1, "counts": [1]}'])
def test_a_folder_of_something_else(tmp_path: Path, facts: str) -> None:
    with pytest.raises(LanguageModelError, match="expected a language model, got"):
        load_ngram(tmp_path)
    (tmp_path / "ngram.json").write_text(facts)
    with pytest.raises(LanguageModelError, match="expected a language model of format 1"):
        load_ngram(tmp_path)


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    model = estimate(TEXT, 3)
    save_ngram(tmp_path / "lm", model)
    facts = read_json(tmp_path / "lm" / "ngram.json")
    assert tuple(facts["counts"]) == model.counts
    sizes = [file.stat().st_size for file in sorted((tmp_path / "lm").glob("*.bin"))]
    assert sum(sizes) == sum(row["bytes"] for n, row in facts["files"].items() if "bin" in n)
    assert list(itertools.chain(facts["files"])) == sorted(facts["files"])
