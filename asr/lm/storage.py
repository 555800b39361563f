"""An n-gram model as a folder of plain arrays, which are mapped into memory.

ngram.json       format version, n-grams of each length, size and CRC-32 of every other file
vocabulary.txt   one word per line
*.bin            the arrays of `NgramModel`, little endian
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import LanguageModelError, reason
from asr.io.files import atomic_path, check_replaceable, read_json, write_json
from asr.io.foreign import which_is
from asr.lm.arpa import LONGEST, read_arpa, write_arpa
from asr.lm.ngram import NgramModel
from asr.lm.soundness import find_fault

FORMAT = 1
ARPA_ENDINGS = (".arpa", ".arpa.gz")
ARRAYS = {"words": "<i4", "log_probs": "<f4", "backoffs": "<f4", "first_child": "<i8",
          "suffixes": "<i4"}  # fmt: skip
CHUNK = 1 << 24  # bytes
MOST_NODES = 1 << 31  # the largest number of nodes that the arrays can index


def save_ngram(
    path: str | Path, model: NgramModel, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the model: as ARPA if the name ends in .arpa or .arpa.gz, else as a folder."""
    if str(path).endswith(ARPA_ENDINGS):
        write_arpa(path, model, progress)
        return
    check_replaceable(path, "ngram.json")
    with atomic_path(path) as temporary:
        temporary.mkdir()
        names = temporary / "vocabulary.txt"
        names.write_text("".join(f"{word}\n" for word in model.vocabulary), encoding="utf-8")
        for name, kind in ARRAYS.items():
            # Not `tofile`, whose error does not report a full disk.
            values = np.ascontiguousarray(getattr(model, name), kind)
            (temporary / f"{name}.bin").write_bytes(values.data)
        files = {
            file.name: {"bytes": file.stat().st_size, "crc32": _checksum(file)}
            for file in sorted(temporary.iterdir())
        }
        write_json(
            temporary / "ngram.json",
            {"format": FORMAT, "counts": list(model.counts), "files": files},
        )


def is_ngram(path: Path) -> bool:
    """Whether this is the folder of an n-gram model, or a file, the form of ARPA models."""
    return path.is_file() or (path / "ngram.json").is_file()


def load_ngram(path: str | Path, progress: Callable[[int, int], None] | None = None) -> NgramModel:
    """Open a folder that `save_ngram` wrote, or read an ARPA file.

    Every byte and every link of a folder is checked; the arrays stay on disk.

    Raises LanguageModelError naming the missing, malformed or damaged file.
    """
    path = Path(path)
    if not path.is_dir():
        return read_arpa(path, progress)
    facts = _facts(path / "ngram.json")
    for name, expected in facts["files"].items():
        file = path / name
        if not file.is_file():
            raise LanguageModelError(f"expected {file}, got no such file: copy the folder whole")
        got = {"bytes": file.stat().st_size, "crc32": _checksum(file)}
        if got != expected:
            raise LanguageModelError(
                f"{file}: expected {expected['bytes']} bytes with checksum {expected['crc32']}, "
                f"got {got['bytes']} with {got['crc32']}: copy it again"
            )
    try:
        arrays: dict[str, NDArray[Any]] = {
            name: np.memmap(path / f"{name}.bin", kind, "r") for name, kind in ARRAYS.items()
        }
        # Not splitlines: it would also split at characters that belong to words.
        vocabulary = (path / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
        model = NgramModel(tuple(vocabulary), tuple(facts["counts"]), **arrays)
        fault = find_fault(model)
    except ValueError as error:  # invalid UTF-8, empty files, or files with incomplete numbers
        fault = reason(error)
    if fault:
        raise LanguageModelError(f"{path}: {fault}: copy the folder again, or estimate it again")
    return model


def _facts(path: Path) -> dict[str, Any]:
    expected = {"vocabulary.txt", *(f"{name}.bin" for name in ARRAYS)}
    try:
        facts = read_json(path)
        counts = facts["counts"]
        if (
            facts["format"] == FORMAT
            and facts["files"].keys() == expected
            and isinstance(counts, list)
            and 1 <= len(counts) <= LONGEST
            and all(type(count) is int and 0 <= count < MOST_NODES for count in counts)
            and all(row.keys() == {"bytes", "crc32"} for row in facts["files"].values())
        ):
            return dict(facts)
    except FileNotFoundError:
        raise LanguageModelError(
            f"expected a language model, got {path.parent} without {path.name}"
            f"{which_is(path.parent)}: correct the path"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise LanguageModelError(
        f"{path}: expected a language model of format {FORMAT}, got something else: "
        "estimate it again"
    )


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            checksum = zlib.crc32(piece, checksum)
    return checksum
