"""Recordings whose texts a person checks by ear, and the files of what the person decided.

The texts that were checked are a manifest to train from. A second manifest has the recordings that
were left out, such as those that cannot be understood. Each is replaced as a whole with every
decision, so that after a kill it has the old content or the new. They lie beside the manifest that
is reviewed: `train.jsonl` has `train.reviewed.jsonl` and `train.left_out.jsonl`, a folder `talks`
has `talks/reviewed.jsonl` and `talks/left_out.jsonl`.
"""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from asr.audio.files import find_audio
from asr.audio.load import audio_duration
from asr.dataset.labels import MISFIT
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, AudioError
from asr.inference.time_formats import Word
from asr.io.files import locked, remove_leftovers
from asr.io.paths import Say, as_stored

LONGEST_TEXT = 20_000  # characters
UNKNOWN_S = 0.001  # duration of a recording that cannot be read: a manifest has a positive one


@dataclass(frozen=True)
class Suggestion:
    """What the recogniser made of a recording, or why there is nothing."""

    text: str = ""
    words: tuple[Word, ...] = ()
    error: str = ""

    @property
    def confidence(self) -> float:
        """That of the least certain word; 0 if there is none."""
        return min((word.confidence or 0.0 for word in self.words), default=0.0)


@dataclass(frozen=True)
class Item:
    """A recording in review."""

    utterance: Utterance
    """With the text of the manifest, which is empty for a folder of recordings."""
    suggestion: Suggestion | None
    """None until it was recognised."""
    checked: str | None
    """The text that a person gave; None until then."""
    left_out: bool = False
    """A person decided that it is of no use."""

    @property
    def is_open(self) -> bool:
        """Nobody has decided about it yet."""
        return self.checked is None and not self.left_out

    @property
    def text(self) -> str:
        """The best text so far."""
        if self.checked is not None:
            return self.checked
        return self.utterance.text or (self.suggestion.text if self.suggestion else "")

    @property
    def version(self) -> str:
        """Identifier of the present decision; a change must state the version it is based on."""
        if self.checked is None:
            return "left out" if self.left_out else "unchecked"
        return hashlib.sha256(self.checked.encode()).hexdigest()[:16]


class TextError(AsrError):
    """A text that no manifest can hold."""


class ChangedError(AsrError):
    """Another person has decided about the same recording meanwhile."""

    def __init__(self, item: Item) -> None:
        super().__init__(
            "expected the present version of the text, got an older one: another person has "
            "changed it"
        )
        self.item = item
        """With the other person's decision."""


class _Written:
    """A manifest that another program may change too."""

    def __init__(self, path: Path) -> None:
        """Raises ManifestError if the file exists and cannot be read."""
        self.path = path
        self.utterances: dict[str, Utterance] = {}
        self._state: tuple[int, ...] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if another program has changed it. A file that was removed is written
        again with the next change."""
        state = _state(self.path)
        if state is not None and state != self._state:
            self.utterances = {utterance.id: utterance for utterance in read_manifest(self.path)}
            self._state = state

    def add(self, utterance: Utterance) -> None:
        """Add or replace an utterance. When it returns, this is on the disk."""
        self._write({**self.utterances, utterance.id: utterance})

    def remove(self, id: str) -> None:
        if id in self.utterances:
            self._write({key: u for key, u in self.utterances.items() if key != id})

    def _write(self, utterances: dict[str, Utterance]) -> None:
        if utterances:
            write_manifest(self.path, utterances.values())
        else:  # a manifest has at least one
            self.path.unlink(missing_ok=True)
        self.utterances, self._state = utterances, _state(self.path)


class Review:
    """The recordings of a review, by id. Threads may share it."""

    def __init__(self, utterances: Sequence[Utterance], path: Path, left_out: Path) -> None:
        """Raises ManifestError if a file of decisions exists and cannot be read."""
        self.path = path
        """Where the checked texts are."""
        self._utterances = {utterance.id: utterance for utterance in utterances}
        self._suggestions: dict[str, Suggestion] = {}
        self._checked, self._left_out = _Written(path), _Written(left_out)
        self._lock = threading.Lock()
        # Reviewed texts keep the misfit of the earlier one: only a whole ranking has an order.
        self._is_ranked = all(MISFIT in utterance.extra for utterance in utterances)

    @property
    def ids(self) -> Sequence[str]:
        """All ids, in the order of the manifest."""
        return tuple(self._utterances)

    def item(self, id: str) -> Item | None:
        """The recording of an id, or None if there is no such id."""
        utterance = self._utterances.get(id)
        if utterance is None:
            return None
        suggestion, checked = self._suggestions.get(id), self._checked.utterances.get(id)
        if checked is not None:  # also if a kill came between the changes of both files
            return Item(utterance, suggestion, checked.text)
        return Item(utterance, suggestion, None, id in self._left_out.utterances)

    def items(self) -> list[Item]:
        """The open recordings, least certain first, those that were not recognised yet last; then
        the checked ones, as written, and those that were left out. Those that `asr clean` ranked
        keep its order: a model is most certain of its text where the transcript is another one."""
        places = {id: place for place, id in enumerate(self._checked.utterances)}
        found = [item for id in self._utterances if (item := self.item(id))]
        # Sorting keeps the order of the manifest among equals.
        return sorted(found, key=lambda item: _order(item, places, self._is_ranked))

    def counts(self) -> dict[str, int]:
        """The number of all recordings, and of those in each state."""
        checked = self._checked.utterances.keys() & self._utterances.keys()
        left_out = self._left_out.utterances.keys() & self._utterances.keys() - checked
        return {
            "total": len(self._utterances),
            "recognised": len(self._suggestions),
            "checked": len(checked),
            "left_out": len(left_out),
            "waiting": len(self._utterances.keys() - self._suggestions.keys() - checked - left_out),
        }

    def suggest(self, id: str, suggestion: Suggestion) -> None:
        """Keep what the recogniser made of a recording."""
        self._suggestions[id] = suggestion

    def check(self, id: str, text: str, version: str) -> Item:
        """Write the text that a person gave for a recording, based on a version of the item. When
        it returns, the text is on the disk.

        Raises KeyError for an unknown id, TextError for a text that no manifest can hold and for a
        recording that cannot be read, and ChangedError if the version is not the present one and
        the present text is another.
        """
        text = " ".join(text.split())
        if len(text) > LONGEST_TEXT or not _is_whole(text):
            raise TextError(
                f"expected a text of at most {LONGEST_TEXT:,} whole characters without control "
                "characters, got another: correct it"
            )
        with self._lock:
            item = self._present(id)
            if item.checked == text:  # also the same request once more, after a lost answer
                return item
            if item.version != version:
                raise ChangedError(item)
            try:
                measured = self._measured(id)
            except AudioError:
                raise TextError(
                    "expected a recording that can be read, got another: leave it out"
                ) from None
            self._checked.add(replace(measured, text=text))
            self._left_out.remove(id)
            return replace(item, checked=text, left_out=False)

    def leave_out(self, id: str, version: str) -> Item:
        """Write that a recording is of no use, based on a version of the item. A checked text is
        removed.

        Raises KeyError for an unknown id, and ChangedError like `check`.
        """
        with self._lock:
            item = self._present(id)
            if item.left_out:
                return item
            if item.version != version:
                raise ChangedError(item)
            self._left_out.add(self._measured(id, UNKNOWN_S))
            self._checked.remove(id)
            return replace(item, checked=None, left_out=True)

    def _present(self, id: str) -> Item:
        for written in (self._checked, self._left_out):
            written.refresh()
        item = self.item(id)
        if item is None:
            raise KeyError(id)
        return item

    def _measured(self, id: str, otherwise: float | None = None) -> Utterance:
        """The utterance with its duration, which a folder of recordings does not tell.

        Raises AudioError for one that cannot be read, unless `otherwise` has a duration for it.
        """
        utterance = self._utterances[id]
        if utterance.duration:
            return utterance
        try:
            return replace(utterance, duration=audio_duration(utterance.audio))
        except AudioError:
            if otherwise is None:
                raise
            return replace(utterance, duration=otherwise)


@contextmanager
def open_review(source: Path, say: Say) -> Iterator[Review]:
    """The review of a manifest, or of the recordings in a folder. Texts beside these are not read:
    `asr new` makes a manifest of them. `say` reports files that are left out.

    Raises AsrError for a source that cannot be read, one without recordings, a file of decisions
    that cannot be read, and a review of the same source by another process.
    """
    path, left_out = written_path(source, "reviewed"), written_path(source, "left_out")
    utterances = _recordings(source, say) if source.is_dir() else read_manifest(source)
    try:
        with locked(path.with_name(f".{path.name}.lock"), "review of these recordings"):
            for written in (path, left_out):
                remove_leftovers(written)
            yield Review(utterances, path, left_out)
    except PermissionError as error:
        raise AsrError(
            f"expected a folder for {path} that can be written, got '{error.strerror}': review a "
            "copy of the manifest in another folder"
        ) from None


def written_path(source: Path, kind: str) -> Path:
    """Where the decisions about a source are written.

    >>> written_path(Path("data/train.jsonl"), "reviewed").name
    'train.reviewed.jsonl'
    """
    if source.is_dir():
        return source / f"{kind}.jsonl"
    return source.with_name(f"{source.stem}.{kind}.jsonl")


def _recordings(folder: Path, say: Say) -> list[Utterance]:
    """The recordings in a folder; their duration is 0 until it is needed."""
    found: dict[str, Utterance] = {}
    folder = as_stored(folder)
    for path in find_audio([folder], say):
        below = path.relative_to(folder)
        name = below.with_suffix("").as_posix()
        name = below.as_posix() if name in found else name
        if _is_whole(name):
            found[name] = Utterance(name, path.absolute(), "", 0.0)
        else:
            say(f"skipped {name!a}: expected a file name in UTF-8; rename it")
    if not found:
        raise AudioError(f"expected recordings to review, got none in {folder}: check the folder")
    return list(found.values())


def _is_whole(text: str) -> bool:
    """Whether it can be written as UTF-8, without halves of characters, and has no control
    characters, which other programs would obey."""
    if any(unicodedata.category(c) == "Cc" for c in text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order(item: Item, places: Mapping[str, int], is_ranked: bool) -> tuple[int, float]:
    if item.left_out:
        return 4, 0.0
    if item.checked is not None:
        # One that was checked after the order was read comes last.
        return 3, places.get(item.utterance.id, len(places))
    if item.suggestion is not None and item.suggestion.error:
        return 2, 0.0
    if is_ranked:
        return 0, 0.0
    return (1, 0.0) if item.suggestion is None else (0, item.suggestion.confidence)


def _state(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the file is replaced; None without a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
