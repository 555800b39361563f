"""What a model was trained and tested with, so that training it further keeps these sets apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.repeats import of_others
from asr.dataset.splits import PARTS, VOICE, Known
from asr.errors import AsrError
from asr.io.files import read_json
from asr.models.files import is_encoder


@dataclass
class Earlier:
    """The sets of all trainings that led to a model, and the files that should name some of them
    but cannot be read."""

    train: list[Utterance] = field(default_factory=list)
    dev: list[Utterance] = field(default_factory=list)
    test: list[Utterance] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    unknown: Path | None = None
    """A model without the files of its training, such as one that was copied or downloaded."""

    def known(self, utterances: Sequence[Utterance]) -> Known:
        """The parts of those of `utterances` that are in the sets, and of all speakers."""
        rows: list[tuple[str, Utterance]] = [
            (part, u) for part in PARTS for u in getattr(self, part)
        ]
        found = of_others(utterances, [u for _, u in rows])
        # In the order of the parts: training wins over dev, and dev over test.
        parts = {
            u.id: rows[min(places)][0]
            for u, places in zip(utterances, found, strict=True)
            if places
        }
        speakers: dict[str, str] = {}
        for part, u in rows:
            if name := u.speaker or str(u.extra.get(VOICE, "")):
                speakers.setdefault(name, part)
        return Known(parts, speakers)


def earlier_sets(model: Path) -> Earlier:
    """The sets of the trainings of a model or encoder, found by the files of `asr train` and `asr
    pretrain` around it: transcripts, labels, the test set beside dev, and the same of the model
    that a training began with."""
    earlier = Earlier()
    known: set[Path] = set()
    folder: Path | None = model
    while folder is not None and folder not in known:
        known.add(folder)
        folder = _add(earlier, folder)
    return earlier


def _add(earlier: Earlier, model: Path) -> Path | None:
    """Add the sets of the last training of a model; the model that it began with, if any."""
    if not model.exists():
        earlier.missing.append(model)
        return None
    if is_encoder(model):
        for part, rows in (("train", earlier.train), ("dev", earlier.dev)):
            if (model.parent / "history.json").is_file():
                _read(model.parent / f"{part}.jsonl", rows, earlier.missing)
            else:
                earlier.unknown = model
        return None
    try:
        recipe = read_json(model.parent / "recipe.json")
    except (OSError, ValueError):
        earlier.unknown = model
        return None
    for section, key, rows in (
        ("data", "train", earlier.train),
        ("data", "labels", earlier.train),
        ("data", "dev", earlier.dev),
    ):
        path = _path(recipe, section, key)
        if path is not None:
            _read(path, rows, earlier.missing)
    dev = _path(recipe, "data", "dev")
    if dev is not None and dev.with_name("test.jsonl").is_file():
        _read(dev.with_name("test.jsonl"), earlier.test, earlier.missing)
    return _path(recipe, "init", "model")


def _path(recipe: Any, section: str, key: str) -> Path | None:
    try:
        return Path(recipe[section][key])
    except (KeyError, TypeError):
        return None


def _read(path: Path, rows: list[Utterance], missing: list[Path]) -> None:
    try:
        # Older files have relative paths without the folder that they are relative to.
        found: Sequence[Utterance] = read_manifest(path) if path.is_absolute() else ()
    except (AsrError, OSError):
        found = ()
    rows += found
    missing += [] if found else [path]
