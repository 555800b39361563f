"""The results of shards, each in a folder of its own, and their merging.

    texts.shards/00003-of-00016/results.jsonl   what the shard is of, then a line an item
    texts.shards/00003-of-00016/done.json       written when the shard is complete

A line holds an id, the state of the input, an error or null, and the result. Lines are appended as
results come, so that a shard that was killed can be resumed. `done.json` has the digest of
all lines; a merge takes no shard without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from asr.errors import AsrError
from asr.io.files import digest, locked, read_json, remove_leftovers, write_json
from asr.io.paths import files_below
from asr.io.sharding import Shard, shard_number

RESULTS, DONE = "results.jsonl", "done.json"
MOST_NAMED = 10  # missing shards in a message
MOST_OPEN = 128  # files, of which a process may have 1024

State = int | str | None


@dataclass(frozen=True)
class Work:
    """What all shards of one command on one corpus have in common."""

    folder: Path
    command: str
    version: str
    options: Mapping[str, str]
    """From `option_texts`."""
    ids: Sequence[str]
    """Of all items, each once, in the order of the merged results."""
    kept: frozenset[str] = frozenset()
    """Items whose results are known already: no shard does them."""

    @property
    def wanted(self) -> list[str]:
        """The items that shards do."""
        return [id_ for id_ in self.ids if id_ not in self.kept]

    def facts(self) -> dict[str, Any]:
        """What is compared between shards."""
        ids = hashlib.sha256()
        for id_ in self.ids:
            ids.update(json.dumps(id_).encode() + b"\n")
        own = {"command": self.command, "version": self.version, "options": dict(self.options)}
        return own | {"items": len(self.ids), "inputs": ids.hexdigest()}

    def place(self, shard: Shard) -> Path:
        """The folder of a shard."""
        return self.folder / f"{shard.number:05}-of-{shard.count:05}"


@dataclass(frozen=True)
class Row:
    """The result of an item as plain JSON values, and an error if it failed."""

    value: Any
    error: str | None


def option_texts(options: Mapping[str, object]) -> dict[str, str]:
    """Options as texts that are equal on all machines; of a path, the digest of the files there.

    Raises OSError for a path that cannot be read.
    """
    return {
        name: _content(value) if isinstance(value, Path) else ascii(value)
        for name, value in sorted(options.items())
    }


def _content(path: Path) -> str:
    total = hashlib.sha256()
    for file in files_below(path) if path.is_dir() else [path]:
        total.update(ascii((file.relative_to(path).as_posix(), digest(file))).encode())
    return f"content {total.hexdigest()}"


def file_size(path: Path) -> int | None:
    """The state of a recording: its size, which copies share; None if it is missing."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


# --- one shard ---


@dataclass
class Journal:
    """The results of a shard so far; `open_journal` makes it."""

    place: Path
    shard: Shard
    facts: Mapping[str, Any]
    rows: dict[str, tuple[State, str | None]]
    """State and error by id, of earlier processes too."""
    file: BinaryIO
    added: bool = False

    def has(self, id_: str, state: State) -> bool:
        """Whether an item has a result, without an error, and its input is still the same."""
        return self.rows.get(id_) == (state, None)

    def add(self, id_: str, state: State, row: Row) -> None:
        """Append the result of an item. Raises OSError."""
        if not self.added:
            (self.place / DONE).unlink(missing_ok=True)
            self.added = True
        line = json.dumps([id_, state, row.error, row.value]) + "\n"
        self.file.write(line.encode())
        self.file.flush()
        self.rows[id_] = state, row.error

    def finish(self) -> None:
        """Record that all items of the shard have results."""
        self.file.flush()
        os.fsync(self.file.fileno())
        content = {**self.facts, "shard": str(self.shard), "results": digest(self.place / RESULTS)}
        write_json(self.place / DONE, content)


@contextmanager
def open_journal(work: Work, shard: Shard) -> Iterator[Journal]:
    """The results of a shard, to resume it. They are locked while entered.

    Raises AsrError if another process has them, if they are of other options or inputs, or if the
    work is divided into another number of shards; OSError.
    """
    place, facts = work.place(shard), work.facts()
    if counts := {count for _, count in _shards_in(work.folder)} - {shard.count}:
        raise AsrError(
            f"expected {counts.pop()} shards as in {work.folder}, got shard {shard}: give the same "
            "N, or remove that folder"
        )
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / ".lock", "process with this shard"):
        remove_leftovers(place / DONE)
        path = place / RESULTS
        path.touch()
        with path.open("rb+") as file:
            rows, end = _usable(file, work, shard, facts)
            file.truncate(end)  # half a line of a process that was killed
            file.seek(end)
            if not end:
                file.write(json.dumps(facts).encode() + b"\n")
                file.flush()
            yield Journal(place, shard, facts, rows, file)


def _usable(
    file: BinaryIO, work: Work, shard: Shard, facts: Mapping[str, Any]
) -> tuple[dict[str, tuple[State, str | None]], int]:
    """The rows up to the first that is not whole, and where that begins."""
    rows: dict[str, tuple[State, str | None]] = {}
    end = 0
    for start, line in _lines(file):
        try:
            content = json.loads(line)
            if start:  # the line at 0 is the header
                id_, state, error, _ = content
                rows[id_] = state, error
        except (ValueError, TypeError):
            break
        if not start:
            _check_same(work, shard, content, facts)
        end = start + len(line)
    return rows, end


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each whole line and its first byte."""
    start = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield start, line
        start += len(line)


def _shards_in(folder: Path) -> list[tuple[int, int]]:
    """Number and count of each shard in a folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = (re.fullmatch("([0-9]{5})-of-([0-9]{5})", name) for name in names)
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def _check_same(work: Work, shard: Shard, found: Any, facts: Mapping[str, Any]) -> None:
    """Raise AsrError unless a shard is of the same command, version, options and inputs."""
    found = found if isinstance(found, dict) else {}
    for name in ("command", "version", "options", "inputs"):
        if found.get(name) == facts[name]:
            continue
        ours, theirs, what = facts[name], found.get(name), name
        if name == "options":
            theirs = theirs if isinstance(theirs, dict) else {}
            what = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
            ours, theirs = ours.get(what), theirs.get(what)
        shown = f"{theirs}, not {ours}"
        if name == "inputs":
            shown = f"{found.get('items')} other items than these {facts['items']}"
        raise AsrError(
            f"expected shards of one command in {work.folder}, got shard {shard} of another: "
            f"{what} {shown}; repeat its command, or remove {work.place(shard)} and run it again"
        )


# --- all shards ---


@dataclass(frozen=True)
class Merged:
    """The results of all shards. Rows are read when they are asked for."""

    work: Work
    count: int
    _places: dict[str, tuple[State, int]] = field(default_factory=dict)
    """State, and first byte of the line, by id."""
    _files: OrderedDict[int, BinaryIO] = field(default_factory=OrderedDict)

    def check(self, states: Mapping[str, State]) -> None:
        """Raise AsrError unless each item has a result, and its input is still the same."""
        for id_, state in states.items():
            shard = Shard(shard_number(id_, self.count), self.count)
            if id_ not in self._places:
                raise AsrError(
                    f"expected a result of {id_!a} in {self.work.place(shard)}, got none: run "
                    f"shard {shard} again"
                )
            if self._places[id_][0] != state:
                raise AsrError(
                    f"expected {id_!a} as shard {shard} found it, got another file: run that "
                    "shard again"
                )

    def row(self, id_: str) -> Row:
        """The result of an item that `check` has found. Raises OSError."""
        number = shard_number(id_, self.count)
        file = self._files.pop(number, None)
        if file is None:
            if len(self._files) >= MOST_OPEN:
                self._files.popitem(last=False)[1].close()
            file = (self.work.place(Shard(number, self.count)) / RESULTS).open("rb")
        self._files[number] = file
        file.seek(self._places[id_][1])
        _, _, error, value = json.loads(file.readline())
        return Row(value, error)


@contextmanager
def open_merged(work: Work) -> Iterator[Merged]:
    """The results of all shards of a work.

    Raises AsrError that names the shards that are missing or not complete, and one that is damaged
    or of other options, inputs or versions.
    """
    found = _shards_in(work.folder)
    counts = sorted({count for _, count in found})
    if len(counts) != 1:
        got = " and ".join(map(str, counts)) or "none"
        raise AsrError(
            f"expected the shards of one N in {work.folder}, got {got}: "
            + ("remove those of the others" if counts else "run the command with --shard i/N first")
        )
    shards = [Shard(number, counts[0]) for number in range(1, counts[0] + 1)]
    missing = [shard for shard in shards if not (work.place(shard) / DONE).is_file()]
    if missing:
        named = ", ".join(map(str, missing[:MOST_NAMED]))
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise AsrError(
            f"expected {counts[0]} complete shards in {work.folder}, got no result of shard "
            f"{named}{more}: run them, then merge again"
        )
    facts, merged = work.facts(), Merged(work, counts[0])
    for shard in shards:
        _index(work, shard, facts, merged._places)
    try:
        yield merged
    finally:
        for file in merged._files.values():
            file.close()


def _index(
    work: Work, shard: Shard, facts: Mapping[str, Any], places: dict[str, tuple[State, int]]
) -> None:
    place = work.place(shard)
    try:
        record = read_json(place / DONE)
    except ValueError:
        record = None
    _check_same(work, shard, record, facts)
    total = hashlib.sha256()
    try:
        with (place / RESULTS).open("rb") as file:
            for start, line in _lines(file):
                total.update(line)
                if start:  # the line at 0 is the header
                    id_, state, _, _ = json.loads(line)
                    places[id_] = state, start
    except (FileNotFoundError, ValueError, TypeError):
        total.update(b"damaged")
    if total.hexdigest() != record.get("results"):
        raise AsrError(
            f"expected the results of shard {shard} as it wrote them, got others in {place}: copy "
            "them again, or remove that folder and run the shard again"
        )
