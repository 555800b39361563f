"""Evaluations of a model: read from the reports beside it, and kept in its folder when it is
packed or published.

Texts are left out: a test set may not be published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from asr.errors import CheckpointError
from asr.io.files import read_json
from asr.models.files import weights_digest

FILE = "evaluations.json"


class Evaluation(BaseModel):
    """The error rate of a model on one test set; rates are fractions."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    manifest: str = Field(max_length=1000)
    units: str = Field(pattern="^(words|characters)$")
    errors: int = Field(ge=0)
    length: int = Field(ge=0)
    """Words or characters of the references."""
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    """Of the rate, at 95 %."""
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d")
    decoder: str = Field("", max_length=1000)
    normalisation: str = Field("", max_length=1000)
    real_time_factor: FiniteFloat | None = None
    machine: str = Field("", max_length=1000)
    weights_sha256: str = Field(max_length=64)

    @property
    def measure(self) -> str:
        return "WER" if self.units == "words" else "CER"

    @property
    def rate(self) -> float:
        """Infinite without a reference."""
        return self.errors / self.length if self.length else math.inf

    @property
    def day(self) -> str:
        return self.date[:10]


def evaluations_of(model: Path, date: str = "") -> tuple[Evaluation, ...]:
    """All evaluations of the weights in a model folder, newest first: those that it holds, and the
    reports in folders beside it or beside its parent.

    A report of an earlier version does not state the weights. It counts if the end of its model's
    path is that of the folder, unless it is older than `date`, the day of the training.

    Raises CheckpointError if those that the folder holds cannot be read.
    """
    sha256 = weights_digest(model)
    found = [one for one in _kept(model) if one.weights_sha256 == sha256]
    for path in _reports_beside(model):
        one = _from_report(path, model, sha256, date)
        if one is not None and one.weights_sha256 == sha256:
            found.append(one)
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.date, reverse=True))


def _kept(model: Path) -> list[Evaluation]:
    path = model / FILE
    if not path.is_file():
        return []
    try:
        rows = read_json(path)
        if not isinstance(rows, list):
            raise ValueError("no list")
        return [Evaluation.model_validate(row) for row in rows]
    except (OSError, ValueError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"expected a list of evaluations, got {path}: {problem}; delete or copy it again"
        ) from None


def _reports_beside(model: Path) -> Iterator[Path]:
    around = [model.resolve().parent]
    around += [around[0].parent]
    for folder in around:
        try:
            yield from sorted(folder.glob("*/report.json"))
        except OSError:
            continue


def _from_report(path: Path, model: Path, sha256: str, date: str) -> Evaluation | None:
    """The evaluation in report.json; None if it is of another model or cannot be read."""
    try:
        report = read_json(path)
        run = report["run"]
        sha256_of_report = run.get("weights_sha256") or _guessed(run, model, sha256, date)
        counts = report["wer" if report.get("units", "words") == "words" else "cer"]
        return Evaluation(
            manifest=ending(Path(run["manifest"])),
            units=report.get("units", "words"),
            errors=counts["errors"],
            length=counts["reference_length"],
            interval=_both(counts.get("interval")),
            date=run["date"],
            decoder=run.get("decoder", ""),
            normalisation=run.get("normalisation", ""),
            real_time_factor=run.get("real_time_factor"),
            machine=run.get("machine", ""),
            weights_sha256=sha256_of_report,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _guessed(run: dict[str, Any], model: Path, sha256: str, date: str) -> str:
    same = Path(run["model"]).parts[-2:] == model.resolve().parts[-2:]
    return sha256 if same and run["date"][:10] >= date else ""


def _both(interval: list[float | None] | None) -> tuple[float, float] | None:
    if interval is None or None in interval:
        return None
    low, high = interval
    return (low, high)  # type: ignore[return-value]


def ending(path: Path) -> str:
    """The last folder and the name of a path: published models do not name the folders of users."""
    return "/".join(path.parts[-2:])
