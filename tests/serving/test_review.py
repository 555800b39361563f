"""Checked texts: what is on the disk after each, after a kill, and when two persons meet."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio.load import write_wav
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, ManifestError
from asr.inference.time_formats import Word
from asr.serving.review import (
    ChangedError,
    Item,
    Review,
    Suggestion,
    TextError,
    open_review,
    written_path,
)

RATE = 8000


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    utterances = [
        Utterance(f"a{i}", tmp_path / "wav" / f"{i}.wav", f"text {i}", 1.0, "ann", extra={"k": i})
        for i in range(4)
    ]
    write_manifest(tmp_path / "train.jsonl", utterances)
    return tmp_path / "train.jsonl"


def said(*confidences: float) -> Suggestion:
    words = tuple(Word(f"w{i}", i, i + 1, sure) for i, sure in enumerate(confidences))
    return Suggestion(" ".join(word.text for word in words), words)


def found(review: Review, id: str) -> Item:
    item = review.item(id)
    assert item is not None
    return item


def reviewed(manifest: Path) -> Path:
    return written_path(manifest, "reviewed")


def silent(_: str) -> None:
    pass


def test_a_checked_text_is_in_a_manifest_to_train_from(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        assert found(review, "a2").text == "text 2"
        item = review.check("a2", "  turn \n it\toff ", found(review, "a2").version)
        assert item.text == "turn it off"
        # Another process sees it at once.
        (written,) = read_manifest(reviewed(manifest))
    (original,) = [u for u in read_manifest(manifest) if u.id == "a2"]
    assert written.text == "turn it off"
    assert (written.audio, written.speaker, written.extra) == (
        original.audio,
        "ann",
        {"k": 2},
    )
    with open_review(manifest, silent) as review:
        assert found(review, "a2").checked == "turn it off"
        assert review.counts() == {
            "total": 4,
            "recognised": 0,
            "checked": 1,
            "left_out": 0,
            "waiting": 3,
        }


def test_the_lines_of_the_documentation_correct_a_manifest(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(from dataclasses.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (manifest.parent / "data").mkdir()
    monkeypatch.chdir(manifest.parent)
    write_manifest("data/calls.jsonl", read_manifest(manifest))
    with open_review(Path("data/calls.jsonl"), silent) as review:
        review.check("a1", "one", "unchecked")
    exec(compile(code, "docs/serving.md", "exec"), {})
    texts = [u.text for u in read_manifest("data/corrected.jsonl")]
    assert texts == ["text 0", "one", "text 2", "text 3"]


def test_the_least_certain_is_first_and_the_checked_are_last(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        review.suggest("a0", said(0.9, 0.8))
        review.suggest("a1", said(0.99, 0.3))
        review.suggest("a3", said())
        assert [item.utterance.id for item in review.items()] == ["a3", "a1", "a0", "a2"]
        review.check("a1", "right", "unchecked")
        review.suggest("a2", Suggestion(error="no audio"))
        assert [item.utterance.id for item in review.items()] == ["a3", "a0", "a2", "a1"]


def test_what_clean_ranked_keeps_its_order(manifest: Path) -> None:
    rows = read_manifest(manifest)
    extras: list[dict[str, Any]] = [{"misfit": None, "problem": "too long"}, {"misfit": 9.1}]
    extras += [{"misfit": 2.0}, {"misfit": 0.1}]
    write_manifest(manifest, [replace(u, extra=e) for u, e in zip(rows, extras, strict=True)])
    with open_review(manifest, silent) as review:
        review.suggest("a1", said(0.99))
        review.suggest("a3", said(0.2))
        assert [item.utterance.id for item in review.items()] == ["a0", "a1", "a2", "a3"]
        review.suggest("a0", Suggestion(error="no audio"))
        assert [item.utterance.id for item in review.items()] == ["a1", "a2", "a3", "a0"]
    # A misfit that a reviewed text has kept says nothing of the others.
    write_manifest(manifest, [replace(rows[0], extra=extras[3]), *rows[1:]])
    with open_review(manifest, silent) as review:
        review.suggest("a0", said(0.99))
        review.suggest("a1", said(0.1))
        assert next(iter(review.items())).utterance.id == "a1"


def test_a_text_that_is_checked_while_the_list_is_made(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_review(manifest, silent) as review:
        review.check("a1", "text 1", "unchecked")
        item = review.item

        def another_checks(id: str) -> Item | None:
            monkeypatch.setattr(review, "item", item)
            review.check("a2", "text 2", "unchecked")
            return item(id)

        monkeypatch.setattr(review, "item", another_checks)
        assert [row.utterance.id for row in review.items()][-2:] == ["a1", "a2"]


def test_two_persons_do_not_overwrite_each_other(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        seen = found(review, "a0").version
        first = review.check("a0", "mine", seen)
        with pytest.raises(ChangedError) as caught:
            review.check("a0", "yours", seen)
        assert caught.value.item.text == "mine"
        assert review.check("a0", "mine", seen).text == "mine"  # asked again, the answer was lost
        assert review.check("a0", "yours", first.version).text == "yours"
        with pytest.raises(KeyError):
            review.check("../a0", "text", "unchecked")


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    utterances = [Utterance(f"u{i}", tmp_path / "a.wav", "", 1.0) for i in range(40)]
    review = Review(utterances, tmp_path / "out.jsonl", tmp_path / "left.jsonl")

    def work(first: int) -> None:
        for i in range(first, 40, 4):
            review.check(f"u{i}", f"text {i}", "unchecked")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = {u.id: u.text for u in read_manifest(tmp_path / "out.jsonl")}
    assert texts == {f"u{i}": f"text {i}" for i in range(40)}


def test_another_program_may_change_the_file(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        review.check("a0", "zero", "unchecked")
        path = reviewed(manifest)
        path.write_text(path.read_text().replace("zero", "nought"))
        with pytest.raises(ChangedError):
            review.check("a0", "cero", found(review, "a0").version)
        review.check("a1", "one", "unchecked")
        assert [u.text for u in read_manifest(path)] == ["nought", "one"]
        path.unlink()
        review.check("a2", "two", "unchecked")
        assert [u.text for u in read_manifest(path)] == ["nought", "one", "two"]
        path.write_text("garbage\n")
        with pytest.raises(ManifestError, match="expected one JSON object"):
            review.check("a3", "three", "unchecked")
        assert path.read_text() == "garbage\n"


def test_what_the_manifest_no_longer_has_stays_in_the_file(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        review.check("a0", "zero", "unchecked")
    write_manifest(manifest, list(read_manifest(manifest))[1:])
    with open_review(manifest, silent) as review:
        assert review.counts()["checked"] == 0
        review.check("a1", "one", "unchecked")
    assert [u.id for u in read_manifest(reviewed(manifest))] == ["a0", "a1"]


@pytest.mark.parametrize("text", ["x" * 20_001, "half \ud800", "a\x00b", "\x1b[2J"])
def test_a_text_that_no_manifest_can_hold(manifest: Path, text: str) -> None:
    with open_review(manifest, silent) as review:
        with pytest.raises(AsrError, match="expected a text of at most 20,000 whole characters"):
            review.check("a0", text, "unchecked")
        assert not reviewed(manifest).exists()


def test_recordings_are_left_out_and_taken_back(manifest: Path) -> None:
    left_out = written_path(manifest, "left_out")
    with open_review(manifest, silent) as review:
        review.check("a0", "zero", "unchecked")
        review.check("a1", "one", "unchecked")
        with pytest.raises(ChangedError):
            review.leave_out("a0", "unchecked")
        review.leave_out("a0", found(review, "a0").version)
        review.leave_out("a2", "unchecked")
        assert review.leave_out("a2", "unchecked").left_out  # once more, the answer was lost
        assert [u.id for u in read_manifest(reviewed(manifest))] == ["a1"]
        assert [u.text for u in read_manifest(left_out)] == ["text 0", "text 2"]
        assert [item.utterance.id for item in review.items()] == ["a3", "a1", "a0", "a2"]
    with open_review(manifest, silent) as review:
        assert review.counts() == {
            "total": 4,
            "recognised": 0,
            "checked": 1,
            "left_out": 2,
            "waiting": 1,
        }
        with pytest.raises(ChangedError):
            review.check("a0", "zero", "unchecked")
        review.check("a0", "nought", "left out")
        review.check("a2", "two", "left out")
        assert not left_out.exists()
        assert [u.text for u in read_manifest(reviewed(manifest))] == ["one", "nought", "two"]


def test_a_kill_between_both_files_loses_no_text(manifest: Path) -> None:
    with open_review(manifest, silent) as review:
        review.check("a0", "zero", "unchecked")
        content = reviewed(manifest).read_bytes()
        review.leave_out("a0", found(review, "a0").version)
        reviewed(manifest).write_bytes(content)  # as if it had not been changed yet
    with open_review(manifest, silent) as review:
        assert found(review, "a0").checked == "zero"
        assert review.counts()["left_out"] == 0


def test_a_full_disk_changes_nothing(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_review(manifest, silent) as review:
        review.check("a0", "zero", "unchecked")

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("asr.io.files._sync", full)
            with pytest.raises(OSError, match="No space"):
                review.check("a1", "one", "unchecked")
        assert found(review, "a1").checked is None
        assert review.check("a1", "one", "unchecked").checked == "one"
    assert len(read_manifest(reviewed(manifest))) == 2
    assert not list(manifest.parent.glob(".*.tmp"))


def test_a_folder_of_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    for name in ("b.wav", "b.flac.wav", "deep/b.wav", "\udcff.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, np.zeros(RATE // 2, np.float32), RATE)
    (folder / "b.wav").rename(folder / "b.wave")
    write_wav(folder / "b.wav", np.zeros(RATE // 4, np.float32), RATE)
    notes: list[str] = []
    with open_review(folder, notes.append) as review:
        assert sorted(review.ids) == ["b", "b.flac", "b.wave", "deep/b"]
        assert len(notes) == 1
        assert "expected a file name in UTF-8" in notes[0]
        review.check("deep/b", "hello", "unchecked")
        (folder / "b.wave").write_bytes(b"no audio")
        with pytest.raises(TextError, match="can be read, got another: leave it out"):
            review.check("b.wave", "hello", "unchecked")
        assert review.leave_out("b.wave", "unchecked").left_out
        assert [u.id for u in read_manifest(folder / "left_out.jsonl")] == ["b.wave"]
    (written,) = read_manifest(folder / "reviewed.jsonl")
    assert (written.audio, written.duration) == (folder / "deep" / "b.wav", 0.5)
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(AsrError, match="expected recordings to review, got none"),
        open_review(tmp_path / "empty", notes.append),
    ):
        pass


def test_only_one_process_reviews_a_manifest(manifest: Path) -> None:
    with (
        open_review(manifest, silent),
        pytest.raises(AsrError, match="expected no other review of these recordings"),
        open_review(manifest, silent),
    ):
        pass


KILLED = """
import sys
from pathlib import Path
from asr.serving.review import open_review

with open_review(Path(sys.argv[1]), print) as review:
    for round in range(10_000):
        for id in review.ids:
            item = review.check(id, f"{id} round {round}", review.item(id).version)
            print(item.text, flush=True)
"""


def test_nothing_is_lost_by_a_kill(manifest: Path) -> None:
    told: dict[str, int] = {}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(manifest)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(15):
            id, _, number = process.stdout.readline().split()
            told[id] = int(number)
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:  # what it had told before the signal
            id, _, number = line.split()
            told[id] = int(number)
        process.wait()
        process.stdout.close()
        kept = {u.id: int(u.text.split()[-1]) for u in read_manifest(reviewed(manifest))}
        assert kept.keys() == told.keys()
        # A text that was written may not have been told.
        assert all(told[id] <= kept[id] <= told[id] + 1 for id in told)
    with open_review(manifest, silent):
        pass
    assert not list(manifest.parent.glob(".*"))
