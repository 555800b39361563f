"""Language models whose checksums are right and whose content is not."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.errors import LanguageModelError
from asr.lm.arpa import read_arpa
from asr.lm.estimate import estimate
from asr.lm.soundness import find_fault
from asr.lm.storage import ARRAYS, load_ngram, save_ngram

TEXT = ["a b c a", "b c d", "a b d c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_ngram(tmp_path / "lm", estimate(TEXT, 3))
    return tmp_path / "lm"


def sealed(folder: Path, **changes: Any) -> None:
    """Make the checksums right."""
    facts = json.loads((folder / "ngram.json").read_text()) | changes
    for name in facts["files"]:
        content = (folder / name).read_bytes()
        facts["files"][name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    (folder / "ngram.json").write_text(json.dumps(facts))


def refusal(folder: Path) -> str:
    with pytest.raises(LanguageModelError) as caught:
        load_ngram(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def put(*values: tuple[Any, Any]) -> Callable[[NDArray[Any]], None]:
    def change(array: NDArray[Any]) -> None:
        for place, value in values:
            array[place] = value

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("first_child", put((slice(3, None), 1 << 40))),
        ("first_child", put((slice(3, 8), -1))),
        ("first_child", put((0, 0))),
        ("first_child", put((-1, 1 << 40))),
        ("first_child", put((2, 27))),
        ("suffixes", lambda a: put((slice(1, None), np.arange(1, len(a))))(a)),
        ("suffixes", put((slice(1, None), 1 << 30))),
        ("suffixes", put((-1, -1))),
        ("suffixes", put((-1, -(1 << 31)))),
        ("suffixes", put((-1, 20))),
        ("suffixes", put((0, 5))),
        ("words", put((-1, 7))),
        ("words", put((-1, -1))),
        ("words", put((slice(1, 8), 0))),
        ("words", put((slice(8, None), 3))),
        ("log_probs", put((5, np.nan))),
        ("log_probs", put((5, np.inf))),
        ("log_probs", put((5, 1.0))),
        ("log_probs", put((5, -3e38))),
        ("backoffs", put((5, np.nan))),
        ("backoffs", put((5, -np.inf))),
        ("backoffs", put((5, 3e38))),
    ],
)
def test_an_index_or_a_score_that_cannot_be_is_refused(
    name: str, change: Callable[[NDArray[Any]], None], folder: Path
) -> None:
    array = np.fromfile(folder / f"{name}.bin", ARRAYS[name])
    change(array)
    array.tofile(folder / f"{name}.bin")
    sealed(folder)
    assert name in refusal(folder)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("content", [b"", b"123", bytes(8), bytes(8000)])
def test_an_array_of_another_length_is_refused(name: str, content: bytes, folder: Path) -> None:
    (folder / f"{name}.bin").write_bytes(content)
    sealed(folder)
    refusal(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"<unk>\n", b"\xff\xfe", b"<unk>\n<s>\n</s>\na\na\nb\nc\n",
     b"<s>\n<unk>\n</s>\na\nb\nc\nd\n", b"x\n" * 100_000],
)  # fmt: skip
def test_another_vocabulary_is_refused(content: bytes, folder: Path) -> None:
    (folder / "vocabulary.txt").write_bytes(content)
    sealed(folder)
    refusal(folder)


@pytest.mark.parametrize(
    "counts",
    ["abc", [], [7], [7, -1], [7, 1 << 62], [7, 10.0], [True] * 3, [7] * 1000, {"1": 7}, None,
     [6, 11, 11], [7, 10, 12], [0, 17, 11]],
)  # fmt: skip
def test_other_counts_are_refused(counts: Any, folder: Path) -> None:
    sealed(folder, counts=counts)
    refusal(folder)


@pytest.mark.parametrize("files", [[], {}, {"vocabulary.txt": 3}, None])
def test_other_lists_of_files_are_refused(files: Any, folder: Path) -> None:
    facts = json.loads((folder / "ngram.json").read_text()) | {"files": files}
    (folder / "ngram.json").write_text(json.dumps(facts))
    refusal(folder)


def test_any_changed_byte_is_refused_or_harmless(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [*(f"{name}.bin" for name in ARRAYS), "vocabulary.txt"]
    outcomes = {True: 0, False: 0}
    for i in range(300):
        copy = tmp_path / str(i)
        shutil.copytree(folder, copy)
        path = copy / names[i % len(names)]
        content = bytearray(path.read_bytes())
        content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        sealed(copy)
        try:
            scores = load_ngram(copy).score_sentence(["a", "b", "c", "zz", "d"])
            assert all(score.log_prob < 1e6 for score in scores)
            outcomes[True] += 1
        except LanguageModelError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_sound_models_of_any_order_are_sound(order: int, tmp_path: Path) -> None:
    text = ["a b c d e f", *TEXT]
    for model in (estimate(text, order), estimate(text, order, cutoffs=[9], closed=True)):
        assert find_fault(model) is None
        save_ngram(tmp_path / "a.arpa", model)
        assert find_fault(read_arpa(tmp_path / "a.arpa")) is None


def test_pieces_of_large_arrays_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    model = estimate(["a b c d e f", *TEXT], 4)
    changed = [model]
    for place in range(1, len(model.words)):
        words = model.words.copy()
        words[place] = 8 - words[place]
        changed.append(replace(model, words=words))
    whole = [find_fault(each) is None for each in changed]
    assert whole[0]
    assert not all(whole)
    for size in (1, 2, 3, 7):
        monkeypatch.setattr("asr.lm.soundness.PIECE", size)
        assert [find_fault(each) is None for each in changed] == whole


HEADER = "\\data\\\nngram 1={}\n\n\\1-grams:\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER.format("9" * 5000),
        HEADER.format("9" * 17) + "-1\ta\n\n\\end\\\n",
        "\\data\\\nngram 99999999999999999999=1\n",
        HEADER.format(1) + "-1\ta\t1e308\n\n\\end\\\n",
        HEADER.format(1) + "-1\ta\tnan\n\n\\end\\\n",
        HEADER.format(1) + "nan\ta\n\n\\end\\\n",
        HEADER.format(1) + "9" * 400 + "\ta\n\n\\end\\\n",
    ],
    ids=range(7),
)
def test_numbers_of_any_size_in_arpa_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.arpa").write_text(text)
    with pytest.raises(LanguageModelError) as caught:
        read_arpa(tmp_path / "a.arpa")
    assert "\n" not in str(caught.value)


def test_a_line_without_an_end_takes_little_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.arpa.gz", "wb") as file:
        file.write(b"\\data\\\n")
        for _ in range(40):
            file.write(b"n" * (1 << 20))
    with pytest.raises(LanguageModelError, match="line 2: expected an n-gram per line"):
        read_arpa(tmp_path / "a.arpa.gz")
