"""Recordings whose texts a person checks by ear, and the file of the texts that were checked.

The file is a manifest to train from. It is replaced as a whole with every checked text, so that
after a kill it has the old content or the new. It lies beside the manifest that is reviewed:
`train.jsonl` has `train.reviewed.jsonl`, a folder `talks` has `talks/reviewed.jsonl`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from asr.audio.files import find_audio
from asr.audio.load import audio_duration
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, AudioError
from asr.inference.time_formats import Word
from asr.io.files import locked, remove_leftovers
from asr.io.paths import Say, as_stored

LONGEST_TEXT = 20_000  # characters


@dataclass(frozen=True)
class Heard:
    """What the recogniser made of a recording, or why there is nothing."""

    text: str = ""
    words: tuple[Word, ...] = ()
    error: str = ""

    @property
    def confidence(self) -> float:
        """That of the least certain word; 0 if nothing was heard."""
        return min((word.confidence or 0.0 for word in self.words), default=0.0)


@dataclass(frozen=True)
class Item:
    """A recording in review."""

    utterance: Utterance
    """With the text of the manifest, which is empty for a folder of recordings."""
    heard: Heard | None
    """None until it was recognised."""
    checked: str | None
    """The text that a person gave; None until then."""

    @property
    def text(self) -> str:
        """The best text so far."""
        if self.checked is not None:
            return self.checked
        return self.utterance.text or (self.heard.text if self.heard else "")

    @property
    def version(self) -> str:
        """Names the state of the checked text: a change must name the one that it is based on."""
        if self.checked is None:
            return "unchecked"
        return hashlib.sha256(self.checked.encode()).hexdigest()[:16]


class TextError(AsrError):
    """A text that no manifest can hold."""


class ChangedError(AsrError):
    """Another person has checked the same recording meanwhile."""

    def __init__(self, item: Item) -> None:
        super().__init__(
            "expected the present version of the text, got an older one: another person has "
            "changed it"
        )
        self.item = item
        """With the other person's text."""


class Review:
    """The recordings of a review, by id. Threads may share it."""

    def __init__(self, utterances: Sequence[Utterance], path: Path) -> None:
        """Raises ManifestError if the file of checked texts exists and cannot be read."""
        self.path = path
        self._utterances = {utterance.id: utterance for utterance in utterances}
        self._heard: dict[str, Heard] = {}
        self._checked: dict[str, Utterance] = {}
        self._state: tuple[int, ...] | None = None
        self._lock = threading.Lock()
        self._refresh()

    @property
    def ids(self) -> Sequence[str]:
        """All ids, in the order of the manifest."""
        return tuple(self._utterances)

    def item(self, id: str) -> Item | None:
        """The recording of an id, or None if there is no such id."""
        utterance = self._utterances.get(id)
        if utterance is None:
            return None
        checked = self._checked.get(id)
        text = None if checked is None else checked.text
        return Item(utterance, self._heard.get(id), text)

    def items(self) -> list[Item]:
        """The unchecked recordings, least certain first, those that were not recognised yet last;
        then the checked ones, as written."""
        found = [item for id in self._utterances if (item := self.item(id))]
        places = {id: place for place, id in enumerate(self._checked)}
        # Sorting keeps the order of the manifest among equals.
        return sorted(found, key=lambda item: _order(item, places))

    def counts(self) -> dict[str, int]:
        """The number of all recordings, of the recognised and of the checked ones."""
        checked = self._checked.keys() & self._utterances.keys()
        return {
            "total": len(self._utterances),
            "recognised": len(self._heard),
            "checked": len(checked),
        }

    def hear(self, id: str, heard: Heard) -> None:
        """Keep what the recogniser made of a recording."""
        self._heard[id] = heard

    def check(self, id: str, text: str, version: str) -> Item:
        """Write the text that a person gave for a recording, based on a version of the item. When
        it returns, the text is on the disk.

        Raises KeyError for an unknown id, TextError for a text that no manifest can hold, and
        ChangedError if the version is not the present one and the present text is another.
        """
        text = " ".join(text.split())
        if len(text) > LONGEST_TEXT or not _is_whole(text):
            raise TextError(
                f"expected a text of at most {LONGEST_TEXT:,} whole characters, got another: "
                "correct it"
            )
        with self._lock:
            self._refresh()
            utterance = self._utterances[id]
            item = self.item(id)
            assert item is not None
            if item.checked == text:  # also the same request once more, after a lost answer
                return item
            if item.version != version:
                raise ChangedError(item)
            if not utterance.duration:
                utterance = replace(utterance, duration=audio_duration(utterance.audio))
            changed = {**self._checked, id: replace(utterance, text=text)}
            write_manifest(self.path, changed.values())
            self._checked, self._state = changed, _state(self.path)
            return replace(item, checked=text)

    def _refresh(self) -> None:
        """Read the file again if another program has changed it. A file that was removed is written
        again with the next text."""
        state = _state(self.path)
        if state is not None and state != self._state:
            checked = {utterance.id: utterance for utterance in read_manifest(self.path)}
            self._checked, self._state = checked, state


@contextmanager
def open_review(source: Path, say: Say) -> Iterator[Review]:
    """The review of a manifest, or of the recordings in a folder. Texts beside these are not read:
    `asr data prepare` makes a manifest of them. `say` reports files that are left out.

    Raises AsrError for a source that cannot be read, one without recordings, a file of checked
    texts that cannot be read, and a review of the same source by another process.
    """
    path = reviewed_path(source)
    utterances = _recordings(source, say) if source.is_dir() else read_manifest(source)
    try:
        with locked(path.with_name(f".{path.name}.lock"), "review of these recordings"):
            remove_leftovers(path)
            yield Review(utterances, path)
    except PermissionError as error:
        raise AsrError(
            f"expected a folder for {path} that can be written, got '{error.strerror}': review a "
            "copy of the manifest in another folder"
        ) from None


def reviewed_path(source: Path) -> Path:
    """Where the checked texts of a source are written.

    >>> reviewed_path(Path("data/train.jsonl")).name
    'train.reviewed.jsonl'
    """
    if source.is_dir():
        return source / "reviewed.jsonl"
    return source.with_name(f"{source.stem}.reviewed.jsonl")


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
    """Whether it can be written as UTF-8: no halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order(item: Item, places: Mapping[str, int]) -> tuple[int, float]:
    if item.checked is not None:
        return 3, places[item.utterance.id]
    if item.heard is None:
        return 1, 0.0
    return (2, 0.0) if item.heard.error else (0, item.heard.confidence)


def _state(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the file is replaced; None without a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
