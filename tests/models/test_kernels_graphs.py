"""The store of CUDA graphs, on loops that do nothing; what graphs compute: test_kernels_gpu.py.

Covers `asr/models/kernels/graphs.py`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import pytest
import torch

from asr.models.kernels import graphs
from asr.models.kernels.graphs import Graphs, Tape


@dataclasses.dataclass(frozen=True)
class Empty:
    """A tape of no work."""

    name: str
    ran: list[str]
    size: tuple[int, int] = (9, 3)

    def parts(self) -> graphs.Parts:
        return graphs.Parts((), (), (), (torch.zeros(*self.size),))

    def resized(self, T: int, B: int) -> Empty:
        return dataclasses.replace(self, size=(T, B))

    def run(self) -> None:
        self.ran.append(self.name)

    def carry_state(self) -> None:
        pass


def test_few_graphs_are_kept_and_the_latest_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def capture(tape: Tape) -> Callable[[], None]:
        made.append(tape.name)
        return tape.run

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "KEPT", 2)
    store = Graphs()
    for name in "abacb":
        captured = store.captured(Empty(name, []))
        assert captured is not None
        assert captured[0].size == (graphs.FRAMES, 8)
    assert made == ["a", "b", "c", "b"]


def test_batches_of_similar_size_share_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "capture", lambda tape: tape.run)
    store = Graphs()
    first, same, other = (
        store.captured(Empty("a", [], (T, B))) for T, B in ((5, 1), (70, 8), (5, 9))
    )
    assert first is same
    assert first is not other


def test_a_failed_capture_is_said_once_and_the_loop_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(tape: Tape) -> Callable[[], None]:
        raise RuntimeError("capture is not permitted")

    monkeypatch.setattr(graphs, "capture", fails)
    store, ran = Graphs(), list[str]()
    with pytest.warns(UserWarning, match="without CUDA graphs.*capture is not permitted"):
        assert store.captured(Empty("a", ran)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.run(Empty("b", ran))
    assert ran == ["b"]
