"""How many seconds of all recordings are transcribed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asr.audio.blocks import stated_seconds
from asr.errors import AudioError
from asr.inference.long_form import Ended, Event, Read, Reading


class Seconds:
    """Reports the seconds that are done, and the seconds of all recordings.

    The total is what the files state or their size suggests, until each has been read.
    """

    def __init__(
        self, sources: Iterable[Any], reading: Reading, show: Callable[[float, float], None]
    ) -> None:
        self._reading, self._show = reading, show
        self._stated = [_stated(source, reading) for source in sources]
        self._total = sum(self._stated)
        self._read = 0.0  # of all recordings
        self._own = 0.0  # of the one that is being read
        self._done = 0.0

    def add(self, event: Event) -> None:
        """What has been read."""
        if isinstance(event, Read):
            self._own += event.seconds
            self._read += event.seconds
        elif isinstance(event, Ended):
            self._total += self._own - self._stated[event.number]
            self._own = 0.0

    def show(self, waiting: float) -> None:
        """Report, with the seconds that were read and wait to be recognised."""
        self._done = max(self._done, self._read - waiting)
        self._show(self._done, max(self._total, self._read))


def _stated(source: Any, reading: Reading) -> float:
    """Seconds of a recording that are to be transcribed; 0 if nothing says so."""
    seconds = 0.0
    if hasattr(source, "__array__") and reading.sample_rate:
        seconds = max(getattr(source, "shape", (0,)), default=0) / reading.sample_rate
    elif isinstance(source, str | Path):
        try:
            seconds = stated_seconds(source)
        except AudioError:
            return 0.0  # reported when it is read
    end = seconds if reading.end is None else min(reading.end, seconds)
    return max(0.0, end - reading.start)
