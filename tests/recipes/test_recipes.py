"""Every folder in recipes/ that has a recipe: it parses, and what belongs beside it is there."""

from __future__ import annotations

import argparse
import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest

from asr.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/recipe.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_a_recipe_parses_and_has_its_script_and_its_page(folder: Path) -> None:
    recipe = read_recipe(folder / "recipe.yaml")
    # The script prepares into exp/NAME/data: a recipe copied from another would train on that.
    out = ROOT / "exp" / folder.name
    shortens = (folder / "aligner.yaml").is_file()
    assert recipe.out.resolve() == out
    train = "short.jsonl" if shortens else "train.jsonl"
    assert recipe.data.train.resolve() == out / "data" / train
    assert recipe.data.dev.resolve() == out / "data" / "dev.jsonl"
    if shortens:
        aligner = read_recipe(folder / "aligner.yaml")
        assert aligner.out.resolve() == out / "aligner"
        assert aligner.data.train.resolve() == out / "data" / "train.jsonl"
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "## Results" in page
    script = (folder / "run.py").read_text(encoding="utf-8")
    assert f"recipes/{folder.name}/run.py" in (ast.get_docstring(ast.parse(script)) or "")


def test_mini_librispeech_for_two_cores_differs_in_size_tokens_splicing_and_schedule_alone() -> (
    None
):
    folder = ROOT / "recipes" / "mini_librispeech"
    both = [read_recipe(folder / f"{name}.yaml") for name in ("recipe", "two_cores")]
    large, small = both
    assert small.out.resolve() == large.out.resolve() / "two_cores"
    assert small.data == large.data
    assert small.model.hidden < large.model.hidden
    own = {"hidden", "dropout", "hierarchical_ctc_layer"}
    assert small.model.model_dump(exclude=own) == large.model.model_dump(exclude=own)
    assert (small.features, small.init) == (large.features, large.init)
    splicing = {"splice_prob", "splice_from"}
    assert small.augment.model_dump(exclude=splicing) == large.augment.model_dump(exclude=splicing)
    assert small.text == large.text


class ParsedError(Exception):
    """A script has understood its arguments."""


def commands() -> list[str]:
    """The commands of the documentation that run a script in recipes/."""
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*/README.md")]
    text = "\n".join(page.read_text().replace("\\\n", " ") for page in sorted(pages))
    return re.findall(r"python (recipes/[\w/]+\.py[^\n`]*)", text)


def test_scripts_understand_the_commands_of_the_documentation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = argparse.ArgumentParser.parse_intermixed_args

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        parse(parser)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    found = commands()
    assert len(found) > 20
    for command in found:
        script, *arguments = shlex.split(command, comments=True)
        monkeypatch.setattr("sys.argv", [script, *arguments])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except ParsedError:
            continue
        except SystemExit as error:
            pytest.fail(f"{command}: {error}")
        pytest.fail(f"{command}: no arguments were parsed")
