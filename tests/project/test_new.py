"""From a folder to a report in three commands, in any script, whole or not at all.

Covers `asr/training/estimate.py`, `asr/project/defaults.py`, `asr/project/notes.py`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.validate import AudioCheck, check_audio
from asr.errors import AsrError
from asr.models.about import AboutConfig
from asr.project.defaults import examine, propose, recipe_text
from asr.project.new import new_project
from asr.text.normalise import TextConfig
from asr.training.estimate import measure_training
from asr.training.loop import Loss
from asr.training.recipe import read_recipe
from asr.training.step import batch_loss
from tests.commands import Command
from tests.processes import NOBODY, left_by
from tests.tones import RATE, SMALL, sentence, write_recordings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your-own-data.md").read_text()
FIVE = {"ann": 6, "ben": 6, "cid": 6, "dora": 6, "eve": 6}
PARTS = ("train", "dev", "test")


def made(project: Path, source: Path) -> str:
    said: list[str] = []
    new_project(project, source, said.append)
    return "\n".join(said)


def parts(project: Path) -> dict[str, list[Utterance]]:
    return {name: list(read_manifest(project / f"{name}.jsonl")) for name in PARTS}


# --- the page, and the command ---


@pytest.mark.usefixtures("small_grid")
def test_the_page_is_run_as_it_stands(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a" / "b" / "c"  # of pytest's folder the name would mark a test set
    write_recordings(home / "recordings", FIVE)
    monkeypatch.chdir(home)
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = "".join(text for language, text in fenced if not language).splitlines()
    commands = [shlex.split(line) for line in lines]
    names = [command[1] for command in commands]
    assert names == [
        "new", "train", "evaluate", "check", "lm", "tune", "cut", "train", "transcribe",
    ]  # fmt: skip
    for command in commands:
        small = SMALL if command[1] == "train" else []
        ended = run(*command[1:], *small)
        assert ended.status == 0, (command, ended.out, ended.err)
        if command[1] == "new":
            assert [shlex.split(line) for line in ended.out.splitlines()[-2:]] == commands[1:3]
    assert (home / "greetings" / "report" / "report.html").is_file()
    assert (home / "greetings" / "run" / "model" / "decoder.json").is_file()


def test_the_command_refuses_what_is_not_there_in_one_line(run: Command, tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in run("new", tmp_path / "p", tmp_path / "absent").error()
    (tmp_path / "list.csv").write_text("audio,text\nx.wav,low,high\n")
    assert "list.csv:2" in run("new", tmp_path / "p", tmp_path / "list.csv").error()
    assert not (tmp_path / "p").exists()


# --- any script ---

TEXTS = {
    "German": ["Öffne die Tür", "Schließ das Fenster", "Wie spät ist es", "Grüß Gott"],
    "Persian": ["سلام دنیا", "می‌خواهم بروم", "چراغ را روشن کن", "ساعت چند است"],
    "Mandarin": ["打开门", "今天天气很好", "现在几点了", "关上窗户"],
}


@pytest.mark.parametrize("language", TEXTS)
def test_any_script(run: Command, tmp_path: Path, language: str) -> None:
    random = np.random.default_rng(0)
    rows = ["speaker\tpath\tsentence"]
    for number in range(16):
        name = f"{number}.wav"
        write_wav(tmp_path / name, random.normal(0, 0.1, RATE).astype(np.float32), RATE)
        rows.append(f"s{number % 4}\t{name}\t{TEXTS[language][number // 4]}")
    (tmp_path / "list.tsv").write_text("\n".join(rows), encoding="utf-8")
    ended = run("new", tmp_path / "p", tmp_path / "list.tsv")
    assert ended.status == 0, ended.err
    unspaced = language == "Mandarin"
    assert ("will count characters" in ended.out) == unspaced
    assert "digits" not in ended.out
    assert "punctuation" not in ended.out
    recipe = read_recipe(tmp_path / "p" / "recipe.yaml")
    assert recipe.tokens.kind == "characters"
    assert recipe.augment.concatenate_prob == (0 if unspaced else 0.5)
    found = parts(tmp_path / "p")
    assert {u.text for u in found["train"]} == set(TEXTS[language])
    assert run("train", tmp_path / "p" / "recipe.yaml", *SMALL).status == 0


def test_digits_and_punctuation_are_told(tmp_path: Path) -> None:
    for path in write_recordings(tmp_path / "rec", FIVE):
        path.with_suffix(".txt").write_text("7!")
    said = made(tmp_path / "p", tmp_path / "rec")
    assert "digits: 30 in the texts (7)" in said
    assert "punctuation: 30 in the texts (!)" in said
    assert "test sentences are also in train" in said


def test_capitals_and_letters_of_turkish_are_told(tmp_path: Path) -> None:
    for number, path in enumerate(write_recordings(tmp_path / "rec", FIVE)):
        text = "Low" if number % 2 else "lo\u200bw up"
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    said = made(tmp_path / "p", tmp_path / "rec")
    assert "capitals: 15 in the texts (L)" in said
    assert "Turkish" not in said
    assert "characters that are not seen: " in said
    assert "U+200B" in said
    assert "\u200b" not in said
    path.with_suffix(".txt").write_text("ISI\u0307 low", encoding="utf-8")
    assert "set text.language to tr" in made(tmp_path / "q", tmp_path / "rec")


def test_the_time_of_a_training_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.project.new.measure_training", measure_training)
    write_recordings(tmp_path / "rec", FIVE)
    said = made(tmp_path / "p", tmp_path / "rec")
    assert re.search(r"epochs; about .* on this machine, from measured training steps", said)
    # A slower step makes every step of every epoch slower.
    recipe = read_recipe(tmp_path / "p" / "recipe.yaml")
    usual = measure_training(recipe)
    monkeypatch.setattr("asr.training.estimate.batch_loss", _slow(0.5))
    assert measure_training(recipe) > usual + 0.4 * recipe.train.epochs


def _slow(seconds: float) -> Callable[..., Loss]:
    def step(*given: Any, **named: Any) -> Loss:
        time.sleep(seconds)
        return batch_loss(*given, **named)

    return step


def test_characters_that_are_not_learnt_are_told(tmp_path: Path) -> None:
    paths = write_recordings(tmp_path / "rec", FIVE)
    made(tmp_path / "p", tmp_path / "rec")
    speaker = read_manifest(tmp_path / "p" / "dev.jsonl")[0].speaker
    for path in paths:
        if path.parent.name == speaker:
            path.with_suffix(".txt").write_text("öö")
    said = made(tmp_path / "q", tmp_path / "rec")
    assert "that train lacks: ö (12 times)" in said


def test_examine() -> None:
    for text, unspaced in (
        ("你好 world", False),
        ("สวัสดีครับ", True),
        ("ありがとう", True),
        ("hi", False),
    ):
        assert examine([text], TextConfig()).unspaced == unspaced
    assert not examine(["今天 天气 很 好"], TextConfig()).unspaced


# --- splits ---


def spoken(speakers: list[str], seconds: float = 60.0) -> list[Utterance]:
    return [
        Utterance(f"{n}", Path("a.wav"), sentence(n), seconds, s) for n, s in enumerate(speakers)
    ]


def test_hours_decide_the_size() -> None:
    texts = examine(["open the door please"], TextConfig())
    sizes = []
    for hours in (0.1, 0.5, 5, 50, 500):
        proposal = propose(spoken(["a", "b"] * 3, hours * 600), texts)
        sizes.append((proposal.hidden, proposal.batch_seconds))
        assert proposal.units == "characters"
        assert proposal.concatenate_prob == 0
    assert sizes == [(128, 8), (192, 24), (256, 64), (320, 96), (512, 240)]
    commands = examine(["yes no"] * 30, TextConfig())
    assert propose(spoken(["a", "b"], 2), commands).units == "words"
    assert propose(spoken(["a", "a"], 2), commands).speeds == (0.95, 1.0, 1.05)


def test_the_recipe_shows_what_can_be_said_about_the_model(tmp_path: Path) -> None:
    proposal = propose(spoken(["a", "b"] * 3), examine(["open the door"], TextConfig()))
    settings, start, about = recipe_text("a folder", 1.0, proposal).partition("# about:")
    path = tmp_path / "recipe.yaml"
    path.write_text(settings)
    assert read_recipe(path).about == AboutConfig()
    path.write_text(settings + (start + about).replace("# ", ""))
    said = read_recipe(path).about
    assert (said.languages, said.licence) == (("en",), "cc-by-4.0")


# --- whole or not at all ---


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path) -> None:
    paths = write_recordings(tmp_path / "rec", FIVE)
    paths[0].write_bytes(b"RIFF")
    paths[1].with_suffix(".txt").unlink()
    paths[2].with_suffix(".txt").write_text("low " * 50)
    write_wav(paths[3], np.zeros(RATE, np.float32), RATE)
    said = made(tmp_path / "p", tmp_path / "rec")
    assert "left out: 4" in said
    assert said.rstrip().endswith("/report")
    lines = (tmp_path / "p" / "left-out.txt").read_text().splitlines()
    assert len(lines) == 4
    for why in ("decodable", "no text of the same name", "text does not fit", "silent audio"):
        assert sum(why in line for line in lines) == 1
    assert sum(map(len, parts(tmp_path / "p").values())) == 26
    # The same again gives the same.
    before = (tmp_path / "p" / "train.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "p")
    made(tmp_path / "p", tmp_path / "rec")
    assert (tmp_path / "p" / "train.jsonl").read_bytes() == before


def test_recordings_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def counted(utterance: Utterance) -> AudioCheck:
        checked.append(utterance.id)
        return check_audio(utterance)

    monkeypatch.setattr("asr.project.new.check_audio", counted)
    paths = write_recordings(tmp_path / "rec", FIVE)
    paths[2].with_suffix(".txt").write_text("low " * 50)
    assert "left out: 1 " in made(tmp_path / "p", tmp_path / "rec")
    assert len(checked) == len(set(checked)) == 30


def test_names_that_are_no_utf8_are_left_out(run: Command, tmp_path: Path) -> None:
    paths = write_recordings(tmp_path / "rec", FIVE)
    for path in (paths[0], paths[0].with_suffix(".txt")):
        path.rename(path.with_name(os.fsdecode(b"gr\xfc\xdfe" + path.suffix.encode())))
    ended = run("new", tmp_path / "p", tmp_path / "rec")
    assert ended.status == 0, ended.err
    assert "left out: 1 " in ended.out
    assert "its name is not UTF-8" in (tmp_path / "p" / "left-out.txt").read_text()
    assert sum(map(len, parts(tmp_path / "p").values())) == 29
    (tmp_path / "rec").rename(tmp_path / os.fsdecode(b"r\xe4c"))
    with pytest.raises(AsrError, match=r"got 30 of 30 that cannot be used.*not UTF-8: rename it"):
        made(tmp_path / "q", tmp_path / os.fsdecode(b"r\xe4c"))


def test_a_source_of_any_name_can_be_named_in_the_recipe(tmp_path: Path) -> None:
    paths = write_recordings(tmp_path / "recordings", FIVE)
    rows = ["audio,text", *(f"{path},{path.with_suffix('.txt').read_text()}" for path in paths)]
    (tmp_path / "\033[1mold\n").mkdir()
    table = tmp_path / "\033[1mold\n" / os.fsdecode(b"\xe4.csv")
    table.write_text("\n".join(rows))
    made(tmp_path / "p", table)
    assert "?[1mold /?.csv\n" in (tmp_path / "p" / "recipe.yaml").read_text()


def test_a_text_with_half_a_character_is_named(tmp_path: Path) -> None:
    rows = []
    for number, path in enumerate(write_recordings(tmp_path / "rec", FIVE)):
        text = path.with_suffix(".txt").read_text() + "\ud800" * (number == 3)
        rows.append({"audio": str(path), "text": text})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        AsrError, match=r"list\.jsonl:4: expected whole characters, got half of one"
    ):
        made(tmp_path / "p", tmp_path / "list.jsonl")


def test_mostly_bad_or_too_little_leaves_nothing(tmp_path: Path) -> None:
    paths = write_recordings(tmp_path / "rec", {"ann": 9})
    with pytest.raises(AsrError, match="at least 10 recordings with texts, got 9"):
        made(tmp_path / "p", tmp_path / "rec")
    for path in paths[:5]:
        path.write_bytes(b"")
    with pytest.raises(AsrError, match=r"got 5 of 9 that cannot be used, first .*ann00"):
        made(tmp_path / "p", tmp_path / "rec")
    assert [p.name for p in tmp_path.iterdir()] == ["rec"]


def test_a_folder_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordings(tmp_path / "rec", FIVE)
    for taken in (tmp_path / "rec", tmp_path / "rec" / "ann" / "ann00.wav"):
        with pytest.raises(AsrError, match="expected a new folder, got"):
            made(taken, tmp_path / "rec")
    (tmp_path / "p").mkdir()
    (tmp_path / f".p.{left_by(NOBODY)}.tmp").mkdir()  # of an attempt that was killed
    made(tmp_path / "p", tmp_path / "rec")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "rec"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(AsrError, match="expected a new folder, got"):
        made(Path(), tmp_path / "rec")


def test_an_interrupted_preparation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_recordings(tmp_path / "rec", FIVE)
    monkeypatch.setattr("asr.project.new.check_manifests", stop)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "p", tmp_path / "rec")
    assert [p.name for p in tmp_path.iterdir()] == ["rec"]
