"""One line of a results table from the files a run leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.files import read_json

COLUMNS = (
    "date", "seed", "WER % (95 %)", "errors", "CER %", "SER %", "parameters", "epochs",
    "s/epoch", "minutes", "machine",
)  # fmt: skip


def result_row(run: Path, report: Path) -> dict[str, str]:
    """The cells of `COLUMNS` for a run folder and the report folder of its test set."""
    scores = read_json(report / "report.json")
    info = read_json(run / "model" / "info.json")
    history = read_json(run / "history.json")
    wer, cer, ser, facts = (scores[key] for key in ("wer", "cer", "ser", "run"))
    low, high = wer["interval"]
    seconds = sorted(row["seconds"] for row in history)
    cells = (
        facts["date"][:10],
        str(info["seed"]),
        f"{100 * wer['rate']:.2f} ({100 * low:.1f} to {100 * high:.1f})",
        f"{wer['errors']}/{wer['reference_length']}",
        f"{100 * cer['rate']:.2f}",
        f"{100 * ser['rate']:.1f}",
        f"{facts['parameters'] / 1e6:.1f} M",
        str(info["epochs"]),
        f"{seconds[len(seconds) // 2]:.0f}",
        f"{info['training_seconds'] / 60:.0f}",
        facts["machine"],
    )
    return dict(zip(COLUMNS, cells, strict=True))


def to_markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table of rows, at least one, with the same columns.

    >>> print(to_markdown([{"seed": "1", "errors": "3/9"}]))
    | seed | errors |
    |---|---|
    | 1 | 3/9 |
    """

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    head = [line(rows[0]), "|" + "---|" * len(rows[0])]
    return "\n".join([*head, *(line(row.values()) for row in rows)])
