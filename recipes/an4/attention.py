"""Joint CTC-attention on AN4: the same network trained with and without an attention decoder.

python recipes/an4/attention.py --source DIR                      seeds 1 and 2
python recipes/an4/attention.py --source DIR --seeds 1            one seed
python recipes/an4/attention.py train.attention_weight=0.5        other settings for all

Each network is decoded greedily and with a beam, without a language model; that with an attention
decoder also with the texts of the beam rescored by it. Beam and weight are tuned on dev. Stopped,
it goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.cli.console import run_command
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import load_decoder
from asr.evaluation.compare import spread_text
from asr.evaluation.error_rate import ErrorCounts, bootstrap_interval
from asr.evaluation.evaluate import evaluate
from asr.evaluation.page import interval_text
from asr.evaluation.report import EvaluationReport
from asr.evaluation.significance import paired_bootstrap
from asr.evaluation.tune_decoder import tune
from asr.experiments.comparison import RunSettings, train_member
from asr.experiments.family import parser
from asr.io.files import atomic_path, write_json
from asr.io.terminal import tell
from asr.models.bundle import load_bundle
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-attention"
CELLS = 80  # per direction, of a BiLSTM of a million parameters
ALONE = "CTC"
NETWORKS: dict[str, list[str]] = {ALONE: [], "CTC-attention": ["model.attention_decoder=96"]}
GREEDY, BEAM, RESCORED = "greedy", "beam", "beam, rescored"
COLUMNS = (
    "training", "decoding", "attention weight", "errors on dev", "errors on test",
    "test WER % (95 %)", "to CTC alone, points (95 %)", "P(not better)",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A trained network with one way of decoding. `dev` and `test` are the errors by utterance."""

    network: str
    decoding: str
    seed: int
    weight: float
    dev: Mapping[str, ErrorCounts]
    test: Mapping[str, ErrorCounts]
    date: str
    machine: str


def main() -> None:
    arguments = parser(__doc__, OUT).parse_intermixed_args()
    run_command(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write attention.json and attention.md."""
    data = an4.prepare(arguments.out / "data", arguments.source)
    shared = RunSettings(HERE / "family.yaml", arguments.out, data["test"], 1e6)
    given = [f"data.{part}={data[part]}" for part in ("train", "dev")]
    outcomes: list[Outcome] = []
    for seed in arguments.seeds:
        for name, own in NETWORKS.items():
            tell(f"{name}, seed {seed}")
            settings = [*given, *own, *arguments.overrides]
            model = Path(train_member(shared, name, seed, settings, CELLS).model)
            outcomes += outcomes_of(name, seed, model, data)
            write_results(outcomes, arguments.out)


def outcomes_of(name: str, seed: int, model: Path, data: Mapping[str, Path]) -> Iterator[Outcome]:
    """One for each way of decoding. Beam and weight are those with the fewest errors on dev."""
    bundle = load_bundle(model)
    tuned = tune(model, data["dev"], load_decoder(model, bundle.tokens, "beam"), bundle=bundle)
    config = tuned.decoder.config
    ways = {GREEDY: DecoderConfig(), BEAM: config.model_copy(update={"attention_weight": 0.0})}
    if bundle.model.attention_decoder is not None:
        ways[RESCORED] = config
    for way, settings in ways.items():
        decoder = Decoder(bundle.tokens, settings)
        dev, test = (
            evaluate(model, data[part], decoder=decoder, bundle=bundle).report
            for part in ("dev", "test")
        )
        yield Outcome(
            name, way, seed, settings.attention_weight, _errors(dev), _errors(test),
            test.facts.date[:10], test.facts.machine,
        )  # fmt: skip


def _errors(report: EvaluationReport) -> dict[str, ErrorCounts]:
    return {utterance.id: utterance.words for utterance in report.scores.utterances}


def write_results(outcomes: Sequence[Outcome], out: Path) -> None:
    """attention.json and attention.md in the folder of the runs."""
    write_json(out / "attention.json", [asdict(one) for one in outcomes])
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    ways = dict.fromkeys((one.network, one.decoding) for one in outcomes)
    lines += ["| " + " | ".join(table_row(*way, outcomes)) + " |" for way in ways]
    seeds = sorted({one.seed for one in outcomes})
    lines += ["", f"{outcomes[-1].date}, {outcomes[-1].machine}, seeds {seeds}"]
    with atomic_path(out / "attention.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def table_row(network: str, decoding: str, outcomes: Sequence[Outcome]) -> list[str]:
    """A way of decoding a network, compared with greedy decoding of CTC alone over the seeds that
    both have."""
    own = [one for one in outcomes if (one.network, one.decoding) == (network, decoding)]
    counts = _pooled(own)
    rate = sum(c.errors for c in counts.values()) / sum(c.reference_length for c in counts.values())
    seeds = {one.seed for one in own}
    alone = [
        one
        for one in outcomes
        if (one.network, one.decoding) == (ALONE, GREEDY) and one.seed in seeds
    ]
    against = paired_bootstrap(counts, _pooled(alone))
    is_first = (network, decoding) == (ALONE, GREEDY)
    dev, test = (
        ", ".join(str(sum(c.errors for c in part.values())) for part in parts)
        for parts in ([one.dev for one in own], [one.test for one in own])
    )
    return [
        network,
        decoding,
        ", ".join(f"{one.weight:g}" for one in own) if decoding == RESCORED else "",
        dev,
        test,
        f"{100 * rate:.2f} ({interval_text(bootstrap_interval(list(counts.values())))})",
        "" if is_first else f"{100 * against.difference:+.2f} ({spread_text(against)})",
        "" if is_first else f"{against.not_better:.3f}",
    ]


def _pooled(outcomes: Sequence[Outcome]) -> dict[str, ErrorCounts]:
    """Test errors by utterance, summed over the seeds."""
    return {
        name: sum((one.test[name] for one in outcomes), ErrorCounts()) for name in outcomes[0].test
    }


if __name__ == "__main__":
    main()
