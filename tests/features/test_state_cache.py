"""Hidden states on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asr.features.state_cache import StateCache, weights_digest
from asr.io.files import _place

STATES = torch.arange(24.0).reshape(2, 3, 4)
ROOM = 4000  # bytes: a file of ten states has 400 and a header


def wave(number: int) -> Tensor:
    return torch.full((5,), float(number))


def stored(cache: StateCache, number: int) -> bool:
    cache.put(cache.path(wave(number)), torch.zeros(10, 2, 10))
    return cache.path(wave(number)).is_file()


def test_states_come_back_by_samples_and_network(tmp_path: Path) -> None:
    cache = StateCache(tmp_path / "states", "a", ROOM)
    path = cache.path(wave(1))
    assert cache.get(path) is None
    cache.put(path, STATES)
    found = StateCache(tmp_path / "states", "a", ROOM).get(path)
    assert found is not None
    assert torch.equal(found, STATES)
    assert cache.path(wave(1)[:4]) != path != cache.path(wave(2))
    assert StateCache(tmp_path / "states", "b", ROOM).path(wave(1)) != path


def test_damaged_files_are_written_again(tmp_path: Path) -> None:
    cache = StateCache(tmp_path, "a", ROOM)
    path = cache.path(wave(1))
    cache.put(path, STATES)
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.get(path) is None
    cache.put(path, STATES)
    assert torch.equal(cache.get(path), STATES)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_this_training_uses_stays_and_the_rest_makes_room(tmp_path: Path) -> None:
    first = StateCache(tmp_path, "a", ROOM)
    kept = [number for number in range(9) if stored(first, number)]
    assert 2 < len(kept) < 9  # full; a second epoch finds the same ones
    assert [n for n in range(9) if first.get(first.path(wave(n))) is not None] == kept
    second = StateCache(tmp_path, "a", ROOM)
    assert second.get(second.path(wave(1))) is not None
    assert all(stored(second, number) for number in range(20, 19 + len(kept)))
    assert not stored(second, 50)
    assert second.path(wave(1)).is_file()
    assert not second.path(wave(0)).is_file()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= ROOM


def test_a_full_disk_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = StateCache(tmp_path, "a", ROOM)
    assert stored(first, 1)
    again = StateCache(tmp_path, "a", ROOM)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("asr.features.state_cache.write_tensors", full)
        assert not stored(again, 2)
    assert not stored(again, 3)
    assert again.path(wave(1)).is_file()


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    left = tmp_path / f".x.safetensors.{2**22}-{_place()}-{'0' * 16}.tmp"
    left.write_bytes(b"half")
    StateCache(tmp_path, "a", ROOM)
    assert not left.exists()


def test_the_digest_is_of_all_weights() -> None:
    layer = nn.Linear(2, 2)
    first = weights_digest(layer)
    assert weights_digest(layer) == first
    with torch.no_grad():
        layer.bias[1] += 1
    assert weights_digest(layer) != first


def test_a_file_that_another_training_removes_is_not_counted(tmp_path: Path) -> None:
    cache = StateCache(tmp_path, "a", ROOM)
    path = cache.path(wave(1))
    cache.put(path, STATES)
    path.with_name(f"gone{path.suffix}").symlink_to(tmp_path / "removed")
    assert StateCache(tmp_path, "a", ROOM).get(path) is not None
