"""The parts that `asr new` makes: train, dev and test, each with its speakers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance
from asr.dataset.splits import VOICE
from asr.project.defaults import examine, propose
from asr.project.new import split_utterances
from asr.text.normalise import TextConfig
from tests.commands import Command
from tests.project.test_new import PARTS, spoken
from tests.tones import write_recordings


def test_splits_keep_speakers_apart_and_take_a_tenth() -> None:
    everybody = spoken([f"s{n % 40}" for n in range(400)])
    split = split_utterances(everybody)
    assert split.disjoint
    who = [{u.speaker for u in split.parts[name]} for name in PARTS]
    assert sum(map(len, who)) == len(set.union(*who)) == 40
    assert [len(split.parts[name]) for name in PARTS] == [320, 40, 40]
    again = split_utterances(everybody[::-1])
    assert {n: {u.id for u in again.parts[n]} for n in PARTS} == {
        n: {u.id for u in split.parts[n]} for n in PARTS
    }


@pytest.mark.parametrize(
    "speakers", [["a"] * 98 + ["b", "c"], ["a", "b", "c"] * 4, ["a"] * 50 + list("bcdefgh")]
)
def test_each_part_has_a_speaker_however_unequal_they_are(speakers: list[str]) -> None:
    split = split_utterances(spoken(speakers))
    assert split.disjoint
    assert all(split.parts[name] for name in PARTS)


@pytest.mark.parametrize("speakers", [[""] * 60, ["a", "b"] * 30, ["a", "b", "c", ""] * 15])
def test_without_three_known_speakers_utterances_are_split(speakers: list[str]) -> None:
    split = split_utterances(spoken(speakers))
    assert not split.disjoint
    assert [len(split.parts[name]) for name in PARTS] == [48, 6, 6]
    everybody = [u for name in PARTS for u in split.parts[name]]
    assert {u.speaker for u in everybody} == {""}
    assert {u.extra.get(VOICE, "") for u in everybody} == set(speakers)


def test_a_column_named_voice_is_no_speaker() -> None:
    loud = [replace(u, extra={"voice": "loud"}) for u in spoken(["a", "b"] * 30)]
    split = split_utterances(loud)
    kept = [u for name in PARTS for u in split.parts[name]]
    assert {u.extra["voice"] for u in kept} == {"loud"}
    texts = examine(["open the door please"], TextConfig())
    assert propose(split.parts["train"], texts).speeds == propose(loud, texts).speeds
    assert 0.9 in propose(loud, texts).speeds


def test_a_minute_each_where_there_is_that_much() -> None:
    for total, held_out in ((360, 60), (100, 20), (6000, 600)):
        split = split_utterances(spoken([""] * total, seconds=1.0))
        assert len(split.parts["dev"]) == len(split.parts["test"]) == held_out


def test_one_voice_is_told(run: Command, tmp_path: Path) -> None:
    write_recordings(tmp_path, {"ann": 30})
    ended = run("new", tmp_path / "p", tmp_path / "ann")
    assert "these voices only" in ended.out
    assert "speakers: unknown" in ended.out


@pytest.mark.parametrize("shared", [False, True])
def test_a_folder_named_test_is_the_test_set(tmp_path: Path, shared: bool) -> None:
    everybody = [
        Utterance(f"{n}", Path(f"{'test' if n < 10 else 'rest'}/{n}.wav"), "low", 9.0, f"s{n % 10}")
        for n in range(60)
    ]
    if not shared:
        everybody = [replace(u, speaker="t") if int(u.id) < 10 else u for u in everybody]
    split = split_utterances(everybody, Path("dev.jsonl"))
    assert [u.id for u in split.parts["test"]] == [f"{n}" for n in range(10)]
    assert split.disjoint != shared
    assert split.marked == "test"
    assert split.parts["dev"]
    assert split.parts["train"]
    assert split_utterances(everybody[:15], Path("dev.jsonl")).all_marked


def test_a_folder_named_test_leaves_something_to_learn_from(tmp_path: Path) -> None:
    tests = [Utterance(f"{n}", Path(f"test/{n}.wav"), "low", 1.0) for n in range(10)]
    long = Utterance("long", Path("rest/long.wav"), "low", 40.0)
    split = split_utterances([*tests, long])
    assert split.all_marked
    assert all(split.parts[name] for name in PARTS)


# --- proposals ---


def added(speakers: int) -> list[Utterance]:
    """Ten recordings each of so many speakers, in files of their own."""
    return [
        Utterance(f"{s}-{n}", Path(f"rec/s{s}/{n}.wav"), "low", 9.0 + s % 7, f"s{s}")
        for s in range(speakers)
        for n in range(10)
    ]


@pytest.mark.parametrize("before", [2, 4, 10, 11, 15])
@pytest.mark.parametrize("more", [0, 1, 3, 20])
def test_added_recordings_move_no_old_ones(before: int, more: int) -> None:
    earlier = split_utterances(added(before)).parts
    split = split_utterances(added(before + more), earlier=earlier)
    home = {u.audio: part for part in PARTS for u in split.parts[part]}
    stayed = [home[u.audio] == part for part in PARTS for u in earlier[part]]
    assert all(home[u.audio] == "train" for u in earlier["train"])
    assert not split.heard
    if before > 2:  # two speakers are divided at first; by whole speakers, all of theirs train
        assert all(stayed)
        assert split.kept == 10 * before
    seconds = [sum(u.duration for u in split.parts[part]) for part in ("dev", "test")]
    if before > 9 and more == 20:
        total = sum(u.duration for u in added(before + more))
        assert all(0.06 * total < one < 0.16 * total for one in seconds)
    assert all(seconds)


def test_a_speaker_of_the_training_set_stays_there_with_new_recordings() -> None:
    earlier = split_utterances(added(10)).parts
    speaker = earlier["train"][0].speaker
    new = [Utterance(f"new-{n}", Path(f"new/{n}.wav"), "low", 99.0, speaker) for n in range(9)]
    split = split_utterances([*added(10), *new], earlier=earlier)
    assert {u.id for u in new} <= {u.id for u in split.parts["train"]}


def test_recordings_of_the_training_set_alone_are_divided_and_told() -> None:
    earlier = split_utterances(added(10)).parts
    split = split_utterances(earlier["train"], earlier=earlier)
    assert all(split.parts[part] for part in PARTS)
    assert split.heard
    assert not split.kept


def test_a_test_folder_of_heard_recordings_is_told() -> None:
    old = [replace(u, audio=Path("test") / u.audio.name) for u in added(1)]
    split = split_utterances([*old, *added(9)[10:]], earlier={"train": old})
    assert split.marked
    assert split.heard
