"""What is found where people keep recordings with texts: utterances, and what cannot be used."""

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
    """What was found: its kind in words, and where speakers come from ("" for nowhere)."""

    kind: str
    utterances: tuple[Utterance, ...]
    left_out: tuple[LeftOut, ...] = ()
    speakers: str = ""
    note: str = ""
    """What else was there."""


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
