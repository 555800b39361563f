"""Common code of the scripts in recipes/: prepare a corpus, train, evaluate, write results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from asr.cli.console import run_command
from asr.errors import AsrError
from asr.io.terminal import progress_bar, show, tell

Prepare = Callable[..., dict[str, Path]]
"""Takes a folder, a local copy or None, a progress function, and options by name. Writes the
manifests of a corpus and returns them by name: train, dev and test sets, whose names begin with
"test".
"""


def main(
    script: str,
    description: str | None,
    prepare: Prepare,
    options: Mapping[str, str] | None = None,
    shorten: bool = False,
    before: Sequence[str] = (),
) -> None:
    """The command line of recipes/NAME/run.py. Its recipe.yaml is in the same folder; its data and
    results go to exp/NAME.

    With `shorten`, aligner.yaml beside it trains a first model that finds the words of the training
    recordings, which are then cut into the short ones for recipe.yaml. `before` names recipes
    beside it that are trained first: recipe.yaml continues from their models.

    `options` are further choices of the corpus, with their defaults: {"language": "de"} becomes the
    option --language and an argument of `prepare`, and the folder is then exp/NAME-de.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="local copy of the corpus, unpacked")
    for option, default in (options or {}).items():
        note = f"which {option} of the corpus (default: {default or 'none'})"
        parser.add_argument(f"--{option}", default=default, help=note)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="other settings")
    # Settings may be before, after and between options.
    arguments = parser.parse_intermixed_args()
    chosen = {option: getattr(arguments, option) for option in options or {}}
    here = Path(script).resolve().parent
    out = here.parents[1] / "exp" / "-".join([here.name, *filter(None, chosen.values())])

    def work() -> None:
        from asr.cli.main import train_model
        from asr.training.recipe import read_recipe

        _check_names(chosen)
        with progress_bar("preparing") as progress:
            manifests = prepare(out / "data", arguments.source, progress, **chosen)
        if shorten:
            shorten_recordings(here / "aligner.yaml", manifests["train"])
        for name in before:
            train_model(read_recipe(here / f"{name}.yaml"))
        tests = {name: path for name, path in manifests.items() if name.startswith("test")}
        # recipe.yaml refers only to exp/NAME.
        places = [f"data.{part}={manifests[part]}" for part in ("train", "dev")] + [f"out={out}"]
        overrides = [*(places if chosen else ()), *arguments.overrides]
        run_recipe(here / "recipe.yaml", overrides, tests)

    run_command(work)


def shorten_recordings(recipe: Path, manifest: Path) -> None:
    """Write the segments of the training recordings beside their manifest, as short.jsonl."""
    from asr.cli.main import train_model
    from asr.inference.segment import cut_manifest
    from asr.training.recipe import read_recipe

    model = train_model(read_recipe(recipe))
    with progress_bar("cutting") as progress:
        result = cut_manifest(model, manifest, manifest.with_name("short.jsonl"), progress=progress)
    for problem in result.left_whole:
        tell(f"left whole: {problem}")


def _check_names(chosen: Mapping[str, str]) -> None:
    """Raise AsrError if an option cannot be part of a folder's name."""
    for option, value in chosen.items():
        if value and not value.replace("-", "").replace("_", "").isalnum():
            raise AsrError(
                f"expected letters, digits, - and _ for --{option}, got '{value}': correct it"
            )


def run_recipe(recipe: Path, overrides: Sequence[str], tests: dict[str, Path]) -> None:
    """Train by a recipe, evaluate the final model on its test sets, write the results, and only
    then exit with an error if recordings could not be read."""
    from asr.cli.evaluate import evaluate_model
    from asr.cli.main import train_model
    from asr.evaluation.summary import result_row, to_markdown
    from asr.io.files import atomic_path
    from asr.training.recipe import read_recipe

    parsed = read_recipe(recipe, overrides)
    model = train_model(parsed)
    rows, all_read = [], True
    shown: list[str] = []  # printed at the end, since the reader of the output may close it
    for name, manifest in tests.items():
        all_read &= evaluate_model(model, manifest, parsed.out / name, output=shown.append)
        rows.append({"test": name} | result_row(parsed.out, parsed.out / name))
    table = to_markdown(rows)
    with atomic_path(parsed.out / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    show("\n".join([*shown, table]))
    if not all_read:
        sys.exit(1)
