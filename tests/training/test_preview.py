from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.load import write_wav
from asr.config import settings
from asr.training.preview import VARIANTS, write_examples
from asr.training.recipe import Recipe, read_recipe
from tests.commands import Command
from tests.tones import tone_recipe, write_corpus


def recipe_file(folder: Path) -> Path:
    manifests = write_corpus(folder / "corpus", {"train": 6, "dev": 2})
    values = tone_recipe(manifests, folder / "out", epochs=1).model_dump(mode="json")
    values["augment"]["speeds"] = [0.8, 1.25]
    (folder / "recipe.yaml").write_text(json.dumps(values))
    return folder / "recipe.yaml"


def test_examples_are_varied_and_repeat(tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file(tmp_path))
    examples = write_examples(recipe, tmp_path / "a", 3)
    assert len(examples) == 3
    for example in examples:
        original, rate = soundfile.read(tmp_path / "a" / example.original)
        assert len(example.variants) == VARIANTS
        for variant in example.variants:
            samples, its_rate = soundfile.read(tmp_path / "a" / variant.file)
            assert its_rate == rate
            speed = float(variant.done.removeprefix("speed "))
            assert len(samples) == np.ceil(len(original) / speed)
    assert write_examples(recipe, tmp_path / "b", 3) == examples
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    page = (tmp_path / "a" / "listen.html").read_text()
    assert page.count("<audio") == 3 * (1 + VARIANTS)


def test_the_command_takes_noise_from_a_folder(run: Command, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path)
    noise = tmp_path / "noise"
    noise.mkdir()
    write_wav(noise / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    wanted = [
        "augment.speeds=[1.0]",
        f"augment.noise.folder={noise}",
        "augment.noise.prob=1",
    ]
    out = tmp_path / "out"
    ended = run("augment", recipe, *wanted, "--listen", 2, "--out", out)
    assert ended.status == 0, ended.err
    quiet, _ = soundfile.read(out / "001-original.wav")
    noisy, _ = soundfile.read(out / "001-1.wav")
    assert len(quiet) == len(noisy)
    assert np.abs(noisy - quiet).mean() > 1e-3
    empty = tmp_path / "empty"
    empty.mkdir()
    ended = run("augment", recipe, f"augment.noise.folder={empty}")
    assert "expected recordings in augment.noise.folder" in ended.error()


def test_the_page_about_augmentation_is_true(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "augmentation.md").read_text()
    keys = re.findall(r"^\| `(augment\.[\w.]+)`", page, re.MULTILINE)
    assert set(keys) <= {setting.key for setting in settings(Recipe)}
    assert len(keys) == 17
    (command,) = re.findall(r"^```\n(asr .*)\n```$", page, re.MULTILINE)
    recipe_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(*shlex.split(command)[1:]).status == 0
    assert len(list(Path("listen").glob("*.wav"))) == 5 * (1 + VARIANTS)
