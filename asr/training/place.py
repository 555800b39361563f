"""The place of a training: its folder, which it has to itself, its display and stop request."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from asr.errors import TrainingError
from asr.io.files import locked, restore_folders
from asr.training import distributed
from asr.training.checkpoint import has_checkpoint
from asr.training.device import refuse_many_processes
from asr.training.display import Display
from asr.training.interrupt import PIPE, InterruptedTraining, StopRequest


@dataclass(frozen=True)
class Place:
    """The place of a training: its folder (None: only in memory), display and stop request."""

    folder: Path | None
    display: Display
    stop: StopRequest
    hint: str = ""
    """Further commands for a stopped training."""

    @property
    def checkpoint(self) -> Path:
        """Folder of the newest checkpoint."""
        return (self.folder or Path()) / "checkpoint"

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to resume; a collective call of all processes."""
        begun = self.folder is not None and has_checkpoint(self.checkpoint)
        return distributed.broadcast(begun)

    def answer_stop(self, *_: object) -> None:
        """Raise InterruptedTraining after a stop signal or closed output, or BrokenPipeError if
        nothing can be saved. A collective call of all processes: a signal to one stops all."""
        number = PIPE if self.display.closed else self.stop.signal
        if number := distributed.all_reduce_max(number or 0):
            if self.folder is None:
                raise BrokenPipeError
            raise InterruptedTraining(number, self.folder, self.hint)


@contextmanager
def working_in(
    folder: Path | None, epochs: int, console: Console | None, lasting: bool = False, hint: str = ""
) -> Iterator[Place]:
    """Hold the folder of a training, show its progress and turn signals into a stop request.

    A `lasting` folder also gets curves. From any other, checkpoints are removed after the training,
    and the folder if it is empty. Without a folder nothing is saved, and signals are not handled.

    Of several processes, only the first writes to the folder and shows progress.

    Raises AsrError for another training in the same folder, processes that are not `joined`, and a
    full disk.
    """
    if not distributed.is_joined():
        refuse_many_processes()
    elif folder is not None and not distributed.is_first():
        with StopRequest() as stop, Display(epochs, Console(quiet=True)) as display:
            yield Place(folder, display, stop, hint)
        return
    if folder is None:
        with Display(epochs, console) as display:
            yield Place(None, display, StopRequest())
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"expected a folder to write to, got {folder}: {error.strerror}; choose another out"
        ) from None
    try:
        # Until everything is closed, no signal may replace the report that the run is saved.
        with (
            StopRequest() as stop,
            locked(folder / ".lock", "training") as held,
            Display(epochs, console, folder / "tensorboard" if lasting else None) as display,
        ):
            if not held:
                display.say(
                    f"no locks on the file system of {folder}: nothing prevents a second training "
                    "in this folder"
                )
            restore_folders(folder)
            yield Place(folder, display, stop, hint)
            if not lasting:
                _remove_checkpoints(folder)
        if not lasting:
            if not held:  # `locked` has not removed it
                (folder / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # there is something else in it
                folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"expected space to write {folder}, got a full disk: make room, and the same "
            "command resumes the training"
        ) from None


def _remove_checkpoints(folder: Path) -> None:
    """Remove the state of a training from its folder, and nothing else that lies there."""
    for name in ("checkpoint", "checkpoint-before", "checkpoint-damaged"):
        state = folder / name
        if state.is_symlink():
            state.unlink()
        elif state.is_dir():
            shutil.rmtree(state)
