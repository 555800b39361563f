"""What the scripts in recipes/ share: prepare a corpus, train, evaluate, write the results."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from asr.console import progress_bar, run_command


class Prepare(Protocol):
    """Writes the manifests of a corpus and returns them by name: train, dev and test sets, which
    begin with "test"."""

    def __call__(
        self, folder: Path, source: Path | None, progress: Callable[[int, int], None]
    ) -> dict[str, Path]: ...


def main(script: str, description: str | None, prepare: Prepare) -> None:
    """The command line of recipes/NAME/run.py, whose recipe.yaml lies beside it and whose data and
    results go to exp/NAME."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="local copy of the corpus, unpacked")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="other settings")
    arguments = parser.parse_args()
    here = Path(script).resolve().parent
    data = here.parents[1] / "exp" / here.name / "data"

    def work() -> None:
        with progress_bar("preparing") as progress:
            manifests = prepare(data, arguments.source, progress)
        tests = {name: path for name, path in manifests.items() if name.startswith("test")}
        run_recipe(here / "recipe.yaml", arguments.overrides, tests)

    run_command(work)


def run_recipe(recipe: Path, overrides: Sequence[str], tests: dict[str, Path]) -> None:
    """Train as a recipe says, evaluate the final model on its test sets, write the results."""
    from asr.cli import evaluate_model, train_model
    from asr.evaluation.summary import result_row, to_markdown
    from asr.files import atomic_path
    from asr.training.recipe import read_recipe

    parsed = read_recipe(recipe, overrides)
    model = train_model(parsed)
    rows = []
    for name, manifest in tests.items():
        evaluate_model(model, manifest, parsed.out / name)
        rows.append({"test": name} | result_row(parsed.out, parsed.out / name))
    table = to_markdown(rows)
    with atomic_path(parsed.out / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    print(table)
