"""Weighted finite-state transducers in the binary format of OpenFst (type vector, arcs standard).

openfst.org, `fst/fst.h` (FstHeader) and `fst/vector-fst.h`: a header, then for each state its final
weight, the number of its arcs, and the arcs. Weights are costs of the tropical semiring.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MAGIC = 2125659606
EXPANDED, MUTABLE = 1, 2  # properties
EPSILON = 0
IMPOSSIBLE = float("inf")


@dataclass
class Fst:
    """States are numbered from 0, the start."""

    arcs: list[tuple[int, int, float, int]] = field(default_factory=list)
    """From, input label, cost, to. Output labels are empty: the text follows from the input."""
    finals: dict[int, float] = field(default_factory=dict)
    """The cost of each final state."""
    states: int = 0

    def add_state(self) -> int:
        self.states += 1
        return self.states - 1

    def add_arc(self, start: int, label: int, cost: float, end: int) -> None:
        self.arcs.append((start, label, cost, end))


def write_fst(path: Path, fst: Fst) -> None:
    """Write the transducer."""
    path.write_bytes(_header(fst) + _body(fst.arcs, fst.finals, fst.states))


def _header(fst: Fst) -> bytes:
    kinds = b"".join(struct.pack("<i", len(kind)) + kind for kind in (b"vector", b"standard"))
    sizes = (EXPANDED | MUTABLE, 0, fst.states, len(fst.arcs))  # properties, start, states, arcs
    return struct.pack("<i", MAGIC) + kinds + struct.pack("<iiQqqq", 2, 0, *sizes)


def _body(
    arcs: Sequence[tuple[int, int, float, int]], finals: Mapping[int, float], states: int
) -> bytes:
    """A state takes 3 words of 32 bits and 4 more for each arc."""
    starts, labels, ends = (
        np.array([arc[i] for arc in arcs], np.int32).reshape(-1) for i in (0, 1, 3)
    )
    order = np.argsort(starts, kind="stable")
    counts = np.bincount(starts, minlength=states)
    words = np.zeros(3 * states + 4 * len(arcs), "<i4")
    heads = 3 * np.arange(states) + 4 * np.concatenate([[0], np.cumsum(counts)])[:-1]
    weights = np.full(states, IMPOSSIBLE, "<f4")
    weights[list(finals)] = list(finals.values())
    words[heads] = weights.view("<i4")
    words[heads + 1] = counts  # a 64-bit number, whose upper half is 0
    places = 3 * (starts[order] + 1) + 4 * np.arange(len(arcs))
    words[places] = labels[order]  # the output label stays 0
    costs = np.array([arc[2] for arc in arcs], "<f4").reshape(-1)
    words[places + 2] = costs[order].view("<i4")
    words[places + 3] = ends[order]
    return words.tobytes()
