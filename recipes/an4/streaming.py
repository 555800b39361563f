"""Word error rate against latency on AN4: networks that stream, trained the way they are run.

python recipes/an4/streaming.py --source DIR              all networks, seed 1
python recipes/an4/streaming.py --source DIR --seeds 1 2  with two seeds
python recipes/an4/streaming.py --networks "one direction"  some of them
python recipes/an4/streaming.py train.epochs=20           with another schedule for all

Stopped, it goes on where it was when the same command is given again. Every test recording is also
pushed through a stream, a tenth of a second at a time, and compared with the text of the whole. A
network with chunks of many sizes is evaluated whole and with several of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip
import torch

from asr.audio.pcm import INT16
from asr.cli.console import run_command
from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.decoding.greedy import greedy_decode
from asr.evaluation.error_rate import bootstrap_interval
from asr.evaluation.evaluate import evaluate
from asr.experiments.comparison import Run, RunSettings, pooled, train_member
from asr.inference.decode import decode_dataset
from asr.inference.streaming import Stream, fix_chunk, latency
from asr.io.files import atomic_path, write_json
from asr.io.terminal import tell
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.padded import Padded
from asr.plotting import pyplot
from data import an4

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-streaming"
WHOLE = "whole utterance"
DRAWN = "chunks of 8 to 64, context 8"
SIZES = (8, 16, 32, 64)
"""With which a network with chunks of many sizes is evaluated."""
# Frames are 30 ms long.
NETWORKS: dict[str, list[str]] = {
    WHOLE: [],
    "whole utterance, statistics of the training set": [],
    "chunk 32, context 16": ["model.chunk=32", "model.right_context=16"],
    "chunk 16, context 16": ["model.chunk=16", "model.right_context=16"],
    "chunk 16, context 8": ["model.chunk=16", "model.right_context=8"],
    "chunk 8, context 4": ["model.chunk=8", "model.right_context=4"],
    DRAWN: ["model.chunk=[8,64]", "model.right_context=8"],
    "one direction, 16 ahead": ["model.bidirectional=false", "model.lookahead=16"],
    "one direction, 8 ahead": ["model.bidirectional=false", "model.lookahead=8"],
    "one direction": ["model.bidirectional=false"],
}
COLUMNS = (
    "network", "latency, s", "errors", "WER % (95 %)", "hidden", "parameters", "streamed RTF",
    "texts that differ",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A network trained with one seed; without latency where it does not stream.

    `streamed_factor` is the time a stream computes, by the length of the recordings, on one thread;
    `different` counts recordings whose text is another when streamed: there should be none.
    """

    run: Run
    latency: float | None = None
    streamed_factor: float | None = None
    different: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with AN4's etc and wav")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--parameters", type=float, default=1.0, help="budget, in millions")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    run_command(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write the table, its numbers and its picture."""
    test = an4.prepare(OUT.parent / "an4" / "data", arguments.source)["test"]
    shared = RunSettings(HERE / "family.yaml", OUT, test, arguments.parameters * 1e6)
    outcomes: list[Outcome] = []
    for seed in arguments.seeds:
        for name in arguments.networks:
            tell(f"{name}, seed {seed}")
            statistics = [] if name == WHOLE else ["features.cmvn=global"]
            common = [*statistics, *NETWORKS[name], *arguments.overrides]
            outcomes += outcomes_of(train_member(shared, name, seed, common), test)
            write_results(outcomes)


def outcomes_of(run: Run, test: Path) -> list[Outcome]:
    """Of a trained network: one, or one for whole utterances and one for each size of chunks."""
    bundle = load_bundle(run.model)
    if not isinstance(bundle.model.config.chunk, tuple):
        return [streamed(run, bundle, test)]
    whole = replace(run, member=f"{run.member}: {WHOLE}")
    return [Outcome(whole), *(with_chunks_of(size, run, test) for size in SIZES)]


def with_chunks_of(size: int, run: Run, test: Path) -> Outcome:
    """How a network with chunks of many sizes does with one of them."""
    bundle = load_bundle(run.model)
    fix_chunk(bundle.model, size)
    folder = Path(run.model).parent / f"chunk-{size}"
    save_bundle(folder / "model", bundle)
    rows = evaluate(folder / "model", test, folder / "test").report.scores.utterances
    words = {row.id: row.words for row in rows}
    own = replace(run, member=f"{run.member}: chunk {size}", words=words, model=str(folder))
    return streamed(own, bundle, test)


def streamed(run: Run, bundle: Bundle, test: Path) -> Outcome:
    """How a network does as a stream."""
    config = bundle.model.config
    if config.bidirectional and not config.chunk:
        return Outcome(run)
    data = SpeechDataset(read_manifest(test), None, bundle.text, bundle.sample_rate)
    whole = decode_dataset(bundle.model, data, Decoder(bundle.tokens))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds, different = 0.0, 0
    for index, utterance in enumerate(data.utterances):
        samples = torch.from_numpy(data.waveform(index)) / INT16
        started = time.perf_counter()
        text = stream_text(bundle, samples)
        seconds += time.perf_counter() - started
        different += text != whole[utterance.id]
    torch.set_num_threads(threads)
    return Outcome(run, latency(bundle.model), seconds / sum(data.durations), different)


def stream_text(bundle: Bundle, samples: torch.Tensor) -> str:
    """What is heard when the samples come a tenth of a second at a time. Shape: [S]."""
    stream = Stream(bundle.model)
    pieces = [stream.push(piece) for piece in samples.split(bundle.sample_rate // 10)]
    scores = torch.cat([*pieces, stream.finish()])
    (ids,) = greedy_decode(Padded(scores[None], torch.tensor([len(scores)])))
    return bundle.tokens.decode(ids)


def write_results(outcomes: Sequence[Outcome]) -> None:
    """streaming.json, streaming.md and streaming.png in the folder of the runs."""
    write_json(OUT / "streaming.json", [asdict(outcome) for outcome in outcomes])
    names = dict.fromkeys(outcome.run.member for outcome in outcomes)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(table_row(name, outcomes)) + " |" for name in names]
    last = outcomes[-1].run
    seeds = sorted({outcome.run.seed for outcome in outcomes})
    lines += ["", f"{last.date}, {last.machine}, seeds {seeds}, {last.epochs} epochs"]
    with atomic_path(OUT / "streaming.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(outcomes)
    print("\n".join(lines))


def word_error_rate(own: Sequence[Outcome]) -> tuple[float, float, float]:
    """Over all seeds together, with its 95 % interval by utterance, in percent."""
    runs = [outcome.run for outcome in own]
    counts = list(pooled(runs[0].member, runs, {run.seed for run in runs}).values())
    rate = sum(c.errors for c in counts) / sum(c.reference_length for c in counts)
    low, high = bootstrap_interval(counts) or (rate, rate)
    return 100 * rate, 100 * low, 100 * high


def table_row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    own = [outcome for outcome in outcomes if outcome.run.member == name]
    first = own[0]
    rate, low, high = word_error_rate(own)
    factors = [o.streamed_factor for o in own if o.streamed_factor is not None]
    return [
        name,
        "" if first.latency is None else f"{first.latency:.2f}",
        ", ".join(str(sum(c.errors for c in o.run.words.values())) for o in own),
        f"{rate:.2f} ({low:.1f} to {high:.1f})",
        str(first.run.hidden),
        f"{first.run.parameters / 1e6:.2f} M",
        f"{min(factors):.3f}" if factors else "",
        f"{sum(o.different or 0 for o in own)} of {sum(len(o.run.words) for o in own)}"
        if factors
        else "",
    ]


def draw(outcomes: Sequence[Outcome]) -> None:
    """Word error rate against latency; what does not stream is a line across."""
    plt = pyplot(OUT / "streaming.png")
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(outcome.run.member for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.run.member == name]
        rate, low, high = word_error_rate(own)
        colour = "tab:orange" if name.startswith("one") else "tab:blue"
        colour = "tab:green" if name.startswith(DRAWN) else colour
        if own[0].latency is None:
            whole = name == WHOLE
            axes.axhline(rate, linestyle=":" if whole else "--", color="grey")
            place = "top" if whole else "bottom"  # their lines all but coincide
            axes.text(0, rate, f" {name}", fontsize=8, color="grey", va=place)
            continue
        spread = [[rate - low], [high - rate]]
        axes.errorbar(own[0].latency, rate, yerr=spread, fmt="o", color=colour, capsize=3)
        axes.annotate(name, (own[0].latency, rate), (6, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("seconds from a sound to its last certain score, without computing time")
    axes.set_ylabel("word error rate on AN4's test set, %")
    axes.set_xlim(0, 1.25 * max(outcome.latency or 0 for outcome in outcomes))
    axes.grid(alpha=0.3)
    with atomic_path(OUT / "streaming.png") as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
