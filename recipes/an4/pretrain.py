"""What pretraining without transcripts is worth on AN4, by the share of transcribed recordings.

python recipes/an4/pretrain.py --source DIR                     10, 30 and 100 %, seeds 1 and 2
python recipes/an4/pretrain.py --source DIR --shares 10 --seeds 1
python recipes/an4/pretrain.py --pretrain epochs=100 train.epochs=12    with other schedules
python recipes/an4/pretrain.py --recordings MANIFEST                    with more recordings

For each seed, an encoder is pretrained on all training recordings, and on those of --recordings.
Then the same network is trained on a share of the transcripts, from random weights and from that
encoder. The share is that of whole speakers, drawn by seed; a smaller share is part of a larger
one. A share is repeated as often as it takes for about as many steps in an epoch as with all
transcripts, and all trainings have the same number of epochs. The dev set chooses epochs; the test
set is opened once a training and chooses nothing.

Stopped, it goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from asr.cli.console import run_command
from asr.config import parse, with_overrides
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.splits import total_seconds
from asr.evaluation.compare import spread_text
from asr.evaluation.error_rate import ErrorCounts, bootstrap_interval
from asr.evaluation.page import interval_text
from asr.evaluation.significance import paired_bootstrap
from asr.experiments.comparison import Run, RunSettings, hidden_for, pooled, train_member
from asr.experiments.family import parser
from asr.io.files import atomic_path, read_json, write_json
from asr.io.terminal import tell
from asr.training.pretrain import PretrainConfig, pretrain
from asr.training.recipe import read_recipe
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-pretraining"
PRETRAINING = ["epochs=40", "batch_seconds=24", "learning_rate=2e-3"]
WORD_COUNT = 3  # of the recipe
COLUMNS = (
    "transcripts", "from", "dev errors", "test errors", "WER % (95 %)",
    "to random weights, points (95 %)", "P(not better)",
)  # fmt: skip


def main() -> None:
    own = parser(__doc__, OUT)
    own.add_argument("--shares", nargs="+", type=int, default=[10, 30, 100], metavar="PERCENT")
    own.add_argument("--parameters", type=float, default=1.0, help="budget, in millions")
    own.add_argument(
        "--pretrain", nargs="+", default=[], metavar="KEY=VALUE", help="settings of asr pretrain"
    )
    own.add_argument(
        "--tuned",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the trainings from an encoder alone",
    )
    own.add_argument(
        "--recordings",
        nargs="+",
        type=Path,
        default=[],
        metavar="MANIFEST",
        help="other recordings to pretrain on; give another --out with them",
    )
    arguments = own.parse_intermixed_args()
    run_command(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write the table and its numbers."""
    out: Path = arguments.out
    parts = an4.prepare(out / "data", arguments.source)
    shared = RunSettings(HERE / "family.yaml", out, parts["test"], arguments.parameters * 1e6)
    train = read_manifest(parts["train"])
    places = [f"data.train={parts['train']}", f"data.dev={parts['dev']}", f"out={out}"]
    common = [*places, *arguments.overrides]
    # One network for all shares, whose numbers of word tokens differ.
    hidden = hidden_for(shared, common)
    runs: list[Run] = []
    for seed in arguments.seeds:
        encoder = pretrained(shared, seed, parts, [*common, f"model.hidden={hidden}"], arguments)
        for share in sorted(arguments.shares):
            manifest, copies = transcribed(train, share, seed, out / "data")
            own = [f"data.train={manifest}", f"tokens.word_count={WORD_COUNT * copies}"]
            starts = {"random weights": [], "encoder": [f"init.model={encoder}", *arguments.tuned]}
            for start, settings in starts.items():
                tell(f"{share} %, {start}, seed {seed}")
                name = f"{share} % {start}"
                runs.append(train_member(shared, name, seed, [*common, *own, *settings], hidden))
                write_results(runs, out)


def pretrained(
    shared: RunSettings,
    seed: int,
    parts: dict[str, Path],
    settings: Sequence[str],
    arguments: argparse.Namespace,
) -> Path:
    """The encoder of a seed, of all training recordings and those of --recordings."""
    recipe = read_recipe(shared.recipe, settings)
    base = {name: getattr(recipe, name).model_dump() for name in ("features", "model", "augment")}
    changes = [*PRETRAINING, f"seed={seed}", *arguments.pretrain]
    config = parse(PretrainConfig, with_overrides(base, changes), "--pretrain")
    tell(f"pretraining, seed {seed}")
    manifests = [parts["train"], *arguments.recordings]
    train = [utterance for manifest in manifests for utterance in read_manifest(manifest)]
    dev = read_manifest(parts["dev"])
    return pretrain(train, dev, config, shared.out / f"pretraining-{seed}-{config.epochs}")


def transcribed(
    train: Sequence[Utterance], percent: int, seed: int, folder: Path
) -> tuple[Path, int]:
    """The manifest of a share of the transcripts, and how often it contains each utterance."""
    speakers = sorted({u.speaker for u in train})
    random.Random(seed).shuffle(speakers)
    chosen: list[Utterance] = []
    for speaker in speakers:
        if total_seconds(chosen) >= percent / 100 * total_seconds(train):
            break
        chosen += [u for u in train if u.speaker == speaker]
    if percent == 100:
        chosen = list(train)
    copies = round(total_seconds(train) / total_seconds(chosen))
    path = folder / f"train-{percent}-{seed}.jsonl"
    write_manifest(
        path,
        [replace(u, id=f"{u.id}-{n}" if n else u.id) for n in range(copies) for u in chosen],
    )
    return path, copies


def write_results(runs: Sequence[Run], out: Path) -> None:
    """pretraining.json and pretraining.md in the folder of the runs."""
    write_json(out / "pretraining.json", [asdict(run) for run in runs])
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for member in dict.fromkeys(run.member for run in runs):
        lines.append("| " + " | ".join(table_row(member, runs)) + " |")
    seeds = sorted({run.seed for run in runs})
    epochs = sorted({run.epochs for run in runs})
    lines += ["", f"{runs[-1].date}, {runs[-1].machine}, seeds {seeds}, epochs {epochs}"]
    with atomic_path(out / "pretraining.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def table_row(member: str, runs: Sequence[Run]) -> list[str]:
    own = [run for run in runs if run.member == member]
    share, start = member.split(" % ")
    seeds = {run.seed for run in own}
    counts = pooled(member, runs, seeds)
    rows: list[ErrorCounts] = list(counts.values())
    rate = sum(c.errors for c in rows) / sum(c.reference_length for c in rows)
    dev = [str(read_json(Path(run.model) / "info.json")["dev_errors"]) for run in own]
    compared, not_better = "", ""
    if start != "random weights":
        against = paired_bootstrap(counts, pooled(f"{share} % random weights", runs, seeds))
        compared = f"{100 * against.difference:+.2f} ({spread_text(against)})"
        not_better = f"{against.not_better:.3f}"
    return [
        f"{share} %",
        start,
        ", ".join(dev),
        ", ".join(str(sum(c.errors for c in run.words.values())) for run in own),
        f"{100 * rate:.2f} ({interval_text(bootstrap_interval(rows))})",
        compared,
        not_better,
    ]


if __name__ == "__main__":
    main()
