"""Train every member of the recurrent family on AN4 with the same budget, and compare them.

python recipes/an4/compare.py --source DIR                  all members, seeds 1 and 2
python recipes/an4/compare.py --members BiGRU "BiRNN tanh"  some of them
python recipes/an4/compare.py --members kaldi nemo          the first with other features
python recipes/an4/compare.py train.epochs=20               with another schedule for all

Stopped, it goes on where it was when the same command is given again. The schedule is that of
family.yaml, in which the dev set chooses epochs; the test set is opened once a run and chooses
nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asr.cli.console import run_command
from asr.evaluation.compare import spread_text
from asr.evaluation.error_rate import ErrorCounts, bootstrap_interval
from asr.evaluation.page import interval_text
from asr.evaluation.significance import Difference, paired_bootstrap
from asr.experiments.comparison import Run, RunSettings, pooled, train_member
from asr.io.files import atomic_path, write_json
from asr.io.terminal import tell
from asr.plotting import pyplot
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-family"
BASELINE = "BiLSTM"
MEMBERS: dict[str, list[str]] = {
    BASELINE: [],
    "BiRNN tanh": ["model.cell=rnn_tanh"],
    "BiRNN relu": ["model.cell=rnn_relu"],
    "BiGRU": ["model.cell=gru"],
    "light BiGRU": ["model.cell=light_gru"],
    "peephole BiLSTM": ["model.cell=peephole"],
    "coupled-gate BiLSTM": ["model.cell=coupled"],
    "layer-norm BiLSTM": ["model.cell=layer_norm"],
    "projected BiLSTM": ["model.cell=projected", "model.projection=64"],
    "LSTM, one direction": ["model.bidirectional=false"],
    "LSTM, alternating": ["model.directions=alternating"],
    "BiLSTM, residual": ["model.residual=true"],
    "LSTM, alternating, residual": ["model.directions=alternating", "model.residual=true"],
    "deep BiLSTM, 10 layers": ["model.layers=10", "model.residual=true"],
    "pyramidal BiLSTM": [
        "model.strides=[2,1]",
        "model.pyramid=1",
        "model.hierarchical_ctc_layer=1",
    ],
    "BiLSTM and ConvLSTM": ["model.conv_lstm=16"],
    "BiLSTM and attention": ["model.attention_heads=4"],
}
# The baseline with other features or methods of training; only on request.
FEATURES = {kind: [f"features.kind={kind}"] for kind in ("kaldi", "nemo")}
METHODS = {
    "adaptive entropy": ["train.entropy_target=1"],
    "moving average": ["train.ema=0.99"],
    "intermediate CTC": ["model.intermediate_ctc=[2]"],
    "self-conditioned CTC": ["model.intermediate_ctc=[2]", "model.self_conditioning=true"],
}
COLUMNS = (
    "member", "hidden", "parameters", "errors", "WER % (95 %)", "to BiLSTM, points (95 %)",
    "P(not better)", "s/epoch", "RTF",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with AN4's etc and wav")
    members = [*MEMBERS, *FEATURES, *METHODS]
    parser.add_argument("--members", nargs="+", choices=members, default=list(MEMBERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--parameters", type=float, default=1.0, help="budget, in millions")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    run_command(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write the table, its numbers and its picture."""
    test = an4.prepare(HERE.parents[1] / "exp" / "an4" / "data", arguments.source)["test"]
    shared = RunSettings(HERE / "family.yaml", OUT, test, arguments.parameters * 1e6)
    runs = []
    for seed in arguments.seeds:
        for member in dict.fromkeys([BASELINE, *arguments.members]):
            tell(f"{member}, seed {seed}")
            settings = [*arguments.overrides, *(MEMBERS | FEATURES | METHODS)[member]]
            runs.append(train_member(shared, member, seed, settings))
            write_results(runs)


def write_results(runs: Sequence[Run]) -> None:
    """family.json, family.md and family.png in the folder of the runs."""
    write_json(OUT / "family.json", [asdict(run) for run in runs])
    rows = [table_row(member, runs) for member in dict.fromkeys(run.member for run in runs)]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    seeds = sorted({run.seed for run in runs})
    epochs = sorted({run.epochs for run in runs})
    lines += ["", f"{runs[-1].date}, {runs[-1].machine}, seeds {seeds}, epochs {epochs}"]
    with atomic_path(OUT / "family.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(runs)
    print("\n".join(lines))


def difference(member: str, runs: Sequence[Run]) -> Difference:
    """From the baseline, over the seeds that both have been trained with."""
    seeds = {run.seed for run in runs if run.member == member}
    return paired_bootstrap(pooled(member, runs, seeds), pooled(BASELINE, runs, seeds))


def table_row(member: str, runs: Sequence[Run]) -> list[str]:
    own = [run for run in runs if run.member == member]
    counts = list(pooled(member, runs, {run.seed for run in own}).values())
    rate = sum(count.errors for count in counts) / sum(count.reference_length for count in counts)
    errors = [sum(count.errors for count in run.words.values()) for run in own]
    against = difference(member, runs)
    compared = f"{100 * against.difference:+.2f} ({spread_text(against)})"
    return [
        member,
        str(own[0].hidden),
        f"{own[0].parameters / 1e6:.2f} M",
        ", ".join(map(str, errors)),
        f"{100 * rate:.2f} ({interval_text(bootstrap_interval(counts))})",
        "" if member == BASELINE else compared,
        "" if member == BASELINE else f"{against.not_better:.3f}",
        f"{min(run.seconds_per_epoch for run in own):.0f}",
        f"{min(run.real_time_factor for run in own):.4f}",
    ]


def draw(runs: Sequence[Run]) -> None:
    """WER of every member with its interval, best first, and the single seeds as dots."""
    plt = pyplot(OUT / "family.png")
    members = list(dict.fromkeys(run.member for run in runs))
    seeds = {run.seed for run in runs}
    counts = {member: list(pooled(member, runs, seeds).values()) for member in members}
    rates = {member: _wer(values) for member, values in counts.items()}
    members.sort(key=lambda member: -rates[member])
    figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(members)), layout="constrained")
    for place, member in enumerate(members):
        low, high = bootstrap_interval(counts[member]) or (rates[member], rates[member])
        colour = "tab:orange" if member == BASELINE else "tab:blue"
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=3, alpha=0.4)
        axes.plot(100 * rates[member], place, "o", color=colour, markersize=9)
        for run in runs:
            if run.member == member:
                axes.plot(100 * _wer(list(run.words.values())), place, ".", color="black")
    axes.set_yticks(range(len(members)), members)
    axes.set_xlabel("word error rate on AN4's test set, %: mean and 95 % interval; dots are seeds")
    axes.grid(axis="x", alpha=0.3)
    with atomic_path(OUT / "family.png") as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def _wer(counts: Sequence[ErrorCounts]) -> float:
    return sum(c.errors for c in counts) / max(1, sum(c.reference_length for c in counts))


if __name__ == "__main__":
    main()
