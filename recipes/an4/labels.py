"""Train on 30 % of AN4's transcripts; label the other recordings, and train on both.

python recipes/an4/labels.py --source DIR             both trainings, seeds 1 and 2
python recipes/an4/labels.py --source DIR --seeds 1   with one seed
python recipes/an4/labels.py train.learning_rate=1e-3 with another schedule for both

The network is that of docs/family.md. Both trainings see as many utterances: 80 epochs of 30 %, 24
of all. The seed also draws the 30 %. Dev chooses the epochs, and the labels that are kept; the test
set is opened once a training and chooses nothing. Stopped, the script goes on where it was when the
same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip
import numpy as np

from asr.cli.console import run_command
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.evaluation.compare import spread_text
from asr.evaluation.error_rate import ErrorCounts, score
from asr.evaluation.evaluate import evaluate, machine_name
from asr.evaluation.label_threshold import confidence_threshold, recognize_dev
from asr.evaluation.significance import paired_bootstrap
from asr.experiments.family import parser
from asr.inference.label import label_all, write_labels
from asr.inference.recognizer import load_recognizer
from asr.io.files import write_json
from asr.io.terminal import show, tell
from asr.training.recipe import read_recipe
from asr.training.trainer import train
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-labels"
TRANSCRIBED = 0.3  # of the training utterances
TARGET = 0.15  # highest error rate on dev of the labels that are kept
ALONE = ["train.epochs=80"]


@dataclass(frozen=True)
class Result:
    """Test errors of both trainings with one seed, by utterance, and what was labelled."""

    seed: int
    labels: str
    threshold: str
    wrong: str
    """The errors of the kept labels, by the transcripts that were withheld."""
    alone: dict[str, ErrorCounts]
    both: dict[str, ErrorCounts]
    machine: str
    date: str


def main() -> None:
    arguments = parser(__doc__, OUT).parse_intermixed_args()
    run_command(partial(measure, arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Train, label and train again with each seed, and write the errors."""
    parts = an4.prepare(arguments.out / "data", arguments.source)
    results: list[Result] = []
    for seed in arguments.seeds:
        results.append(one_seed(arguments, parts, seed))
        write_json(arguments.out / "labels.json", [asdict(result) for result in results])
        show(shown(results))


def one_seed(arguments: argparse.Namespace, parts: Mapping[str, Path], seed: int) -> Result:
    folder = arguments.out / str(seed)
    transcribed, rest = divided(read_manifest(parts["train"]), seed)
    manifests = {name: folder / f"{name}.jsonl" for name in ("transcribed", "labels")}
    write_manifest(manifests["transcribed"], transcribed)
    settings = [f"train.seed={seed}", f"data.dev={parts['dev']}"]
    settings += [f"data.train={manifests['transcribed']}"]

    def trained(name: str, *own: str) -> tuple[Path, dict[str, ErrorCounts]]:
        recipe = read_recipe(HERE / "family.yaml", [*settings, *own, *arguments.overrides])
        out = folder / f"{name}-{recipe.train.epochs}"  # one folder per schedule
        model = train(recipe.model_copy(update={"out": out}))
        dev = evaluate(model, parts["dev"]).report
        tell(f"seed {seed}, {name}: dev {dev.scores.words}")
        report = evaluate(model, parts["test"], out / "test").report
        return model, {u.id: u.words for u in report.scores.utterances}

    model, alone = trained("alone", *ALONE)
    recognizer = load_recognizer(model)
    threshold = confidence_threshold(recognize_dev(recognizer, read_manifest(parts["dev"])), TARGET)
    found = list(label_all(recognizer, [replace(u, text="") for u in rest]))
    ids = [u.id for u in rest]
    written = write_labels(manifests["labels"], found, ids, threshold.confidence)
    _, both = trained("both", f"data.labels={manifests['labels']}")
    wrong = wrong_labels(read_manifest(manifests["labels"]), rest)
    today, machine = date.today().isoformat(), machine_name()
    return Result(seed, str(written), str(threshold), str(wrong), alone, both, machine, today)


def divided(utterances: Sequence[Utterance], seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Those with transcripts, drawn by the seed, and the others."""
    count = round(TRANSCRIBED * len(utterances))
    drawn = np.random.default_rng(seed).choice(len(utterances), count, replace=False)
    chosen = set(drawn.tolist())
    own = [u for i, u in enumerate(utterances) if i in chosen]
    return own, [u for i, u in enumerate(utterances) if i not in chosen]


def wrong_labels(labels: Sequence[Utterance], spoken: Sequence[Utterance]) -> ErrorCounts:
    """The word errors of labels."""
    texts = {u.id: u.text.lower() for u in spoken}
    hypotheses = {u.id: u.text.lower() for u in labels}
    return score({id_: texts[id_] for id_ in hypotheses}, hypotheses).words


def shown(results: Sequence[Result]) -> str:
    """One line a seed, and the difference over all seeds."""
    lines = []
    pooled: tuple[dict[str, ErrorCounts], dict[str, ErrorCounts]] = ({}, {})
    for result in results:
        sums = [sum(part.values(), ErrorCounts()) for part in (result.alone, result.both)]
        lines.append(
            f"seed {result.seed}: 30 % alone {sums[0]}; with labels {sums[1]}; kept "
            f"{result.labels}; {result.threshold}; labels wrong {result.wrong}"
        )
        for total, part in zip(pooled, (result.alone, result.both), strict=True):
            for id_, counts in part.items():
                total[id_] = total.get(id_, ErrorCounts()) + counts
    difference = paired_bootstrap(pooled[1], pooled[0])
    lines.append(
        f"difference {100 * difference.difference:+.2f} points ({spread_text(difference)}), "
        f"P(not better) {difference.not_better:.3f}; {results[-1].date}, {results[-1].machine}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
