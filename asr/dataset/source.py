"""The result of reading recordings with texts: utterances, and entries that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.dataset.manifest import Utterance


@dataclass(frozen=True)
class LeftOut:
    """A recording or a text that cannot be used, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Source:
    """The content of a source: its type in words, and the origin of the speakers ("" for none)."""

    kind: str
    utterances: tuple[Utterance, ...]
    left_out: tuple[LeftOut, ...] = ()
    speakers: str = ""
    note: str = ""
    """A note on other files that were found."""


def new_utterance(
    id_: str,
    audio: Path,
    text: str,
    speaker: str,
    start: float = 0.0,
    end: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Utterance:
    return Utterance(id_, audio.absolute(), text, 0.0, speaker, start, end, extra=extra or {})
