"""`python -m tests.bench [name ...]` runs the named benchmarks, or all of them."""

from __future__ import annotations

import sys

import torch

from asr.evaluation.evaluate import machine_name
from tests.bench import (
    an4,
    crowded,
    decoding,
    export,
    family,
    features,
    gpu,
    intervals,
    loading,
    long_form,
    many_files,
    pieces,
    processes,
    recognition,
    recurrent,
    report,
    serve,
    size,
    sockets,
    startup,
    step,
    word_times,
    wyoming,
)

BENCHMARKS = {
    "recurrent": recurrent.run,
    "family": family.run,
    "gpu": gpu.run,
    "an4": an4.run,
    "loading": loading.run,
    "many_files": many_files.run,
    "pieces": pieces.run,
    "processes": processes.run,
    "crowded": crowded.run,
    "features": features.run,
    "decoding": decoding.run,
    "word_times": word_times.run,
    "report": report.run,
    "export": export.run,
    "intervals": intervals.run,
    "size": size.run,
    "startup": startup.run,
    "step": step.run,
    "recognition": recognition.run,
    "serve": serve.run,
    "long_form": long_form.run,
    "wyoming": wyoming.run,
    "sockets": sockets.run,
}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"error: expected benchmarks among {', '.join(BENCHMARKS)}, got {unknown[0]}")
    print(f"torch {torch.__version__} on {machine_name()}")
    for name in names:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
