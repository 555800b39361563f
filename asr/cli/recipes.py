"""What the scripts in recipes/ share: prepare a corpus, train, evaluate, write the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from asr.cli.console import run_command
from asr.errors import AsrError
from asr.io.terminal import progress_bar, show, tell

Prepare = Callable[..., dict[str, Path]]
"""Takes a folder, a local copy or None, a function that reports progress, and options by name.
Writes the manifests of a corpus and returns them by name: train, dev and test sets, which begin
with "test".
"""


def main(
    script: str,
    description: str | None,
    prepare: Prepare,
    options: Mapping[str, str] | None = None,
    shorten: bool = False,
    before: Sequence[str] = (),
) -> None:
    """The command line of recipes/NAME/run.py, whose recipe.yaml lies beside it and whose data and
    results go to exp/NAME.

    With `shorten`, aligner.yaml beside it trains a first model that finds the words of the training
    recordings, which are then cut into the short ones that recipe.yaml learns from. `before` names
    recipes beside it that are trained first: recipe.yaml continues from their models.

    `options` are what else chooses the corpus, with their defaults: {"language": "de"} is offered
    as --language and given to `prepare` by name, and the folder is then exp/NAME-de.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="local copy of the corpus, unpacked")
    for option, default in (options or {}).items():
        note = f"which {option} of the corpus (default: {default or 'none'})"
        parser.add_argument(f"--{option}", default=default, help=note)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="other settings")
    # Settings may stand before, after and between options.
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
        # recipe.yaml knows of exp/NAME alone.
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
    """Raise AsrError where an option cannot be a part of a folder's name."""
    for option, value in chosen.items():
        if value and not value.replace("-", "").replace("_", "").isalnum():
            raise AsrError(
                f"expected letters, digits, - and _ for --{option}, got '{value}': correct it"
            )


def run_recipe(recipe: Path, overrides: Sequence[str], tests: dict[str, Path]) -> None:
    """Train as a recipe says, evaluate the final model on its test sets, write the results, and
    only then exit with an error where recordings could not be read."""
    from asr.cli.main import evaluate_model, train_model
    from asr.evaluation.summary import result_row, to_markdown
    from asr.io.files import atomic_path
    from asr.training.recipe import read_recipe

    parsed = read_recipe(recipe, overrides)
    model = train_model(parsed)
    rows, all_read = [], True
    shown: list[str] = []  # at the end, since whoever reads the output may close it
    for name, manifest in tests.items():
        all_read &= evaluate_model(model, manifest, parsed.out / name, output=shown.append)
        rows.append({"test": name} | result_row(parsed.out, parsed.out / name))
    table = to_markdown(rows)
    with atomic_path(parsed.out / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    show("\n".join([*shown, table]))
    if not all_read:
        sys.exit(1)
