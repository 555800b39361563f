"""The pieces of speech of long recordings, kept for the next time the same are needed.

To find them, every long recording is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asr.audio.vad import best_kind
from asr.dataset.manifest import Utterance
from asr.inference.untranscribed import Found, Progress, cut_recordings
from asr.io.files import read_json, write_json
from asr.io.paths import as_stored

VERSION = 2  # of what is kept; higher if the same recordings would be cut in another way


def cached_pieces(
    place: Path,
    rows: Sequence[Utterance],
    rate: int,
    longest: float,
    shortest: float,
    progress: Progress = lambda done, total: None,
) -> Found:
    """The result of `cut_recordings`, cached in the file `place` if that can be written. The cache
    is valid for the same arguments, unchanged files and the same speech detector."""
    of = _digest(rows, [VERSION, best_kind(), rate, longest, shortest])
    known: Any = None
    with suppress(OSError, ValueError):
        known = read_json(place)
    if isinstance(known, dict) and known.get("of") == of:
        # What could not be read then may be readable now. A pretraining that has begun keeps to
        # the recordings that it has.
        begun = (place.parent / "checkpoint").exists()
        again = [u for u in rows if u.id in known["unreadable"] and not begun]
        still = cut_recordings(again, rate, longest, shortest, progress).unreadable
        if begun or still == known["unreadable"]:
            pieces = [_piece(*values) for values in known["pieces"]]
            return Found(pieces, known["short"], known["silent"], known["unreadable"])
    found = cut_recordings(rows, rate, longest, shortest, progress)
    values = {"short": found.short, "silent": found.silent, "unreadable": found.unreadable}
    values["pieces"] = [
        [u.id, str(u.audio), u.duration, u.speaker, u.start, u.end, u.packed]
        for u in found.utterances
    ]
    with suppress(OSError, ValueError):  # a full disk, or a name that is not UTF-8
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"of": of, **values})
    return found


def _digest(rows: Sequence[Utterance], settings: Sequence[object]) -> str:
    total = hashlib.sha256(ascii(settings).encode())
    for u in rows:
        file = None
        with suppress(OSError, ValueError):
            state = as_stored(u.audio).stat()
            file = state.st_size, state.st_mtime_ns
        facts = u.id, str(u.audio), u.speaker, file, u.start, u.end, u.duration, u.packed
        total.update(ascii(facts).encode())
    return total.hexdigest()


def _piece(
    id_: str,
    audio: str,
    duration: float,
    speaker: str,
    start: float,
    end: float | None,
    packed: list[int] | None,
) -> Utterance:
    packed_at = None if packed is None else (packed[0], packed[1])
    return Utterance(id_, Path(audio), "", duration, speaker, start, end, packed_at)
