"""Confidence against accuracy as a picture: calibrated confidences are on the diagonal."""

from __future__ import annotations

import textwrap
from pathlib import Path

from asr.evaluation.classification import wilson_interval
from asr.evaluation.confidence import BINS, Calibration
from asr.io.files import atomic_path
from asr.plotting import pyplot


def write_picture(result: Calibration, path: str | Path, title: str) -> None:
    """Write a PNG, atomically: above, the share of correct words by confidence; below, the number
    of words."""
    plt = pyplot(path)
    figure, (axes, counts) = plt.subplots(
        2, 1, figsize=(6, 7), sharex=True, height_ratios=(4, 1), layout="constrained"
    )
    sure = [100 * row.confidence for row in result.bins]
    axes.plot((0, 100), (0, 100), ":", color="grey")
    for row, x in zip(result.bins, sure, strict=True):
        # Wilson's interval of 95 %, which is wide for few words.
        low, high = wilson_interval(round(row.words * row.right), row.words)
        axes.plot((x, x), (100 * low, 100 * high), color="tab:blue", alpha=0.4)
    axes.plot(sure, [100 * row.right for row in result.bins], "o", color="tab:blue")
    axes.set_ylabel("correct, % (95 %)")
    lines = [textwrap.fill(line, 80) for line in title.splitlines()]
    lines.append(f"expected calibration error {100 * result.error:.1f} %")
    axes.set_title("\n".join(lines), fontsize=9, parse_math=False)  # names may have a $
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.3)
    middles = [(int(BINS * row.confidence) + 0.5) * 100 / BINS for row in result.bins]
    counts.bar(middles, [row.words for row in result.bins], width=80 / BINS, color="tab:blue")
    counts.set_yscale("log")
    counts.set_ylabel("words")
    counts.set_xlabel("confidence, %")
    counts.set_xlim(0, 103)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
