"""What these pages of docs/ say is run as it stands there."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import asr
from asr.audio.load import write_wav
from asr.config import settings
from asr.dataset.manifest import read_manifest, write_manifest
from asr.decoding.decoder import DecoderConfig
from asr.evaluation.formats import write_texts
from asr.evaluation.normalise import load_profile
from asr.evaluation.tune_decoder import BONUSES, SIZES, WEIGHTS
from asr.inference.formats import FORMATS
from asr.inference.subtitles import LINGER, SubtitleConfig
from asr.lm.estimate import estimate
from asr.training.recipe import Recipe
from tests.commands import Command
from tests.tones import RATE, speak, tone_recipe, untrained_bundle, write_corpus

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"), *ROOT.glob("recipes/*/README.md")]
DECODING = (DOCS / "decoding.md").read_text()
EVALUATION = (DOCS / "evaluation.md").read_text()
LABELS = (DOCS / "labels.md").read_text().partition("## How well")[0]
LARGE = (DOCS / "large-corpora.md").read_text()
TRANSCRIBE = (DOCS / "transcribe.md").read_text()


def blocks(language: str, page: str = DECODING) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


@pytest.mark.usefixtures("no_pictures", "small_grid")
def test_commands(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests, model = tones
    for manifest in (manifests["train"], manifests["dev"]):
        shutil.copy(manifest, tmp_path)
        shutil.copytree(manifest.with_suffix(""), tmp_path / manifest.stem)
    shutil.copytree(model, tmp_path / "run" / "model")
    with gzip.open(tmp_path / "more-sentences.txt.gz", "wt") as file:
        file.write("low high\nup down up\n")
    (tmp_path / "FILE").write_text("low\nhigh\n")
    (tmp_path / "talk.txt").write_text("low high")
    write_wav(tmp_path / "talk.wav", speak("low high"), RATE)
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks("")).splitlines():
        command = shlex.split(line.replace("MODEL", "run/model"))
        assert command[0] == "asr"
        assert run(*command[1:]).status == 0, line
    table = DECODING.partition("## Decoder options")[2].partition("##")[0]
    options = re.findall(r"`(--[^`]*)`", table)
    assert len(options) == 8
    audio = next((tmp_path / "dev").glob("*.wav"))
    for option in options:
        words = shlex.split(option.replace("PATH", "lm"))
        for place, other in (("espoo", "low"), ("new york", "low high")):
            words = [word.replace(place, other) for word in words]
        assert run("transcribe", audio, "--model", "run/model", *words).status == 0, option


def test_commands_of_large_corpora(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "corpus", {"train": 4, "dev": 2})
    recipe = tone_recipe({"train": Path("train"), "dev": Path("dev")}, Path("run"), epochs=1)
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json())
    monkeypatch.chdir(tmp_path)
    packing, training = "".join(blocks("", LARGE)).splitlines()
    assert run(*shlex.split(packing)[1:], "--rate", RATE).status == 0
    command = shlex.split(training.replace("ORIGIN", str(tmp_path / "packed")))
    assert run(*command[1:]).status == 0
    assert list((tmp_path / "run" / "shards").glob("train-*.tar"))


def test_commands_of_training(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    recipe = tone_recipe(manifests, tmp_path / "run", epochs=1)
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json())
    monkeypatch.chdir(tmp_path)
    lines = blocks("", (DOCS / "training.md").read_text())[0].splitlines()
    for line in lines:
        command = shlex.split(line.replace("=80", "=2"), comments=True)
        assert run(*command[1:]).status == 0, line
    rows = (DOCS / "training.md").read_text().partition("## The folder")[2].partition("##")[0]
    for name in re.findall(r"`([a-z-]+(?:/|\.json))`", rows):
        assert (tmp_path / "run" / name).exists(), name


def test_commands_of_labels(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, model = tones
    shutil.copytree(model.parents[1], tmp_path / "greetings")  # trained already
    shutil.copytree(model.parents[1] / "test", tmp_path / "untranscribed")
    manifests = {"train": Path("train.jsonl"), "dev": Path("dev.jsonl")}
    recipe = tone_recipe(manifests, Path("run"), epochs=2, learning_rate=0.02)
    (tmp_path / "greetings" / "recipe.yaml").write_text(recipe.model_dump_json())
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks("", LABELS)).splitlines():
        assert run(*shlex.split(line)[1:]).status == 0, line
    assert len(read_manifest("greetings/labels.jsonl")) > 10
    reviewed = read_manifest("greetings/clean/check.jsonl")
    assert reviewed[0].extra.keys() == {"misfit", "hypothesis"}
    # As a person who checked them leaves them; the last two lines are for a shell.
    write_manifest("greetings/clean/check.reviewed.jsonl", reviewed)
    language, *others = blocks("sh", LABELS)
    own = (DOCS / "your-own-data.md").read_text()  # whose commands are run in test_readme.py
    assert all(line in own for line in language.splitlines())
    serving, joining, training = "".join(others).replace("\\\n", "").splitlines()
    assert Path(shlex.split(serving)[-1]) == Path("greetings/clean/check.jsonl")
    parts = [Path(name).read_text() for name in shlex.split(joining)[1:3]]
    Path(shlex.split(joining)[-1]).write_text("".join(parts))
    assert run(*shlex.split(training)[1:]).status == 0
    assert len(read_manifest("greetings/clean/train.jsonl")) == 40
    assert (tmp_path / "greetings" / "second" / "model").is_dir()


def test_transcribe(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests, model = tones
    shutil.copytree(model, tmp_path / "MODEL")
    shutil.copytree(manifests["test"].with_suffix(""), tmp_path / "recordings")
    monkeypatch.chdir(tmp_path)
    samples = speak("low high up down")
    soundfile.write(tmp_path / "call.wav", np.stack([samples, samples], axis=1), RATE)
    write_wav(tmp_path / "talk.wav", samples, RATE)
    (tmp_path / "talk.raw").write_bytes((tmp_path / "talk.wav").read_bytes()[44:])
    for line in "".join(blocks("", TRANSCRIBE.partition("## Live")[0])).splitlines():
        command, _, stdin = line.partition(" < ")
        with Path(stdin or "talk.wav").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert run(*shlex.split(command)[1:]).status == 0, line
    assert len(list((tmp_path / "texts").glob("*.srt"))) == 20
    (code,) = blocks("python", TRANSCRIBE)
    exec(compile(code, "docs/transcribe.md", "exec"), {})
    assert (tmp_path / "talk.srt").read_text().count("<u>") == 4
    table = TRANSCRIBE.partition("## Formats")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M)))) >= set(
        FORMATS
    )
    shown = run("transcribe", "--help").out
    assert all(option in shown for option in re.findall(r"`(--[a-z-]+)`", TRANSCRIBE))
    looks = SubtitleConfig()
    figures = (
        f"at most {looks.lines} lines of {looks.width} characters",
        f"5/6 to {looks.longest:.0f} seconds",
        f"{LINGER / 1000} seconds later",
        f"{looks.reading_speed:.0f} characters a second",
        f"({looks.gap * 1000:.0f} ms)",
    )
    assert all(figure in " ".join(TRANSCRIBE.split()) for figure in figures)


def test_figures() -> None:
    (pairs,) = re.findall(r"tries (\d+) pairs .*, and beams of five sizes", DECODING)
    assert int(pairs) == len(WEIGHTS) * len(BONUSES)
    assert len(SIZES) == 5


def test_hot_words_in_python() -> None:
    code, _ = blocks("python")
    names = {"recognizer": asr.load()}
    exec(compile(code, "docs/decoding.md", "exec"), names)
    assert names["recognizer"].decoder.config.hot_words == {"new york": 3.0}


def test_beam_search_while_somebody_speaks() -> None:
    _, code = blocks("python")
    bundle = untrained_bundle()
    names = {
        "bundle": bundle,
        "ngram": estimate(["low high", "up down"], order=2),
        "stream": torch.randn(3, 10, len(bundle.tokens)).log_softmax(-1),
    }
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/decoding.md", "exec"), names)
    assert len(out.getvalue().splitlines()) == 4


def test_commands_of_evaluation(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests, model = tones
    shutil.copytree(model, tmp_path / "MODEL")
    shutil.copy(manifests["test"], tmp_path)
    shutil.copytree(manifests["test"].with_suffix(""), tmp_path / "test")
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "MODEL", "test.jsonl", "--out", "other-report").status == 0
    spoken = {u.id: u.text for u in read_manifest("test.jsonl")}
    write_texts("hypotheses.trn", spoken, "trn")
    for line in "".join(blocks("", EVALUATION)).splitlines():
        assert run(*shlex.split(line)[1:]).status == 0, line
    files = re.findall(r"^\| `([^`]+)`", EVALUATION, re.MULTILINE)
    assert sorted(files) == sorted(path.name for path in (tmp_path / "report").iterdir())
    assert (tmp_path / "comparison" / "comparison.html").is_file()
    assert (tmp_path / "leaderboard.html").is_file()
    assert (tmp_path / "scored" / "report.json").is_file()
    assert (tmp_path / "texts" / "hypothesis.ctm").is_file()


def test_rules_of_evaluation(tmp_path: Path) -> None:
    (rules,) = blocks("yaml", EVALUATION)
    (tmp_path / "rules.yaml").write_text(rules)
    profile = load_profile(tmp_path / "rules.yaml")
    assert profile.apply("Uh, it's O K!") == "it's okay"


# Names of files, not of settings.
FILES = (".json", ".jsonl", ".md", ".onnx", ".safetensors", ".tsv", ".txt", ".yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {setting.key for kind in (Recipe, DecoderConfig) for setting in settings(kind)}
    sections = {key.partition(".")[0] for key in known if "." in key}
    for key in re.findall(r"(?<![\w./])([a-z_]+\.[a-z_]+(?:\.[a-z_0-9]+)?)(?=[`=:])", text):
        if key.partition(".")[0] in sections and not key.endswith(FILES):
            assert key in known, key
    for name in re.findall(r"`([\w./]+/[\w./]+\.(?:py|md|yaml))`", text):
        if not name.startswith("greetings/"):
            assert (ROOT / name).exists() or (ROOT / "asr" / name).exists(), name
    for name, module in re.findall(r"`(\w+)`\s+of\s+`(asr[.\w]*)`", text):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    for name in re.findall(r"python -m (tests(?:\.bench \w+|\.\w+))", text):
        path = ROOT / name.replace(".", "/").replace(" ", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_the_glossary_is_linked_and_sorted() -> None:
    assert "(glossary.md)" in (DOCS / "design.md").read_text()
    terms = re.findall(r"^- \*\*(.+?)\*\*", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 40
    assert terms == sorted(terms, key=str.casefold)
