"""Train a recogniser on 1, 5 and 15 minutes of FSDD: from random weights, from an encoder that was
pretrained on all of its training recordings without transcripts, and from another recogniser.

python recipes/fsdd/minutes.py --source DIR                  all of them, seeds 1 and 2
python recipes/fsdd/minutes.py --source DIR --minutes 1 5 --starts recogniser --seeds 1
python recipes/fsdd/minutes.py --source DIR --most 20        20 minutes of audio a training, in all
python recipes/fsdd/minutes.py --source DIR --rules          compare rules of asr new --from on dev
python recipes/fsdd/minutes.py --source DIR --model MODEL train.learning_rate=1e-3

Settings are those that `asr new` and `asr new --from` propose for so many minutes. Train, dev and
test are those of the official split, with known speakers; the minutes are drawn from train by seed.
Dev chooses the epochs, and with --rules the rules; the test set is opened once a training and
chooses nothing. Stopped, the script goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip

from asr.cli.console import run_command
from asr.config import parse, with_overrides
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.decoding.decoder import Decoder
from asr.evaluation.error_rate import ErrorCounts, bootstrap_interval
from asr.evaluation.evaluate import evaluate, machine_name
from asr.evaluation.page import interval_text
from asr.io.extras import installed_version
from asr.io.files import atomic_path, read_json, write_json
from asr.io.terminal import tell
from asr.models.bundle import load_bundle
from asr.models.files import weights_digest
from asr.project.defaults import examine
from asr.project.initial import INCLUDED, proposed_recipe, read_initial
from asr.text.normalise import TextConfig
from asr.training.pretrain import PretrainConfig, pretrain
from asr.training.recipe import Recipe, read_recipe
from asr.training.trainer import train
from data import fsdd

OUT = Path(__file__).resolve().parents[2] / "exp" / "fsdd-minutes"
SCRATCH, ENCODER, RECOGNISER = "random weights", "encoder", "recogniser"
STARTS = {"scratch": SCRATCH, "encoder": ENCODER, "recogniser": RECOGNISER}
PRETRAINING = ["epochs=20", "batch_seconds=16", "learning_rate=2e-3"]
RULES = {
    f"rate {rate}, {frozen} layers fixed": [
        f"train.learning_rate={rate}",
        f"init.freeze_layers={frozen}",
    ]
    for rate in ("3e-4", "1e-3", "3e-3")
    for frozen in (0, 2, 3)
}
COLUMNS = ("minutes", "from", "epochs", "dev errors", "test errors", "WER % (95 %)")


@dataclass(frozen=True)
class Cell:
    """A training from one start on so many minutes, and its errors on test by utterance."""

    minutes: float
    start: str
    seed: int
    epochs: int
    dev_errors: int
    words: dict[str, ErrorCounts]


def main() -> None:
    own = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own.add_argument("--source", type=Path, help="folder with FSDD's recordings")
    own.add_argument("--minutes", nargs="+", type=float, default=[1, 5, 15])
    own.add_argument("--starts", nargs="+", choices=[*STARTS], default=[*STARTS])
    own.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    own.add_argument("--model", default=INCLUDED, help="the other recogniser")
    own.add_argument("--most", type=float, help="minutes of audio that a training hears, in all")
    own.add_argument("--rules", action="store_true", help="compare rules on dev; test stays closed")
    own.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    own.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = own.parse_intermixed_args()
    run_command(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Train what is missing, and write the tables."""
    out: Path = arguments.out
    split = fsdd.prepare(out / "data", arguments.source)[fsdd.OFFICIAL]
    # Speakers of train may be in dev and test here, which a recipe refuses of named ones.
    parts = {name: nameless(read_manifest(path)) for name, path in split.items()}
    manifests = {name: out / "data" / f"{name}.jsonl" for name in parts}
    for name, utterances in parts.items():
        write_manifest(manifests[name], utterances)
    if arguments.rules:
        compare_rules(arguments, manifests, parts["train"])
        return
    cells: list[Cell] = []
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            for start in arguments.starts:
                tell(f"{minutes:g} minutes, {STARTS[start]}, seed {seed}")
                cells.append(trained(arguments, manifests, parts["train"], start, minutes, seed))
                write_results(cells, given_rows(arguments, manifests), out)


def nameless(utterances: Sequence[Utterance]) -> list[Utterance]:
    return [replace(u, speaker="") for u in utterances]


def drawn(utterances: Sequence[Utterance], minutes: float, seed: int) -> list[Utterance]:
    """Utterances in an order of the seed, up to so many minutes; fewer are part of more."""
    order = sorted(utterances, key=lambda u: u.id)
    random.Random(seed).shuffle(order)
    chosen, seconds = [], 0.0
    for utterance in order:
        if seconds >= 60 * minutes:
            break
        chosen.append(utterance)
        seconds += utterance.duration
    return chosen


def recipe_of(
    arguments: argparse.Namespace,
    manifests: Mapping[str, Path],
    pool: Sequence[Utterance],
    name: str,
    model: str | None,
    place: tuple[float, int],
    changes: Sequence[str] = (),
) -> Recipe:
    """What `asr new` proposes for the minutes of a seed, and the settings of the command line."""
    minutes, seed = place
    folder = arguments.out / f"{minutes:g}-{seed}-{name.replace(' ', '-').replace(',', '')}"
    chosen = drawn(pool, minutes, seed)
    initial = None if model is None else read_initial(model)
    texts = examine([u.text for u in chosen], TextConfig())
    text, _ = proposed_recipe("FSDD", chosen, texts, initial)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "train.jsonl", chosen)
    with atomic_path(folder / "recipe.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")
    places = [f"data.dev={manifests['dev']}", f"train.seed={seed}"]
    recipe = read_recipe(folder / "recipe.yaml", [*places, *changes, *arguments.overrides])
    epochs = recipe.train.epochs
    if arguments.most is not None:
        epochs = min(epochs, max(1, round(arguments.most / minutes)))
    schedule = recipe.train.model_copy(update={"epochs": epochs})
    # Another schedule is another training.
    return recipe.model_copy(update={"train": schedule, "out": folder / f"run-{epochs}"})


def trained(
    arguments: argparse.Namespace,
    manifests: Mapping[str, Path],
    pool: Sequence[Utterance],
    start: str,
    minutes: float,
    seed: int,
) -> Cell:
    model = None if start == "scratch" else arguments.model
    if start == "encoder":
        model = str(pretrained(arguments, manifests, pool))
    recipe = recipe_of(arguments, manifests, pool, start, model, (minutes, seed))
    folder = train(recipe)
    report = evaluate(folder, manifests["test"], recipe.out / "test").report
    words = {u.id: u.words for u in report.scores.utterances}
    dev_errors = read_json(folder / "info.json")["dev_errors"]
    return Cell(minutes, STARTS[start], seed, recipe.train.epochs, dev_errors, words)


def pretrained(
    arguments: argparse.Namespace, manifests: Mapping[str, Path], pool: Sequence[Utterance]
) -> Path:
    """An encoder of all training recordings: the network that is proposed for a minute."""
    recipe = recipe_of(arguments, manifests, pool, "network", None, (1.0, 1))
    base = {name: getattr(recipe, name).model_dump() for name in ("features", "model", "augment")}
    config = parse(PretrainConfig, with_overrides(base, PRETRAINING), "settings")
    dev = read_manifest(manifests["dev"])
    return pretrain(pool, dev, config, arguments.out / "pretraining")


def compare_rules(
    arguments: argparse.Namespace, manifests: Mapping[str, Path], pool: Sequence[Utterance]
) -> None:
    """Errors on dev of trainings from the other recogniser by several rules."""
    found: dict[str, dict[str, int]] = {}
    for minutes in arguments.minutes:
        for rule, changes in RULES.items():
            tell(f"{minutes:g} minutes, {rule}")
            place = (minutes, arguments.seeds[0])
            recipe = recipe_of(arguments, manifests, pool, rule, arguments.model, place, changes)
            errors = read_json(train(recipe) / "info.json")["dev_errors"]
            found.setdefault(rule, {})[f"{minutes:g}"] = errors
            write_json(arguments.out / "rules.json", found)
    lines = ["| rule | " + " | ".join(f"{m:g} minutes" for m in arguments.minutes) + " |"]
    lines.append("|---" * (1 + len(arguments.minutes)) + "|")
    for rule, errors_by in found.items():
        lines.append(f"| {rule} | " + " | ".join(map(str, errors_by.values())) + " |")
    print("\n".join(lines))


def given_rows(arguments: argparse.Namespace, manifests: Mapping[str, Path]) -> list[ErrorCounts]:
    """Errors on test of the other recogniser as it is, without its language models."""
    folder = read_initial(arguments.model).folder
    done = arguments.out / f"given-{weights_digest(folder)[:16]}-{installed_version()}.json"
    if not done.is_file():
        greedy = Decoder(load_bundle(folder).tokens)
        report = evaluate(folder, manifests["test"], decoder=greedy).report
        write_json(done, [asdict(u.words) for u in report.scores.utterances])
    return [ErrorCounts(**row) for row in read_json(done)]


def write_results(cells: Sequence[Cell], given: Sequence[ErrorCounts], out: Path) -> None:
    """minutes.json and minutes.md in the folder of the results."""
    write_json(out / "minutes.json", [asdict(cell) for cell in cells])
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines.append(row_text("0", "recogniser as it is", "", "", [list(given)]))
    for minutes, start in dict.fromkeys((cell.minutes, cell.start) for cell in cells):
        own = [c for c in cells if (c.minutes, c.start) == (minutes, start)]
        dev = ", ".join(str(cell.dev_errors) for cell in own)
        rows = [list(cell.words.values()) for cell in own]
        lines.append(row_text(f"{minutes:g}", start, str(own[0].epochs), dev, rows))
    seeds = sorted({cell.seed for cell in cells})
    lines += ["", f"{date.today().isoformat()}, {machine_name()}, seeds {seeds}"]
    with atomic_path(out / "minutes.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def row_text(
    minutes: str, start: str, epochs: str, dev: str, seeds: Sequence[Sequence[ErrorCounts]]
) -> str:
    """A row of the table; the seeds of an utterance are summed for the interval."""
    pooled = [sum(counts, ErrorCounts()) for counts in zip(*seeds, strict=True)]
    errors = ", ".join(str(sum(c.errors for c in rows)) for rows in seeds)
    rate = sum(c.errors for c in pooled) / sum(c.reference_length for c in pooled)
    interval = interval_text(bootstrap_interval(pooled))
    return f"| {minutes} | {start} | {epochs} | {dev} | {errors} | {100 * rate:.1f} ({interval}) |"


if __name__ == "__main__":
    main()
