"""Tests of Triton kernels without a GPU: in Triton's interpreter, by a process of their own.

Triton decides when it is imported whether its kernels are compiled or interpreted. A module marks
its class `TestInterpreted` with `__test__ = INTERPRETED`, and a slow test calls `run_interpreted`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from asr.models.kernels import gpu

INTERPRETED = gpu.interpreted()


def run_interpreted(module: str) -> None:
    """Run `TestInterpreted` of a test module (its `__file__`) in the interpreter."""
    here = Path(module).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{here}::TestInterpreted"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
