"""`python -m tests.bench [name ...]` runs the named benchmarks, or all of them.

What has a goal is listed at the end, as a table for docs/speed.md. All figures are written to
exp/bench/gpu.json, or cpu.json where there is no GPU. A benchmark that fails does not keep the
others from running.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from asr.evaluation.evaluate import machine_name
from asr.io.files import read_json, write_json
from tests.bench import timing

BENCHMARKS = (
    "recurrent",
    "family",
    "gpu",
    "batch_norm",
    "an4",
    "loading",
    "many_files",
    "pieces",
    "processes",
    "crowded",
    "features",
    "decoding",
    "word_times",
    "report",
    "export",
    "intervals",
    "size",
    "startup",
    "step",
    "recognition",
    "serve",
    "long_form",
    "wyoming",
    "sockets",
)
OUT = Path(__file__).resolve().parents[2] / "exp" / "bench"


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"error: expected benchmarks among {', '.join(BENCHMARKS)}, got {unknown[0]}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {
        "machine": machine_name(),
        "gpu": gpu,
        "torch": torch.__version__,
        "date": str(date.today()),
    }
    print(f"torch {torch.__version__} on {machine_name()}, {gpu or 'no GPU'}")
    path = OUT / ("gpu.json" if gpu else "cpu.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The figures of other benchmarks stay, with the machine and date of each.
    rows = read_json(path)["benchmarks"] if path.is_file() else []
    found, failed = [], []
    for name in names:
        before = len(timing.VERDICTS)
        details: Any = None
        try:
            details = importlib.import_module(f"tests.bench.{name}").run()
        except Exception:
            traceback.print_exc()
            failed.append(name)
        goals = [asdict(verdict) for verdict in timing.VERDICTS[before:]]
        found.append({"benchmark": name, "goals": goals, "details": details, **facts})
        done = {row["benchmark"] for row in found}
        others = [row for row in rows if row["benchmark"] not in done]
        write_json(path, facts | {"failed": failed, "benchmarks": [*others, *found]})
    _print_goals(found, failed, facts)
    print(f"written to {path}")
    if failed:
        sys.exit(1)


def _print_goals(
    found: list[dict[str, Any]], failed: list[str], facts: dict[str, str | None]
) -> None:
    """What has a goal, in Markdown."""
    print(f"\n{facts['gpu'] or facts['machine']}, torch {facts['torch']}, {facts['date']}\n")
    print("| benchmark | measured | result | goal | |\n|---|---|---|---|---|")
    for part in found:
        for goal in part["goals"]:
            reached = "reached" if goal["reached"] else "missed"
            print(
                f"| {part['benchmark']} | {goal['what']} | {goal['value']:,.3g} | {goal['goal']} "
                f"| {reached} |"
            )
    for name in failed:
        print(f"| {name} | | failed | | missed |")
    if facts["gpu"] is None:
        print("\nno GPU: the goals of a GPU are not measured here")


if __name__ == "__main__":
    main()
