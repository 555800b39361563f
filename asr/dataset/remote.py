"""Shards fetched during training, so that a corpus may be larger than the disk.

The plan of an epoch draws its batches from a few shards at a time (`asr.dataset.cuts.windows`).
During training on these, the next ones are fetched and used ones are removed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec

from asr.dataset.cuts import Item
from asr.dataset.manifest import Utterance
from asr.dataset.shards import Archive, by_shard
from asr.errors import AsrError, disk_trouble
from asr.io.files import atomic_path

FETCHERS = 4
TRIES = 3
TELL_S = 60.0  # shortest interval between messages
BLOCK = 1 << 20
RESERVE = 1 << 30  # free bytes that a shard larger than expected must leave on the disk
WAIT_S = 2.0  # before the second try; twice as long before the third


@dataclass(frozen=True)
class RemoteShards:
    """The shards of a training set: all are at `origin`, some of them on disk.

    The shards on disk were fetched and may be removed. They take at most `room` bytes, unless a
    single batch needs more.
    """

    origin: str
    shards: Sequence[Archive]
    of: Sequence[int]
    """The index in `shards` for each utterance."""
    room: int
    lasting: frozenset[int] = frozenset()
    """Shards that are never removed."""

    def fetched(
        self, plan: Sequence[list[Item]], say: Callable[[str], None]
    ) -> Iterator[list[Item]]:
        """The batches of a plan in order, each when its shards are on disk; waiting is reported.

        Requesting a batch means that the previous one has been read. Raises AsrError naming a shard
        that cannot be fetched.
        """
        reported = -TELL_S
        wanted = [{self.of[i] for item in batch for i in item.indices} for batch in plan]
        last = {shard: place for place, batch in enumerate(wanted) for shard in batch}
        queue = list(dict.fromkeys(shard for batch in wanted for shard in sorted(batch)))
        here = {i for i, shard in enumerate(self.shards) if shard.path.is_file()}
        coming: dict[int, Future[None]] = {}
        workers = ThreadPoolExecutor(FETCHERS)
        try:
            for place, batch in enumerate(plan):
                while queue:
                    # First used shards, then those that are needed last.
                    removable = here - self.lasting
                    spare = [i for i in removable if last.get(i, -1) < place]
                    spare += [i for i in reversed(queue[1:]) if i in removable]
                    if queue[0] not in wanted[place] and not self._fits(here, queue[0], spare):
                        break
                    here = self._with(here, queue[0], spare)
                    shard = queue.pop(0)
                    coming[shard] = workers.submit(fetch, self.origin, self.shards[shard])
                late = [i for i in wanted[place] if not self.shards[i].path.is_file()]
                if late and time.monotonic() - reported > TELL_S:
                    reported = time.monotonic()
                    say(
                        f"waiting for shards from {self.origin}: {len(late)}, "
                        f"{self._bytes(late) / 1e6:.1f} MB"
                    )
                for shard in wanted[place]:
                    coming[shard].result()
                yield batch
        finally:
            workers.shutdown(cancel_futures=True)

    def _bytes(self, shards: Iterable[int]) -> int:
        return sum(self.shards[i].bytes for i in shards)

    def _fits(self, here: set[int], shard: int, spare: Iterable[int]) -> bool:
        return self._bytes((here - set(spare)) | {shard}) <= self.room

    def _with(self, here: set[int], shard: int, spare: Iterable[int]) -> set[int]:
        """The shards on disk after making room for `shard`, by removing as many of `spare` as
        needed, first ones first."""
        here = here | {shard}
        for i in spare:
            if self._bytes(here) <= self.room:
                break
            self.shards[i].path.unlink(missing_ok=True)
            here.remove(i)
        return here


def batches_on_disk(
    plan: Sequence[list[Item]], shards: RemoteShards | None, say: Callable[[str], None]
) -> Iterator[list[Item]]:
    """The batches of a plan, each when its recordings can be read."""
    return iter(plan) if shards is None else shards.fetched(plan, say)


def remote_shards(
    origin: str,
    folder: Path,
    utterances: Sequence[Utterance],
    room: int,
    others: Sequence[Utterance] = (),
) -> RemoteShards:
    """The origin of the shards of these utterances; fetched shards are stored in `folder`. Shards
    that also hold some of `others` are not removed again.

    Raises AsrError if recordings are not packed, or if shards have a path outside the folder.
    """
    shards, of = _shards_in(folder, utterances)
    needed = {shard.path for shard in _shards_in(folder, others)[0]}
    lasting = frozenset(i for i, shard in enumerate(shards) if shard.path in needed)
    return RemoteShards(origin, shards, of, room, lasting)


def _shards_in(
    folder: Path, utterances: Sequence[Utterance]
) -> tuple[list[Archive], Sequence[int]]:
    # Files outside the folder belong to the user: they must be neither removed nor overwritten.
    shards, of = by_shard(utterances)
    for shard in shards:
        if shard.path.parent != folder.absolute():
            raise AsrError(
                f"expected shards named without a folder with data.origin, got {shard.path} in a "
                "manifest: take the manifests that asr pack wrote, or leave out data.origin"
            )
    return shards, of


def fetch_all(origin: str, folder: Path, utterances: Sequence[Utterance]) -> None:
    """Fetch missing shards of these utterances into `folder`. Raises AsrError."""
    shards, _ = _shards_in(folder, utterances)
    with ThreadPoolExecutor(FETCHERS) as workers:
        for _ in workers.map(fetch, [origin] * len(shards), shards):
            pass


def fetch(origin: str, shard: Archive) -> None:
    """Copy a shard from its origin atomically if it is not on disk.

    Raises AsrError naming the address, after a few tries.
    """
    if shard.path.is_file():
        return
    address = f"{origin.rstrip('/')}/{shard.path.name}"
    for attempt in range(TRIES):
        try:
            _copy(address, shard)
            return
        except (FileNotFoundError, ImportError, ValueError) as error:  # a retry would fail
            # The host of a missing file may be missing as well.
            known = error.__cause__ or not isinstance(error, FileNotFoundError)
            reason = " ".join(str(error.__cause__ or error).split()) if known else "nothing there"
            break
        except Exception as error:  # each type of storage has its own exceptions
            if isinstance(error, OSError) and disk_trouble(error):
                raise  # a local problem, not one of the origin
            reason = " ".join(str(error).split()) or type(error).__name__
            if attempt < TRIES - 1:
                time.sleep(WAIT_S * 2**attempt)
    raise AsrError(f"expected a shard at {address}, got {reason}: check data.origin, and run again")


def _copy(address: str, shard: Archive) -> None:
    """Raises ValueError if the source is larger than the manifest implies and would leave less than
    `RESERVE` of the disk: the true size is unknown, because other manifests may list more of the
    shard."""
    folder = shard.path.parent
    with (
        atomic_path(shard.path) as temporary,
        fsspec.open(address, "rb") as source,
        temporary.open("wb") as target,
    ):
        stated = getattr(source, "size", None) or 0
        left = shutil.disk_usage(folder).free - RESERVE
        if stated > max(shard.bytes, left):
            raise ValueError(_too_large(stated, shard))
        while block := source.read(BLOCK):
            target.write(block)
            done = target.tell()
            if done > shard.bytes and shutil.disk_usage(folder).free < RESERVE:
                raise ValueError(_too_large(done, shard))
        if target.tell() < shard.bytes:
            raise OSError(f"{target.tell()} of {shard.bytes} bytes")


def _too_large(size: int, shard: Archive) -> str:
    return (
        f"{size:,} bytes or more instead of the {shard.bytes:,} of the manifest, which would fill "
        "the disk"
    )
