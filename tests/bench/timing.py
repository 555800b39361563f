"""Interleaved measurements: every contestant in every round, so that a noisy machine is fair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Verdict:
    """A figure beside its goal."""

    what: str
    value: float
    goal: str
    reached: bool


VERDICTS: list[Verdict] = []
"""Those of this process, in order."""


def interleave(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant, after a round that is not counted.

    The order is turned by one from round to round, so that nobody always runs after the same peer.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            contestants[name]()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; all but the first to the right."""
    print(f"\n{title}")
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  " + "   ".join([first, *rest]))


def print_ratios(
    title: str, unit: str, seconds: Mapping[str, float], show: Callable[[float], str]
) -> None:
    """Each contestant's time, as `show` writes it, and how many times that of "ours" it is."""
    print_table(
        title,
        ["", unit, "to ours"],
        [[name, show(value), f"{value / seconds['ours']:.2f}"] for name, value in seconds.items()],
    )


def verdict(what: str, value: float, goal: str, reached: bool) -> None:
    """One line: what was measured, its value, the goal and whether it is reached. It is kept in
    `VERDICTS`."""
    VERDICTS.append(Verdict(what, value, goal, reached))
    print(f"  {what}: {value:.3g} (goal {goal}: {'reached' if reached else 'missed'})")
