"""Device and precision of a training, which only its recipe sets.

accelerate also reads settings from environment variables, some of which affect training.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from asr.errors import TrainingError

# Variables with which torchrun, mpirun and others state the number of processes.
SIZES = (
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
# With any of these, accelerate waits for other processes, even if there is only one.
PLACES = (
    *SIZES, "RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_RANK",
    "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK",
)  # fmt: skip

# With any of these, the user has tuned glibc's memory.
TUNED = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
# mallopt's parameters, from malloc.h, and their values.
TRIM_THRESHOLD, MMAP_THRESHOLD = (-1, 1 << 30), (-3, 32 << 20)  # bytes; the latter is the largest


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step, up to 1 GiB, unless the user has tuned it.

    Otherwise it returns the tensors of a step to the system, which clears every page anew in the
    next one: about 7 % of the processor time. Other C libraries are left as they are.
    """
    if any(name in os.environ for name in TUNED):
        return
    with suppress(OSError, AttributeError, TypeError):  # no mallopt, or no C library to ask
        for parameter, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, value)


def fits_or_raise(_batch: object, lack: str) -> bool:
    """True. Raises TrainingError if there is a `lack` of memory for a batch, in words."""
    if lack:
        raise TrainingError(f"expected batches that fit into memory, got none left at {lack}")
    return True


def refuse_many_processes() -> None:
    """Raise TrainingError if a launcher has started several processes for one training."""
    for name in SIZES:
        size = os.environ.get(name, "")
        if size.isdecimal() and int(size) > 1:
            raise TrainingError(
                f"expected one process, got {name}={size}: start the training once, without "
                "torchrun, mpirun or srun; only `torchrun -m asr train` shares one among several"
            )


def build_accelerator(precision: str, say: Callable[[str], None]) -> Accelerator:
    """An accelerator in this precision (no, bf16 or fp16), whatever the environment.

    `say` reports ignored variables.
    """
    keep_memory()
    ignored = sorted(name for name in os.environ if name.startswith("ACCELERATE_"))
    if ignored:
        say(f"ignored {', '.join(ignored)}: the recipe decides how a model is trained")
    # The first Accelerator of a process fixes its precision; a later run may need another.
    AcceleratorState._reset_state()
    with _without([*ignored, *PLACES]):
        accelerator = Accelerator(mixed_precision=precision)
    accelerator.state.device = numbered(accelerator.device)
    return accelerator


def numbered(device: torch.device) -> torch.device:
    """The same with the number of the GPU. torch's current GPU is a setting of each thread: without
    a number, the thread that copies batches would use GPU 0, whatever the rank of the process.

    >>> numbered(torch.device("cpu"))
    device(type='cpu')
    """
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def _without(names: list[str]) -> Iterator[None]:
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def shown_precision(computed: str) -> str:
    """accelerate's name for a precision as that of `train.precision`.

    >>> shown_precision("no"), shown_precision("bf16")
    ('fp32', 'bf16')
    """
    return "fp32" if computed == "no" else computed
