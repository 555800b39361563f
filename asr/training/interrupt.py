"""Ctrl-C, SIGTERM, SIGHUP and closed output as a stop request, which the training loop answers
between two steps."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

from asr.io.terminal import IMPATIENT_S

HANGUP = getattr(signal, "SIGHUP", None)
PIPE = getattr(signal, "SIGPIPE", 13)
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class InterruptedTraining(Exception):  # noqa: N818 - no error: it ends as asked
    """Training stopped after saving; `signal` is the number of the signal, `PIPE` if the output was
    closed. `hint` suggests further commands."""

    def __init__(self, number: int, folder: Path, hint: str = "") -> None:
        super().__init__(
            f"stopped and saved in {folder}: the same command resumes the training{hint}"
        )
        self.signal = number


class StopRequest:
    """While entered, `signal` holds the number of the last stop signal received, else None.

    A second Ctrl-C, `IMPATIENT_S` or more after the first signal, interrupts at once. Outside the
    main thread, signals are not handled.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                # nohup ignores SIGHUP on purpose.
                if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self._since = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since >= IMPATIENT_S:
            raise KeyboardInterrupt
        self.signal = number
