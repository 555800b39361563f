"""What the command line takes, and what it says of that.

Covers `asr/cli/decoder_options.py`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import click
import pytest
import typer.main

from asr.cli.main import app
from asr.cli.pretrain import OF_TRANSCRIPTS
from asr.config import Config, parse, settings, with_overrides
from asr.decoding.decoder import DecoderConfig
from asr.training.pretrain import PretrainConfig
from asr.training.recipe import Recipe
from asr.training.train_lm import LanguageTraining
from tests.commands import Command

DECODING = ["--decoder", "--lm", "--rescore", "--lexicon", "--hot-word", "--hot-words", "--set"]
SHARDS = ["--shard", "--merge"]
OPTIONS = {
    "align": ["model", "source", "--text", "--format", "--out", *SHARDS],
    "augment": ["recipe", "overrides", "--listen", "--out"],
    "check": ["manifests", "--model", "--out", *SHARDS],
    "clean": ["model", "manifest", "--out", "--worst", "--audio-mb", *SHARDS],
    "compare": ["reports", "--out"],
    "demo": ["--out", "--seed"],
    "evaluate": [
        "model",
        "manifest",
        "--out",
        "--normalise",
        "--units",
        "--audio-mb",
        *DECODING,
        *SHARDS,
    ],
    "gradients": ["config", "overrides", "--out"],
    "label": ["model", "source", "--out", "--dev", "--target", "--seconds", *DECODING, *SHARDS],
    "lm estimate": [
        "texts",
        "--out",
        "--order",
        "--model",
        "--characters",
        "--cutoff",
        "--min-count",
        "--closed",
    ],
    "lm train": ["texts", "--dev", "--out", "--model", "--units", "--size", "--set", "--settings"],
    "lm sample": ["lm", "--prompt", "--temperature", "--count", "--seed"],
    "lm perplexity": ["lm", "texts", "--model", "--words"],
    "models list": ["folders"],
    "models pack": ["model", "file"],
    "models pull": ["repository", "folder", "--revision"],
    "models push": ["model", "repository", "--private"],
    "models show": ["model"],
    "models unpack": ["file", "folder"],
    "new": ["project", "source", "--from", *SHARDS],
    "report": ["folders", "--out", "--texts"],
    "cut": ["model", "manifest", "--out", "--seconds", *SHARDS],
    "pack": ["manifests", "--out", "--hours", "--rate", *SHARDS],
    "pretrain": ["sources", "--out", "--recipe", "--dev", "--set", "--settings"],
    "ray": ["command", "--shards", "--cpus", "--gpus"],
    "score": [
        "reference",
        "hypothesis",
        "--out",
        "--normalise",
        "--units",
        "--train",
        "--reference-format",
        "--hypothesis-format",
    ],
    "tune": [
        "model",
        "manifest",
        "--lm",
        "--rescore",
        "--lexicon",
        "--set",
        "--settings",
        "--out",
        "--reset",
    ],
    "export": ["model", "--to", "--out", "--int8", "--waveform", "--check", "--graph", "--delay"],
    "train": ["recipe", "overrides", "--settings", "--finish"],
    "serve": [
        "models",
        "--wyoming",
        "--delay",
        "--review",
        "--host",
        "--port",
        "--token-file",
        "--allow-origin",
    ],
    "transcribe": [
        "files",
        "--model",
        "--channels",
        "--start",
        "--end",
        "--format",
        "--out",
        "--resume",
        "--line-width",
        "--line-count",
        "--shortest",
        "--longest",
        "--reading-speed",
        "--gap",
        "--highlight",
        *DECODING,
        "--live",
        "--device",
        "--rate",
        "--delay",
        "--stats",
        *SHARDS,
    ],
}


def commands() -> dict[str, click.Command]:
    """Every command by its words, those of groups too, without hidden ones."""
    group: Any = typer.main.get_command(app)
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if command.hidden:
            continue
        below = getattr(command, "commands", {})
        found |= {f"{name} {sub}": one for sub, one in below.items()} or {name: command}
    return found


def test_the_options_are_exactly_these() -> None:
    found = {}
    for name, command in commands().items():
        found[name] = [
            p.opts[0] if p.param_type_name == "option" else str(p.name) for p in command.params
        ]
    assert found == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_has_help_with_an_example_that_works(run: Command, name: str) -> None:
    ended = run(*name.split(), "--help")
    assert ended.status == 0
    example = re.search(rf"Example: asr {name} (.*)", " ".join(ended.out.split()))
    assert example, ended.out
    # Parsed by the command itself; nothing is run.
    commands()[name].make_context(name, shlex.split(example[1]))
    for option in OPTIONS[name]:
        assert option in ended.out.lower() or option == "overrides"


def test_help_and_mistyped_commands_and_options(run: Command) -> None:
    assert all(name.split()[0] in run("--help").out for name in OPTIONS)
    for arguments in (["transcibe"], ["transcribe", "--modle", "x", "y"], ["evaluate"]):
        ended = run(*arguments)
        assert ended.status == 2
        assert "Traceback" not in ended.err
        assert ended.err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, asr.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("train", Recipe),
        ("tune", DecoderConfig),
        ("lm train", LanguageTraining),
        ("pretrain", PretrainConfig),
    ],
)
def test_settings_are_listed(run: Command, command: str, config: type[Config]) -> None:
    ended = run(*command.split(), "--settings")
    assert (ended.status, ended.err) == (0, "")
    keys = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    known = {setting.key: setting for setting in settings(config)}
    omitted = {"parts", "tuned", "text.phones", *(OF_TRANSCRIPTS if command == "pretrain" else ())}
    assert keys == [key for key in known if key not in omitted]
    assert all(known[key].meaning for key in keys)
    for key in keys:  # what is listed can be given back
        if known[key].default and config is not Recipe:
            parse(config, with_overrides({}, [f"{key}={known[key].default}"]), "test")
