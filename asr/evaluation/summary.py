"""One line of a results table from the files of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from asr.evaluation.page import interval_text, percent
from asr.io.files import read_json


def result_row(run: Path, report: Path) -> dict[str, str]:
    """Cells by column for a run folder and the report folder of its test set. If characters are
    counted, CER comes first and there is no WER."""
    scores = read_json(report / "report.json")
    info = read_json(run / "model" / "info.json")
    history = read_json(run / "history.json")
    rates = [name for name in ("wer", "cer") if name in scores]
    main, facts = scores[rates[0]], scores["run"]
    interval = interval_text(main["interval"])
    seconds = sorted(row["seconds"] for row in history)
    return {
        "date": info["date"],  # of the training, which is not repeated
        "seed": str(info["seed"]),
        f"{rates[0].upper()} % (95 %)": f"{percent(main['rate'])} ({interval})",
        "errors": f"{main['errors']}/{main['reference_length']}",
        **{f"{name.upper()} %": percent(scores[name]["rate"]) for name in rates[1:]},
        "SER %": percent(scores["ser"]["rate"], 1),
        "parameters": f"{facts['parameters'] / 1e6:.1f} M",
        "epochs": str(info["epochs"]),
        "s/epoch": f"{seconds[len(seconds) // 2]:.0f}",
        "minutes": f"{info['training_seconds'] / 60:.0f}",
        "machine": facts["machine"],
    }


def to_markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table of rows, at least one; a change of columns begins another table.

    >>> print(to_markdown([{"seed": "1", "errors": "3/9"}]))
    | seed | errors |
    |---|---|
    | 1 | 3/9 |
    """

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n\n".join(
        "\n".join([line(names), "|" + "---|" * len(names), *(line(row.values()) for row in alike)])
        for names, alike in groupby(rows, key=tuple)
    )
