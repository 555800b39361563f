"""The display of a running training, and its curves for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from asr.io.error_console import ErrorConsole
from asr.io.printable import printable_lines
from asr.io.terminal import errors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PLAIN_S = 30.0  # between two lines of progress without a terminal


class Display:
    """A progress bar over the whole training, one line per epoch, and TensorBoard scalars in the
    folder `curves`, if there is one.

    Without a terminal, occasional lines replace the bar.
    """

    def __init__(
        self, epochs: int, console: Console | None = None, curves: Path | None = None
    ) -> None:
        self.console = console or errors()
        self._scalars: SummaryWriter | None = None
        self._open_curves: Callable[[], SummaryWriter] | None = None
        if curves is not None:
            # Imported here: it takes a second, and only training needs it.
            from torch.utils.tensorboard import SummaryWriter

            self._open_curves = partial(SummaryWriter, str(curves))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            speed_estimate_period=600,
            disable=not self.console.is_terminal,
        )
        self._epochs = epochs
        self._task = self._bar.add_task("starting", total=float(epochs))
        self._dev = ""
        self._begun: tuple[float, float] | None = None  # when, and with how many epochs done
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._scalars is not None:
            self._scalars.close()

    @property
    def closed(self) -> bool:
        """Whether the reader of the output has closed it, as `head` does."""
        return isinstance(self.console, ErrorConsole) and self.console.closed

    def say(self, message: str) -> None:
        """Print a line above the bar, unless the output is closed."""
        with suppress(BrokenPipeError):
            self.console.print(
                printable_lines(message), highlight=False, markup=False, soft_wrap=True
            )

    def step(self, done: float, loss: float, hours_per_hour: float) -> None:
        """After a step: epochs done (a fraction), loss so far, hours of audio per hour, if any."""
        epoch = min(int(done) + 1, self._epochs)
        pace = f"  {hours_per_hour:.0f} h/h" if hours_per_hour else ""
        text = f"epoch {epoch}/{self._epochs}  loss {loss:.3f}{pace}{self._dev}"
        self._bar.update(self._task, completed=done, description=text)
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)
        elif not self.console.is_terminal and now - self._shown >= PLAIN_S:
            self._shown = now
            self.say(
                f"{text}  {time_left(now - self._begun[0], self._begun[1], done, self._epochs)}"
            )

    def complete(self) -> None:
        """After the last epoch, whatever their number."""
        self._bar.update(self._task, completed=self._epochs, description="trained")

    def epoch(self, row: dict[str, Any], dev: str) -> None:
        """After an epoch: its row of the history, and the displayed dev results."""
        dev = f"  {dev}" if dev else ""
        self._dev = dev.partition(" (")[0]
        self.say(f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}{dev}  {row['seconds']:.1f} s")
        if self._open_curves is not None:
            # Opened after an epoch: a training that is refused leaves no folder.
            self._scalars = self._scalars or self._open_curves()
            for name, value in row.items():
                if isinstance(value, float):
                    self._scalars.add_scalar(name, value, row["epoch"])
            self._scalars.flush()


def time_left(seconds: float, begun: float, done: float, epochs: int) -> str:
    """The remaining time, at the pace of the `seconds` since `begun` epochs were done.

    >>> time_left(60, 2.0, 3.0, 5), time_left(3600, 0.0, 1.0, 4)
    ('2 min left', '180 min left')
    """
    left = seconds * (epochs - done) / max(done - begun, 1e-9)
    return f"{max(1, round(left / 60))} min left"
