"""A shard: part i of N of independent work, which many machines do without communication.

Items belong to shards by a hash of their ids. `--shard` gives i and N, or the system that has
started the process states them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from asr.errors import ConfigError

MOST_SHARDS = 99_999
_INSTEAD = "give --shard i/N, as in --shard 3/16"


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, id_: str) -> bool:
        """Whether an item belongs to this shard."""
        return shard_number(id_, self.count) == self.number


def shard_number(id_: str, count: int) -> int:
    """The shard of an item, from 1 to `count`: the same on every machine and in every version of
    Python, whatever else is divided. Bytes of a file name that are not UTF-8 count too.

    >>> [shard_number(name, 3) for name in ("a1", "a2", "caf\\udce9")]
    [1, 2, 3]
    """
    hashed = hashlib.sha256(id_.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(hashed[:8], "big") % count + 1


def read_shard(text: str, environ: Mapping[str, str]) -> Shard:
    """The shard of `i/N`, of `auto`, or of `auto/N` where the system states no N.

    `auto` reads RANK and WORLD_SIZE of torchrun, SLURM_ARRAY_TASK_ID and its companions of a Slurm
    array, or JOB_COMPLETION_INDEX of a Kubernetes indexed job. It has to be asked for: such
    variables also exist where each process is to do all of its work.

    Raises ConfigError.

    >>> read_shard("3/16", {}), read_shard("auto", {"RANK": "0", "WORLD_SIZE": "4"})
    (Shard(number=3, count=16), Shard(number=1, count=4))
    """
    found = re.fullmatch("([0-9]{1,9}|auto)(?:/([0-9]{1,9}))?", text.strip())
    which, count = found.groups() if found else ("", None)
    if which == "auto":
        return _found(environ, None if count is None else int(count))
    if not which or count is None:
        raise ConfigError(f"expected --shard i/N, auto or auto/N, got {text!r}: {_INSTEAD}")
    return _checked(int(which), int(count), text)


def _found(environ: Mapping[str, str], count: int | None) -> Shard:
    readers = {
        "torchrun (RANK, WORLD_SIZE)": ({"RANK", "WORLD_SIZE"}, _torchrun),
        "a Slurm array (SLURM_ARRAY_TASK_ID)": ({"SLURM_ARRAY_TASK_ID"}, _slurm),
        "a Kubernetes indexed job (JOB_COMPLETION_INDEX)": ({"JOB_COMPLETION_INDEX"}, _kubernetes),
    }
    present = [name for name, (keys, _) in readers.items() if keys <= environ.keys()]
    if len(present) != 1:
        got = " and ".join(present) or "none of them"
        raise ConfigError(
            f"expected one of {', '.join(readers)} with --shard auto, got {got}: {_INSTEAD}"
        )
    shard = readers[present[0]][1](environ, count)
    if count not in (None, shard.count):
        raise ConfigError(
            f"expected {count} shards, as in --shard auto/{count}, got {shard.count} from "
            f"{present[0]}: {_INSTEAD}"
        )
    return shard


def _torchrun(environ: Mapping[str, str], count: int | None) -> Shard:
    rank, size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    return _checked(rank + 1, size, f"RANK={rank} and WORLD_SIZE={size}")


def _slurm(environ: Mapping[str, str], count: int | None) -> Shard:
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    first = _number(environ, "SLURM_ARRAY_TASK_MIN")
    tasks = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    step = _number(environ, "SLURM_ARRAY_TASK_STEP", "1")
    place, rest = divmod(task - first, step) if step else (-1, 0)
    if rest or not 0 <= place < tasks:
        raise ConfigError(
            f"expected a Slurm array such as --array=1-{tasks}, got task {task} of {tasks} from "
            f"{first} in steps of {step}: {_INSTEAD}"
        )
    return _checked(place + 1, tasks, f"SLURM_ARRAY_TASK_COUNT={tasks}")


def _kubernetes(environ: Mapping[str, str], count: int | None) -> Shard:
    index = _number(environ, "JOB_COMPLETION_INDEX")
    if count is None:
        raise ConfigError(
            "expected --shard auto/N in a Kubernetes job, which does not state the number of its "
            "completions, got auto: give N"
        )
    return _checked(index + 1, count, f"JOB_COMPLETION_INDEX={index} and N = {count}")


def _number(environ: Mapping[str, str], name: str, otherwise: str = "") -> int:
    value = environ.get(name, otherwise)
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ConfigError(f"expected a number in {name}, got {value!r}: {_INSTEAD}")
    return int(value)


def _checked(number: int, count: int, text: str) -> Shard:
    if not 1 <= number <= count <= MOST_SHARDS:
        raise ConfigError(
            f"expected a shard i/N with 1 <= i <= N <= {MOST_SHARDS}, got {text}: shards count "
            "from 1"
        )
    return Shard(number, count)
