"""One self-contained HTML file to view and listen to the results of an evaluation.

The frame is a template. The utterances are data within it; the page's script renders them during
scrolling, so that ten thousand utterances stay fast.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from asr.evaluation import AUDIO_MEGABYTES
from asr.evaluation.breakdown import left_out
from asr.evaluation.charts import Point, diagonal, line_chart, whisker
from asr.evaluation.classification import wilson_interval
from asr.evaluation.clips import embed, link
from asr.evaluation.error_rate import ErrorCounts, Interval, UtteranceScore
from asr.evaluation.report import EvaluationReport, Units, rate_name
from asr.evaluation.utterance import Details
from asr.io.files import atomic_path
from asr.io.printable import escape_json, printable_lines

MOST_GROUPS = 60  # rows of a breakdown; the rest is in report.json
MOST_CONFUSIONS = 50


@dataclass(frozen=True)
class Epoch:
    """A point of the training curves."""

    epoch: int
    loss: float
    dev_wer: float  # a fraction
    learning_rate: float
    units: Units = "words"
    """The units whose error rate is `dev_wer`."""


@dataclass(frozen=True)
class Extras:
    """Optional content of a page besides the report."""

    symbols: Sequence[str] = ()
    """Tokens by their index in the posteriors."""
    curves: Sequence[Epoch] = ()
    audio_megabytes: float = AUDIO_MEGABYTES
    """Megabytes for recordings within the page: those with the most errors come first."""


def write_page(report: EvaluationReport, path: Path, extras: Extras | None = None) -> None:
    """Write report.html, atomically."""
    extras = extras or Extras()
    order = [u.id for u in report.worst]
    order += [u.id for u in report.scores.utterances if not u.words.errors]
    clips = embed(order, report.details, extras.audio_megabytes)
    page = (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            title=f"{short(report.facts.model)} on {short(report.facts.manifest)}",
            left_out=left_out(report.details),
            main=rate_name(report.units),
            figures=_figures(report),
            curves=_curves(extras.curves),
            calibration=_calibration(report),
            top=_top(report),
            confusions={
                kind: rows[:MOST_CONFUSIONS]
                for kind, rows in (
                    ("substituted", report.confusions.substituted),
                    ("deleted", report.confusions.deleted),
                    ("inserted", report.confusions.inserted),
                )
            },
            most_groups=MOST_GROUPS,
            data=embedded(_data(report, extras.symbols, clips, path.parent)),
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def short(path: str) -> str:
    """The end of a path, which identifies it also on another machine.

    >>> short("../../exp/an4/model"), short("test.jsonl")
    ('an4/model', 'test.jsonl')
    """
    return "/".join(Path(path).parts[-2:])


@cache
def environment() -> Environment:
    """The templates of all pages. External texts are escaped, and an undefined name is an error."""
    made = Environment(
        loader=PackageLoader("asr.evaluation", "templates"),
        autoescape=True,
        finalize=_printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "whisker": _whisker, "interval": interval_text}
    made.globals["asset"] = _asset
    return made


def _printed(value: Any) -> Any:
    # Direction marks would show a name as another one.
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable_lines(value) if plain else value


def _asset(name: str) -> Markup:
    """A style sheet or script of this package, for inclusion in the page."""
    folder = resources.files("asr.evaluation") / "templates"
    return Markup((folder / name).read_text(encoding="utf-8"))


def embedded(value: Any) -> Markup:
    """JSON that is safe in a script element with any text: no tag can begin in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = escape_json(text)
    for character, escape in {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}.items():
        text = text.replace(character, escape)
    return Markup(text)


def percent(rate: float | None, digits: int = 2) -> str:
    """A fraction in percent, as text.

    >>> percent(0.0401), percent(float("inf")), percent(None)
    ('4.01', 'n/a', 'n/a')
    """
    return f"{100 * rate:.{digits}f}" if rate is not None and math.isfinite(rate) else "n/a"


def _whisker(counts: ErrorCounts, interval: Interval | None, top: float) -> Markup:
    low, high = interval or (counts.rate, counts.rate)
    return whisker(counts.rate, low, high, top)


def interval_text(interval: Sequence[float | None] | None) -> str:
    """An interval of fractions, in percent; a report's JSON has two nulls if there is none.

    >>> interval_text((0.027, 0.0584)), interval_text(None)
    ('2.7 to 5.8', 'n/a')
    """
    if interval is None or not any(bound is not None for bound in interval):
        return "n/a"
    return " to ".join(percent(bound, 1) for bound in interval)


def highest(intervals: Iterable[Interval | None]) -> float:
    """The end of a scale that contains all finite intervals."""
    ends = [interval[1] for interval in intervals if interval]
    return max([high for high in ends if math.isfinite(high)], default=1.0) or 1.0


def _figures(report: EvaluationReport) -> list[dict[str, Any]]:
    scores = report.scores
    rows = [(scores.words, report.wer_interval), (scores.characters, report.cer_interval)]
    names = [("WER", "words"), ("CER", "characters")]
    if report.units == "characters":
        rows, names = rows[:1], [("CER", "characters")]
    rows.append((scores.sentences, report.ser_interval))
    names.append(("SER", "sentences"))
    return [
        {"name": name, "of": of, "counts": counts, "interval": interval}
        for (name, of), (counts, interval) in zip(names, rows, strict=True)
    ]


def _curves(epochs: Sequence[Epoch]) -> list[Markup]:
    if len(epochs) < 2:
        return []
    xs = [float(row.epoch) for row in epochs]
    rate = rate_name(epochs[-1].units)
    return [
        line_chart("training loss, nats per token", xs, [r.loss for r in epochs], "epoch", True),
        line_chart(f"dev {rate}, %", xs, [100 * r.dev_wer for r in epochs], "epoch"),
        line_chart("learning rate", xs, [r.learning_rate for r in epochs], "epoch"),
    ]


def _calibration(report: EvaluationReport) -> Markup:
    points = []
    for row in report.calibration.bins:
        # Wilson's interval of 95 %, which is wide for few words.
        low, high = wilson_interval(round(row.words * row.right), row.words)
        label = f"{row.words} words"
        points.append(Point(100 * row.confidence, 100 * row.right, label, 100 * low, 100 * high))
    if not points:
        return Markup("")
    return diagonal("correct words, %, by confidence", points, "confidence, %")


def _top(report: EvaluationReport) -> dict[str, float]:
    """The end of the scale of the intervals, by breakdown."""
    return {
        breakdown.title: highest(
            group.interval or (0.0, group.words.rate) for group in breakdown.groups[:MOST_GROUPS]
        )
        for breakdown in report.breakdowns
    }


def _data(
    report: EvaluationReport, symbols: Sequence[str], clips: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """The input of the page's script; keys are short because ten thousand utterances repeat them.
    report.js documents them."""
    columns = report.labels.values()
    places = [{label: i for i, label in enumerate(column.names)} for column in columns]
    rows = []
    for index, utterance in enumerate(report.scores.utterances):
        known = report.details.get(utterance.id, Details())
        row = _row(utterance, known)
        labels = zip(places, columns, strict=True)
        row["l"] = [place[column.labels[index]] for place, column in labels]
        sound = clips.get(utterance.id) or link(known, folder)
        rows.append(row | ({"a": sound} if sound else {}))
    of_manifest = {name for known in report.details.values() for name in known.columns}
    return {
        "units": report.units,
        "labels": [
            {
                "title": title,
                "names": column.names,
                "told": title == "speaker" or title.removesuffix(" (manifest)") in of_manifest,
            }
            for title, column in report.labels.items()
        ],
        "symbols": list(symbols),
        "utterances": rows,
    }


def _row(utterance: UtteranceScore, known: Details) -> dict[str, Any]:
    columns = [column for column in utterance.alignment if not column.unsaid]
    row: dict[str, Any] = {
        "i": utterance.id,
        "r": " ".join(c.reference for c in columns if c.reference is not None),
        "h": utterance.hypothesis,
        "o": "".join(column.operation for column in columns),
        "e": utterance.words.errors,
        "n": utterance.words.reference_length,
    }
    if known.speaker:
        row["s"] = known.speaker
    if known.seconds is not None:
        row["t"] = round(known.seconds, 3)
    if known.snr is not None:
        row["q"] = round(known.snr, 1)
    if known.words:
        words = [word.text for word in known.words]
        if " ".join(words) != utterance.hypothesis:
            row["w"] = words
        row["m"] = [round(time, 3) for word in known.words for time in (word.start, word.end)]
    if sure := [word.confidence for word in known.words if word.confidence is not None]:
        row["c"] = [round(confidence, 3) for confidence in sure]
    if known.posteriors is not None:
        seen = known.posteriors
        entries = [value for entry in seen.entries for value in entry]
        row["p"] = {"f": seen.frames, "d": round(seen.step, 5), "v": entries}
    return row
