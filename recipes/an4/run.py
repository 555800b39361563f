"""Train and evaluate on CMU AN4.

python recipes/an4/run.py                              download, prepare, train, evaluate
python recipes/an4/run.py --source DIR                 from a local copy of the unpacked archive
python recipes/an4/run.py train.seed=2 out=exp/an4-2   with other settings
"""

from __future__ import annotations

import argparse
from pathlib import Path

from asr.cli import run_recipe
from asr.console import run_command
from data import an4

HERE = Path(__file__).resolve().parent
EXPERIMENTS = HERE.parents[1] / "exp"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with AN4's etc and wav")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()

    def work() -> None:
        manifests = an4.prepare(EXPERIMENTS / "an4" / "data", arguments.source)
        run_recipe(HERE / "recipe.yaml", arguments.overrides, manifests["test"])

    run_command(work)


if __name__ == "__main__":
    main()
