"""Memory that a step has freed is there for the next one.

Covers `asr/training/device.py`, with `test_averaging.py`.
"""

from __future__ import annotations

import ctypes
import platform
import resource

import pytest
import torch

from asr.training import device
from tests import processes


def new_pages(count: int = 6, numbers: int = 3 << 20) -> int:
    """Pages that the system supplies for tensors like those of a step, 12 MiB each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(numbers) for _ in range(count)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    # In a process of its own: other tests leave no room for tensors of this size in the heap.
    process = processes.start(require_kept)
    process.join()
    assert process.exitcode == 0


def require_kept() -> None:
    device.keep_memory()
    # Of 18,000; a hole may be too small at first.
    assert min(new_pages() for _ in range(4)) < 100


@pytest.mark.parametrize("name", device.TUNED)
def test_the_users_own_settings_are_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("changed the settings"))
    device.keep_memory()


def test_a_library_without_such_a_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in device.TUNED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    device.keep_memory()
