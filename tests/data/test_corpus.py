"""What corpora share, and their scripts.

Covers `asr/cli/recipes.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from asr.cli import recipes
from asr.cli.recipes import Text, Transcripts, main
from asr.dataset.manifest import Utterance, read_manifest
from asr.errors import AsrError, AudioError
from asr.evaluation import tune_decoder
from asr.io.files import read_json
from data import corpus
from data.corpus import locate, speakers_apart, tell_incomplete, with_durations, write_splits
from tests.recordings import tone
from tests.tones import tone_recipe, write_corpus


def recordings(folder: Path, count: int) -> list[Utterance]:
    folder.mkdir()
    for i in range(count):
        soundfile.write(folder / f"{i}.wav", tone(0.1 + 0.1 * i, 8000), 8000)
    return [Utterance(str(i), folder / f"{i}.wav", "yes", 0.0) for i in range(count)]


def test_lengths_come_from_recordings_and_of_stretches_from_their_ends(tmp_path: Path) -> None:
    utterances = recordings(tmp_path / "wav", 3)
    longest = tmp_path / "wav" / "2.wav"
    stretches = [
        Utterance("s", longest, "no", 0.0, start=0.05, end=0.2),
        Utterance("t", longest, "no", 0.0, start=0.2, end=0.7),  # ends with its recording
    ]
    found = with_durations([*utterances, *stretches])
    assert [round(u.duration, 3) for u in found] == [0.1, 0.2, 0.3, 0.15, 0.1]
    assert [u.id for u in found] == ["0", "1", "2", "s", "t"]
    assert [u.end for u in found] == [None, None, None, 0.2, 0.3]


@pytest.mark.parametrize(("start", "end"), [(0.1, 0.9), (0.3, 0.4)])
def test_stretches_outside_of_their_recording_are_refused(
    tmp_path: Path, start: float, end: float
) -> None:
    (whole,) = recordings(tmp_path / "wav", 1)
    stretch = replace(whole, id="s", start=start, end=end)
    with pytest.raises(AsrError, match=rf"expected s within .*, got {start} to {end} s of 0\.1 s"):
        with_durations([whole, stretch])
    whole.audio.write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"0\.wav"):
        with_durations([stretch])


def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utterances = recordings(tmp_path / "wav", 5)
    expected = with_durations(utterances)
    monkeypatch.setattr(corpus, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(corpus, "CHUNK", 2)
    told: list[tuple[int, int]] = []
    assert with_durations(utterances, lambda *counts: told.append(counts)) == expected
    assert told == [(2, 5), (4, 5), (5, 5)]
    (tmp_path / "wav" / "3.wav").write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"3\.wav"):
        with_durations(utterances)


def test_no_manifest_is_written_where_a_split_is_empty(tmp_path: Path) -> None:
    utterances = with_durations(recordings(tmp_path / "wav", 2))
    with pytest.raises(AsrError, match="expected utterances in test, got none"):
        write_splits(tmp_path / "data", {"train": utterances, "test": []})
    assert not (tmp_path / "data").exists()
    paths = write_splits(tmp_path / "data", {"train": utterances[:1], "test": utterances[1:]})
    assert [u.id for u in read_manifest(paths["test"])] == ["1"]


def test_speakers_stay_in_the_last_split_that_has_them() -> None:
    def utterances(speakers: str) -> list[Utterance]:
        return [Utterance(s, Path("a.wav"), "yes", 1.0, s.strip("-")) for s in speakers]

    said: list[str] = []
    splits = {"train": "abcd-", "dev": "bce-", "test": "cx-", "test-2": "cx"}
    kept = speakers_apart({name: utterances(s) for name, s in splits.items()}, said.append)
    assert {name: "".join(u.id for u in rows) for name, rows in kept.items()} == {
        "train": "ad-",
        "dev": "be-",
        "test": "cx-",
        "test-2": "cx",
    }
    assert said == [
        "left out of train: 2 utterances of speakers of dev or test or test-2",
        "left out of dev: 1 utterances of speakers of test or test-2",
    ]


def test_what_a_copy_lacks_is_told() -> None:
    said: list[str] = []
    tell_incomplete(said.append, "train", 5, 5, "talks")
    tell_incomplete(said.append, "dev", 3, 5, "talks")
    assert said == ["not the whole published set: dev, 3 of 5 talks"]


def test_the_first_place_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    assert locate(tmp_path, "a", "b/c", "b") == tmp_path / "b" / "c"
    with pytest.raises(AsrError, match=r"expected x or y in .*: check --source"):
        locate(tmp_path, "x", "y")


def test_a_script_prepares_into_its_own_folder_and_names_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "recipes" / "mine" / "run.py"
    asked: list[Path] = []

    def prepare(folder: Path, source: Path | None, progress: object) -> dict[str, Path]:
        asked.extend([folder, source or Path()])
        raise AsrError("expected a corpus, got none: check --source")

    write_recipe(script)
    monkeypatch.setattr("sys.argv", ["run.py", "--source", "here", "train.epochs=1"])
    with pytest.raises(SystemExit) as stop:
        main(str(script), "Train.", prepare)
    assert stop.value.code == 1
    assert asked == [tmp_path / "exp" / "mine" / "data", Path("here")]
    assert "expected a corpus, got none" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["run.py", "--help"])
    with pytest.raises(SystemExit):
        main(str(script), "Train on mine.", prepare)
    assert "Train on mine." in capsys.readouterr().out


@pytest.mark.slow
def test_a_script_may_take_another_recipe_and_add_a_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifests = write_corpus(tmp_path / "corpus", {"train": 6, "dev": 2, "test": 2})
    folder, out = tmp_path / "recipes" / "mine", tmp_path / "exp" / "mine"
    folder.mkdir(parents=True)
    recipe = tone_recipe(manifests, out, epochs=1)
    (folder / "small.yaml").write_text(recipe.model_dump_json())
    for name, values in (("WEIGHTS", (0.3,)), ("BONUSES", (0.0,)), ("SIZES", (8,))):
        monkeypatch.setattr(tune_decoder, name, values)
    texts: dict[str, Text] = {"hymns": lambda into: written(into / "hymns.txt", "high up up high")}
    more = written(tmp_path / "more.txt", "down down low up")

    def ran(*given: str) -> str:
        monkeypatch.setattr("sys.argv", ["run.py", "--recipe", "small", *given])
        main(str(folder / "run.py"), "Train.", lambda *_: manifests, texts=texts)
        return capsys.readouterr().err

    assert "errors" in ran("--text", "hymns", "--text", str(more))
    words = (out / "lm" / "vocabulary.txt").read_text().split()
    assert {"high", "up", "down", "low"} <= set(words)
    tests = [read_json(out / name / "report.json")["run"] for name in ("test", "test-lm")]
    assert [run["decoder"].startswith("greedy") for run in tests] == [True, False]
    table = (out / "results.md").read_text()
    assert "| test |" in table
    assert "| test-lm |" in table
    # The same again trains and tunes nothing; another text is tuned for anew.
    before = (out / "model" / "decoder.json").stat().st_mtime_ns
    said = ran("--text", "hymns", "--text", str(more))
    assert "already trained" in said
    assert (out / "model" / "decoder.json").stat().st_mtime_ns == before
    recipes.add_language_model(
        out / "model", out, Transcripts(manifests["train"], manifests["dev"])
    )
    assert (out / "model" / "decoder.json").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--text", "hymns", "--text", "absent.txt"], "hymns for --text, got absent.txt: check"),
        (["train.epohcs=3"], "train.epohcs"),
        (["--recipe", "absent"], "absent.yaml"),
    ],
)
def test_a_script_checks_what_was_given_before_it_prepares(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    expected: str,
) -> None:
    script = tmp_path / "recipes" / "mine" / "run.py"
    write_recipe(script)
    texts: dict[str, Text] = {"hymns": lambda into: into / "hymns.txt"}

    def prepare(*_: object) -> dict[str, Path]:
        pytest.fail("prepared")

    monkeypatch.setattr("sys.argv", ["run.py", *given])
    with pytest.raises(SystemExit):
        main(str(script), "Train.", prepare, texts=texts)
    assert expected in capsys.readouterr().err


def write_recipe(script: Path) -> None:
    data = "{train: train.jsonl, dev: dev.jsonl}"
    written(script.with_name("recipe.yaml"), f"data: {data}\nout: out\n")


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def test_a_script_with_a_language_has_a_folder_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "recipes" / "mine" / "run.py"
    write_recipe(script)
    ran: list[Any] = []

    def prepare(
        folder: Path, source: Path | None, progress: object, language: str, part: str
    ) -> dict[str, Path]:
        ran.append((folder, language, part))
        return {name: folder / f"{name}.jsonl" for name in ("train", "dev", "test")}

    monkeypatch.setattr(recipes, "run_recipe", lambda *arguments: ran.append(arguments))
    options = {"language": "de", "part": ""}
    for given, name in (
        ([], "mine-de"),
        (["--language", "pt_br", "--part", "9hr"], "mine-pt_br-9hr"),
    ):
        monkeypatch.setattr("sys.argv", ["run.py", *given, "out=elsewhere"])
        main(str(script), "Train.", prepare, options)
        out = tmp_path / "exp" / name
        (folder, language, part), (recipe, overrides, tests, transcripts) = ran[-2:]
        assert transcripts is None
        assert folder == out / "data"
        assert name == "-".join(filter(None, ["mine", language, part]))
        assert overrides == [
            f"data.train={out}/data/train.jsonl",
            f"data.dev={out}/data/dev.jsonl",
            f"out={out}",
            "out=elsewhere",
        ]
        assert tests == {"test": out / "data" / "test.jsonl"}
        assert recipe == script.parent / "recipe.yaml"
    between = [
        "train.seed=2",
        "--language",
        "fr",
        "out=elsewhere",
        "--part",
        "9hr",
        "model.hidden=8",
    ]
    monkeypatch.setattr("sys.argv", ["run.py", *between])
    main(str(script), "Train.", prepare, options)
    assert ran[-2][1:] == ("fr", "9hr")
    assert ran[-1][1][3:] == ["train.seed=2", "out=elsewhere", "model.hidden=8"]
    monkeypatch.setattr("sys.argv", ["run.py", "--language", "../de"])
    with pytest.raises(SystemExit):
        main(str(script), "Train.", prepare, options)
    assert (
        "expected letters, digits, - and _ for --language, got '../de'" in capsys.readouterr().err
    )
    monkeypatch.setattr("sys.argv", ["run.py", "--help"])
    with pytest.raises(SystemExit):
        main(str(script), "Train.", prepare, options)
    assert "which language of the corpus (default: de)" in capsys.readouterr().out
