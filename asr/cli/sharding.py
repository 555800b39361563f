"""The options `--shard` and `--merge`: one command on many machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from asr.errors import ConfigError
from asr.io.terminal import progress_bar, tell

if TYPE_CHECKING:
    from asr.io.shard_results import Row, State, Work
    from asr.io.sharding import Shard

Results = Callable[[Sequence[str]], Iterable["tuple[str, Row]"]]
"""Ids to the result of each, in any order."""


@dataclass(frozen=True)
class ShardOptions:
    """A part of the work, or the joining of all parts."""

    SECTION: ClassVar[str] = "Many machines"

    shard: Annotated[
        str | None,
        typer.Option(
            metavar="i/N",
            help="Do part i of N. auto: that of torchrun or Slurm; auto/N: of Kubernetes.",
        ),
    ] = None
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Join the results of all shards as --out, and check them."),
    ] = False

    def check(self, out: Path | None) -> Shard | None:
        """The shard to do, if any. Raises ConfigError for options that exclude each other."""
        from asr.io.sharding import read_shard

        if self.shard is not None and self.merge:
            raise ConfigError("expected --shard or --merge, got both: merge after all shards")
        if out is None and (self.shard is not None or self.merge):
            given = "--merge" if self.merge else "--shard"
            raise ConfigError(f"expected --out with {given}, got none: name where results go")
        return None if self.shard is None else read_shard(self.shard, os.environ)

    def work(
        self, command: str, out: Path | None, options: Mapping[str, object], ids: Sequence[str]
    ) -> Work | None:
        """What the shards of a command have in common; None without these options. Paths among
        `options` stand for the content of their files, `ids` for all items in order."""
        if self.check(out) is None and not self.merge:
            return None
        from asr import __version__
        from asr.io.shard_results import Work, option_texts

        assert out is not None
        named = out if out.name not in ("", "..") else Path(os.path.abspath(out))  # noqa: PTH100
        folder = named.parent / f"{named.name}.shards"
        return Work(folder, command, __version__, option_texts(options), ids)

    def run(
        self,
        work: Work,
        states: Callable[[str], State],
        results: Results,
        is_here: Callable[[str], bool] = lambda id_: True,
    ) -> int:
        """Process the items of this shard, report those that failed, and return their number.
        Items with a result of an earlier process are left, if what it wrote `is_here`."""
        shard = self.check(work.folder)
        assert shard is not None
        return run_shard(work, shard, states, results, is_here)


def run_shard(
    work: Work,
    shard: Shard,
    states: Callable[[str], State],
    results: Results,
    is_here: Callable[[str], bool] = lambda id_: True,
    named: bool = True,
) -> int:
    """As `ShardOptions.run`; not `named`, as a whole command that can be resumed."""
    from asr.io.shard_results import open_journal

    failed = 0
    with open_journal(work, shard) as journal, progress_bar(work.command) as progress:
        own = {id_: states(id_) for id_ in work.wanted if shard.holds(id_)}
        left = [id_ for id_, at in own.items() if not (journal.has(id_, at) and is_here(id_))]
        before = f", {len(own) - len(left)} done before" if len(left) < len(own) else ""
        if named:
            tell(f"shard {shard}: {len(own)} of {len(work.wanted)}{before}")
        elif before:
            tell(f"note: {len(own) - len(left)} of {len(own)} were done before")
        for done, (id_, row) in enumerate(results(left) if left else (), start=1):
            if row.error is not None:
                tell(f"error: {row.error}")
                failed += 1
            journal.add(id_, own[id_], row)
            progress(done, len(left))
        journal.finish()
    if failed:
        tell(f"{failed} of {len(own)} failed; the same command tries them again")
    return failed


@contextmanager
def merged_rows(work: Work, states: Callable[[str], State]) -> Iterator[Callable[[str], Row]]:
    """A function that gives the result of each item, after a check of all shards.

    Raises AsrError as `open_merged` and `Merged.check` do.
    """
    from asr.io.shard_results import open_merged

    with open_merged(work) as merged:
        merged.check({id_: states(id_) for id_ in work.wanted})
        yield merged.row
