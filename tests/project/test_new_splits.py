"""The parts that `asr new` makes: train, dev and test, each with its speakers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance
from asr.dataset.splits import VOICE, Parts, Split
from asr.project.defaults import examine, propose
from asr.project.earlier import Earlier
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


def added(speakers: int, seconds: float = 9.0, first: int = 0) -> list[Utterance]:
    """Ten recordings each of so many speakers, in files of their own."""
    return [
        Utterance(f"{s}-{n}", Path(f"rec/s{s}/{n}.wav"), "low", seconds + s % 7, f"s{s}")
        for s in range(first, first + speakers)
        for n in range(10)
    ]


def split_after(earlier: Parts, utterances: list[Utterance]) -> Split:
    train, dev, test = (list(earlier.get(part, ())) for part in PARTS)
    sets = Earlier(train, dev, test)
    return split_utterances(utterances, earlier=sets.known(utterances))


def seconds_of(split: Split) -> list[float]:
    return [sum(u.duration for u in split.parts[part]) for part in PARTS]


@pytest.mark.parametrize("before", [2, 4, 10, 11, 15])
@pytest.mark.parametrize("more", [0, 1, 3, 20])
def test_added_recordings_move_no_old_ones(before: int, more: int) -> None:
    earlier = split_utterances(added(before)).parts
    split = split_after(earlier, added(before + more))
    home = {u.audio: part for part in PARTS for u in split.parts[part]}
    stayed = [home[u.audio] == part for part in PARTS for u in earlier[part]]
    assert all(home[u.audio] == "train" for u in earlier["train"])
    assert not split.seen
    assert split.kept == sum(stayed)
    assert all(stayed) or before == 2  # two speakers are divided at first, and not any more
    train, *measured = seconds_of(split)
    if before > 9 and more == 20:
        total = train + sum(measured)
        assert all(0.06 * total < one < 0.16 * total for one in measured)
    assert all(measured)


@pytest.mark.parametrize(("new", "seconds"), [(1, 90.0), (2, 27.0), (1, 900.0)])
def test_new_speech_is_trained_on(new: int, seconds: float) -> None:
    earlier = split_utterances(added(10)).parts
    split = split_after(earlier, [*added(10), *added(new, seconds, first=70)])
    train, *measured = seconds_of(split)
    assert train > 0.7 * (train + sum(measured))
    assert not split.seen


@pytest.mark.parametrize("source", [[], added(10)])
def test_a_speaker_of_the_training_set_stays_there(source: list[Utterance]) -> None:
    earlier = split_utterances(added(10)).parts
    speaker = earlier["train"][0].speaker
    new = [Utterance(f"new-{n}", Path(f"new/{n}.wav"), "low", 99.0, speaker) for n in range(9)]
    others = [replace(u, id=f"o{u.id}", audio=Path("o") / u.audio) for u in added(9, first=20)]
    split = split_after(earlier, [*source, *others, *new])
    assert {u.id for u in new} <= {u.id for u in split.parts["train"]}


def test_segments_and_packed_recordings_are_known() -> None:
    rows = [
        Utterance(f"{s}-{n}", Path("long.wav"), "low", 9.0, f"s{s}", 10.0 * n, 10.0 * n + 9)
        for s, n in ((n % 10, n) for n in range(40))
    ]
    packed = [replace(u, audio=Path("a.tar"), packed=(n, 9)) for n, u in enumerate(rows)]
    for some in (rows, packed):
        earlier = split_utterances(some).parts
        renamed = [replace(u, id=f"again {u.id}", speaker=f"x{u.speaker}") for u in some]
        split = split_after(earlier, renamed)
        for part in PARTS:
            assert {u.id for u in split.parts[part]} == {f"again {u.id}" for u in earlier[part]}


def test_recordings_of_the_training_set_alone_are_divided_and_told() -> None:
    earlier = split_utterances(added(10)).parts
    rest = [Utterance(f"short {n}", Path(f"short/{n}.wav"), "", 0.25, f"t{n}") for n in range(2)]
    for some in (list(earlier["train"]), [*earlier["train"], *rest]):
        split = split_after(earlier, some)
        assert all(seconds > 60 for seconds in seconds_of(split))
        assert split.seen


def test_a_test_folder_of_trained_recordings_is_told() -> None:
    old = [replace(u, audio=Path("test") / u.audio.name) for u in added(1)]
    split = split_after({"train": old}, [*old, *added(9, first=1)])
    assert split.marked
    assert split.seen
