"""Train the model of the package: on AN4, as strangers would have recorded it.

asr train recipes/an4/readers.yaml                           the initial weights, from other readers
python recipes/an4/shipped.py --source DIR --fsdd DIR        two seeds, and both test sets
python recipes/an4/shipped.py --source DIR --seeds 2         one seed, and AN4's test set alone
python recipes/an4/shipped.py --source DIR train.epochs=40   with another schedule
python recipes/an4/shipped.py --source DIR --readers MANIFEST   with more speakers

--readers is a manifest of other people's speech, such as Mini LibriSpeech's short utterances
(exp/mini_librispeech/data/short.jsonl). Those with a word of AN4 in them are added to training.
--fsdd is a copy of the Free Spoken Digit Dataset, of which nothing is trained on and nothing is
chosen. Dev is AN4's, three times: as recorded, in other surroundings, and word by word. It chooses
the epochs. Stopped, a training goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip

from asr.cli.console import run_command
from asr.cli.recipes import run_recipe
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import ManifestError
from asr.experiments import surroundings
from asr.inference.transcribe import trained_model
from asr.io.terminal import progress_bar
from asr.models.bundle import load_bundle
from asr.training.recipe import read_recipe
from data import an4, fsdd

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "exp" / "an4-shipped"
SEED = 1  # of the noises and of dev, which are the same in all trainings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with AN4's etc and wav")
    parser.add_argument("--fsdd", type=Path, help="folder with the recordings of FSDD")
    parser.add_argument("--readers", type=Path, help="manifest of more speakers to train on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    run_command(partial(work, parser.parse_intermixed_args()))


def work(arguments: argparse.Namespace) -> None:
    """Train with each seed, and test."""
    recipe = read_recipe(HERE / "shipped.yaml", arguments.overrides)  # errors come before the work
    overrides = list(arguments.overrides)
    readers = None if arguments.readers is None else read_manifest(arguments.readers)
    tests = {"test": prepare(OUT / "data", arguments.source)}
    if readers is not None:
        overrides.insert(0, f"data.train={add_readers(OUT / 'data', readers)}")
    if arguments.fsdd is not None:
        splits = fsdd.prepare(OUT / "data" / "fsdd", arguments.fsdd)
        tests["fsdd"] = splits[fsdd.OFFICIAL]["test"]
    for seed in arguments.seeds:
        # Another schedule is another training, and so are other speakers.
        name = f"{seed}-{recipe.train.epochs}" + ("" if readers is None else "-readers")
        settings = [f"train.seed={seed}", f"out={OUT / name}", *overrides]
        run_recipe(HERE / "shipped.yaml", settings, tests)


def prepare(folder: Path, source: Path | None) -> Path:
    """Write AN4's manifests, noise to train with, and dev in other surroundings; the test set."""
    parts = an4.prepare(folder, source)
    noise = folder / "noise"
    surroundings.write_noise(noise, read_manifest(parts["train"]), SEED)
    aligner = load_bundle(trained_model())  # which has not heard the speakers of dev
    with progress_bar("dev in other surroundings") as progress:
        dev = read_manifest(parts["dev"])
        surroundings.write_dev(folder / "surroundings", dev, noise, aligner, SEED, progress)
    return parts["test"]


def add_readers(folder: Path, readers: Sequence[Utterance]) -> Path:
    """The manifest of AN4's training set and of those utterances of `readers` that have one of its
    words: of three letters or more, because shorter ones and "and" are in most English sentences.

    Raises ManifestError if no utterance has such a word.
    """
    train = read_manifest(folder / "train.jsonl")
    known = {word for u in train for word in u.text.lower().split() if len(word) > 2} - {"and"}
    more = [u for u in readers if known.intersection(u.text.lower().split())]
    if not more:
        raise ManifestError(
            f"expected words of AN4 in --readers, got none in {len(readers)} utterances: give a "
            "manifest of English speech with transcripts"
        )
    path = folder / "train-readers.jsonl"
    write_manifest(path, [*train, *more])
    return path


if __name__ == "__main__":
    main()
