"""Train and evaluate on Mini LibriSpeech.

python recipes/mini_librispeech/run.py                 download, prepare, train, evaluate
python recipes/mini_librispeech/run.py --source DIR    from a local copy with DIR/train-clean-5
python recipes/mini_librispeech/run.py train.seed=2 out=exp/mini_librispeech-2
"""

from __future__ import annotations

import argparse
from pathlib import Path

from asr.cli import run_recipe
from asr.console import progress_bar, run_command
from data import librispeech

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "exp" / "mini_librispeech" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with train-clean-5 and dev-clean-2")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()

    def work() -> None:
        with progress_bar("downloading") as progress:
            prepared = librispeech.prepare("mini", DATA, arguments.source, progress)
        for lack in prepared.incomplete:
            print(f"not the whole published set: {lack}")
        run_recipe(HERE / "recipe.yaml", arguments.overrides, prepared.manifests["test"])

    run_command(work)


if __name__ == "__main__":
    main()
