"""ARPA files: the common text format of n-gram models.

Their scores are logarithms to base 10; -99 stands for probability zero.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from asr.errors import LanguageModelError, reason
from asr.io.files import atomic_path
from asr.io.foreign import kind_of
from asr.lm.ngram import SPECIAL, START_ID, UNKNOWN_ID, Ints, Level, NgramModel, assemble

LN10 = math.log(10)
NEVER = -99.0
LARGEST = 1e4  # backoff weight, to base 10, so that no sum of weights can overflow
PROGRESS_EVERY = 10_000  # n-grams
LONGEST = 32  # words in an n-gram
LONGEST_LINE = 1 << 20  # characters
WHITESPACE = " \t\r\n"
"""Field separators, as in KenLM (lm/read_arpa.cc). Words may contain any other space, such as a
no-break or ideographic space, U+0085, or a vertical tab."""


def open_text(path: Path, mode: str, compressed: bool) -> IO[str]:
    """A text file in UTF-8, to read ("rt"; a byte order mark is ignored) or write ("wt")."""
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    if compressed:
        return cast(IO[str], gzip.open(path, mode, encoding=encoding))
    return cast(IO[str], path.open(mode, encoding=encoding))


# --- writing ---


def write_arpa(
    path: str | Path, model: NgramModel, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the model, compressed if the name ends in .gz. `progress` gets the n-grams done."""
    path = Path(path)
    closed = math.isinf(model.log_probs[1 + UNKNOWN_ID])
    done = 0
    with (
        atomic_path(path) as temporary,
        open_text(temporary, "wt", path.suffix == ".gz") as file,
    ):
        print("\\data\\", file=file)
        for length, number in enumerate(model.counts, start=1):
            print(f"ngram {length}={number - (closed and length == 1)}", file=file)
        for length in range(1, model.order + 1):
            print(f"\n\\{length}-grams:", file=file)
            for line in _lines(model, length):
                print(line, file=file)
                done += 1
                if progress and done % PROGRESS_EVERY == 0:
                    progress(done, sum(model.counts))
        print("\n\\end\\", file=file)


def _lines(model: NgramModel, length: int) -> Iterator[str]:
    """The n-grams of one length, in the order of their nodes."""
    for node, words in _walk(model, 0, length, []):
        score = model.log_probs[node] / LN10
        if math.isinf(score) and node == 1 + UNKNOWN_ID:
            continue  # a closed vocabulary has no <unk>
        if math.isinf(score) or node == 1 + START_ID:
            score = NEVER
        line = f"{score:.7g}\t{' '.join(words)}"
        yield line if length == model.order else f"{line}\t{model.backoffs[node] / LN10:.7g}"


def _walk(
    model: NgramModel, node: int, length: int, words: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """The nodes `length` below `node`, with their words."""
    for child in range(model.first_child[node], model.first_child[node + 1]):
        longer = [*words, model.vocabulary[model.words[child]]]
        if length == 1:
            yield child, longer
        else:
            yield from _walk(model, child, length - 1, longer)


# --- reading ---


@dataclass
class _Section:
    """The n-grams of one length during reading: words one after another, line numbers."""

    words: array[int] = field(default_factory=lambda: array("i"))
    log_probs: array[float] = field(default_factory=lambda: array("f"))
    backoffs: array[float] = field(default_factory=lambda: array("f"))
    lines: array[int] = field(default_factory=lambda: array("l"))


class _Reader:
    """Numbered lines of an ARPA file, and errors that name a line."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.number = path, 0
        self._file = file

    def line(self) -> str:
        """The next non-empty line, stripped."""
        while line := self._file.readline(LONGEST_LINE):
            self.number += 1
            if len(line) == LONGEST_LINE:
                raise self.error(
                    "an n-gram per line", f"{LONGEST_LINE} characters", "get the file again"
                )
            if stripped := line.strip(WHITESPACE):
                return stripped
        raise self.error("more lines", "the end of the file", "it was cut short, get it again")

    def error(self, expected: str, got: str, advice: str, number: int = 0) -> LanguageModelError:
        return LanguageModelError(
            f"{self.path}, line {number or self.number}: expected {expected}, got {got}: {advice}"
        )


def read_arpa(path: str | Path, progress: Callable[[int, int], None] | None = None) -> NgramModel:
    """Read a model, compressed or not. `progress` gets the n-grams done and in total.

    Contexts that a pruned model lacks are added with their backoff score.

    Raises LanguageModelError naming the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        if not compressed and (kind := kind_of(path)):
            raise LanguageModelError(f"{path}: expected an ARPA file, got {kind}")
        with open_text(path, "rt", compressed) as file:
            return _parse(_Reader(path, file), progress)
    except FileNotFoundError:
        raise LanguageModelError(
            f"{path}: expected a model of n-grams, got no such file: correct the path"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise LanguageModelError(
            f"{path}: expected an ARPA file, got damaged data ({reason(error)}): get it again"
        ) from None


def _parse(reader: _Reader, progress: Callable[[int, int], None] | None) -> NgramModel:
    try:
        while reader.line() != "\\data\\":
            pass
    except LanguageModelError:
        raise reader.error("an ARPA file with the line \\data\\", "none", "correct it") from None
    announced: list[int] = []
    line = reader.line()
    while match := re.fullmatch(r"ngram\s+([0-9]{1,2})\s*=\s*([0-9]{1,18})", line):
        length, number = int(match[1]), int(match[2])
        if length != len(announced) + 1 or length > LONGEST:
            raise reader.error(f"ngram {len(announced) + 1}=", line, "correct the header")
        announced.append(number)
        line = reader.line()
    if not announced:
        raise reader.error("ngram 1=...", repr(line), "correct the header")
    ids = {word: i for i, word in enumerate(SPECIAL)}
    sections: list[_Section] = []
    for length, number in enumerate(announced, start=1):
        if line != f"\\{length}-grams:":
            raise reader.error(f"\\{length}-grams:", repr(line), "correct the file")
        section = _Section()
        while not (line := reader.line()).startswith("\\"):
            _add(reader, line, length, section, ids)
            if progress and len(section.lines) % PROGRESS_EVERY == 0:
                progress(sum(announced[: length - 1]) + len(section.lines), sum(announced))
        if len(section.lines) != number:
            raise reader.error(
                f"{number} n-grams of {length} words as in the header",
                str(len(section.lines)),
                "get the file again",
            )
        sections.append(section)
    if line != "\\end\\":
        raise reader.error("\\end\\", repr(line), "correct the file")
    return _assemble(reader, sections, ids)


def _add(reader: _Reader, line: str, length: int, section: _Section, ids: dict[str, int]) -> None:
    """Read `log10 probability, words, backoff weight if any`."""
    parts = line.replace("\t", " ").split(" ")
    if "" in parts:
        parts = [part for part in parts if part]
    if len(parts) not in (length + 1, length + 2):
        raise reader.error(
            f"a score, {length} words and perhaps a backoff weight", repr(line), "correct the line"
        )
    try:
        log_prob = float(parts[0])
        backoff = float(parts[-1]) if len(parts) == length + 2 else 0.0
    except ValueError:
        raise reader.error("scores that are numbers", repr(line), "correct the line") from None
    if not log_prob <= 1e-4 or not abs(backoff) <= LARGEST:
        wanted = f"a log10 probability of at most 0 and a backoff weight of at most {LARGEST:g}"
        raise reader.error(wanted, repr(line), "correct the line")
    words = [word if word != "<UNK>" else "<unk>" for word in parts[1 : length + 1]]
    if length == 1:
        ids.setdefault(words[0], len(ids))
    try:
        section.words.extend([ids[word] for word in words])
    except KeyError as error:
        raise reader.error(
            "words of the 1-grams", error.args[0], "add it there or drop the line"
        ) from None
    section.log_probs.append(log_prob * LN10 if log_prob > NEVER else -math.inf)
    section.backoffs.append(backoff * LN10)
    section.lines.append(reader.number)


def _assemble(reader: _Reader, sections: Sequence[_Section], ids: dict[str, int]) -> NgramModel:
    rows = [
        np.frombuffer(section.words, np.int32).reshape(-1, length)
        for length, section in enumerate(sections, start=1)
    ]
    scores = [np.frombuffer(section.log_probs, np.float32) for section in sections]
    backoffs = [np.frombuffer(section.backoffs, np.float32) for section in sections]
    lacking = np.setdiff1d(np.arange(len(ids)), rows[0][:, 0]).astype(np.int32)
    rows[0] = np.concatenate([rows[0], lacking[:, None]])
    scores[0] = np.concatenate([scores[0], np.full(len(lacking), -np.inf, np.float32)])
    backoffs[0] = np.concatenate([backoffs[0], np.zeros(len(lacking), np.float32)])
    for length in range(len(rows) - 1, 1, -1):
        added = _lacking_contexts(rows[length][:, :-1], rows[length - 1])
        rows[length - 1] = np.concatenate([rows[length - 1], added])
        gap = np.full(len(added), np.nan, np.float32)
        scores[length - 1] = np.concatenate([scores[length - 1], gap])
        backoffs[length - 1] = np.concatenate([backoffs[length - 1], np.zeros_like(gap)])
    levels: list[Level] = []
    for grams, score, backoff in zip(rows, scores, backoffs, strict=True):
        parents = _places(grams[:, :-1], levels)
        order = np.lexsort((grams[:, -1], parents))
        same = (np.diff(parents[order]) == 0) & (np.diff(grams[order, -1]) == 0)
        if same.any():
            again = int(order[1:][same].min())
            raise reader.error(
                "every n-gram once", "one again", "drop it", sections[len(levels)].lines[again]
            )
        levels.append(Level(parents[order], grams[order, -1], score[order], backoff[order]))
    model = assemble(list(ids), levels)
    _fill_gaps(model)
    return model


def _lacking_contexts(contexts: Ints, present: Ints) -> Ints:
    """Rows of `contexts` that are not in `present`, each once."""
    row = np.dtype((np.void, contexts.shape[1] * contexts.itemsize))

    def keys(rows: Ints) -> NDArray[np.void]:
        return np.ascontiguousarray(rows).view(row)[:, 0]

    wanted = keys(contexts)
    new = np.unique(wanted[~np.isin(wanted, keys(present))])
    return new.view(np.int32).reshape(-1, contexts.shape[1])


def _places(contexts: Ints, levels: Sequence[Level]) -> NDArray[np.int64]:
    """The index of each row in the level of its length; all exist."""
    places = np.zeros(len(contexts), np.int64)
    for column, level in zip(contexts.T, levels, strict=True):
        size = len(levels[0].words)
        places = np.searchsorted(level.parents * size + level.words, places * size + column)
    return places


def _fill_gaps(model: NgramModel) -> None:
    """Give added contexts the score that they have without being in the model."""
    for node in np.flatnonzero(np.isnan(model.log_probs)):
        parent = int(np.searchsorted(model.first_child, node, "right")) - 1
        score, _ = model.score(int(model.suffixes[parent]), int(model.words[node]))
        model.log_probs[node] = model.backoffs[parent] + score
