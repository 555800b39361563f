"""What the tests of several corpora check about `prepare`: its manifests, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, read_manifest
from asr.errors import AsrError


def read(manifests: dict[str, Path]) -> dict[str, list[Utterance]]:
    return {name: list(read_manifest(path)) for name, path in manifests.items()}


def silent(line: str) -> None:
    pass


def refused(prepare: Callable[..., object], folder: Path, source: Path | None) -> str:
    """The one line of the error; no manifest is left behind."""
    with pytest.raises(AsrError) as error:
        prepare(folder, source, say=silent)
    assert "\n" not in str(error.value)
    assert not list(folder.glob("*.jsonl"))
    return str(error.value)


def disjoint(parts: dict[str, list[Utterance]]) -> bool:
    speakers = [{u.speaker for u in part} for part in parts.values()]
    return sum(map(len, speakers)) == len(set().union(*speakers))
