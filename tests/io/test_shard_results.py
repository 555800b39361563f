"""Results of shards: nothing is lost by a kill, nothing is twice, and no gap is merged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io.shard_results import DONE, RESULTS, Row, Work, open_journal, open_merged, option_texts
from asr.io.sharding import Shard

IDS = [f"u{number}" for number in range(12)] + ["caf\udce9", "a b/\n"]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "out.shards", "align", "1.0", {"seconds": "4.0"}, IDS)


def do(work: Work, *shards: str, error: str | None = None) -> list[str]:
    """Do shards; the items that had no result before."""
    left = []
    for text in shards:
        shard = Shard(*map(int, text.split("/")))
        with open_journal(work, shard) as journal:
            for id_ in filter(shard.holds, work.wanted):
                if not journal.has(id_, len(id_)):
                    left.append(id_)
                    journal.add(id_, len(id_), Row({"said": id_}, error))
            journal.finish()
    return left


def merge(work: Work) -> list[str]:
    with open_merged(work) as merged:
        merged.check({id_: len(id_) for id_ in work.wanted})
        return [merged.row(id_).value["said"] for id_ in work.wanted]


def refused(work: Work) -> str:
    with pytest.raises(AsrError) as error:
        merge(work)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_merge_has_the_order_of_the_items(work: Work) -> None:
    assert do(work, "3/3", "1/3", "2/3") != IDS
    assert merge(work) == IDS


def test_more_shards_than_items_and_than_open_files(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.io.shard_results.MOST_OPEN", 3)
    do(work, *(f"{number}/40" for number in range(1, 41)))
    assert merge(work) == IDS
    assert merge(work) == IDS


def test_a_killed_shard_goes_on(work: Work) -> None:
    path = work.place(Shard(1, 2)) / RESULTS
    do(work, "1/2", "2/2")
    whole = path.read_bytes()
    ids = [json.loads(line)[0] for line in whole.splitlines()[1:]]
    for length in range(0, len(whole), 7):  # the process ended while it wrote there
        (path.parent / DONE).unlink(missing_ok=True)
        path.write_bytes(whole[:length] + b"\0" * (length % 2 * 9999))  # as of a power failure
        assert "shard 1/2:" in refused(work)
        complete = max(0, whole[:length].count(b"\n") - 1)
        assert do(work, "1/2") == ids[complete:]
        assert path.read_bytes() == whole
        assert merge(work) == IDS


def test_failed_and_changed_items_are_done_again(work: Work) -> None:
    do(work, "1/1", error="damaged")
    with open_merged(work) as merged:
        assert merged.row("u3").error == "damaged"
    assert do(work, "1/1") == IDS
    assert do(work, "1/1") == []
    with open_journal(work, Shard(1, 1)) as journal:
        assert not journal.has("u3", 7)
        journal.add("u3", 7, Row({"said": "other"}, None))
    assert "no result of shard 1/1" in refused(work)  # while it is not finished
    with open_journal(work, Shard(1, 1)) as journal:
        journal.finish()
    assert "'u3' as shard 1/1 found it" in refused(work)


def test_gaps_are_named(work: Work) -> None:
    assert "got none: run the command with --shard" in refused(work)
    do(work, "2/4")
    assert "shard 1/4, 3/4, 4/4: run them" in refused(work)
    do(work, "1/4", "3/4", "4/4")
    merge(work)
    (work.place(Shard(3, 4)) / DONE).unlink()
    assert "no result of shard 3/4: run" in refused(work)
    many = replace(work, folder=work.folder.with_name("many"))
    do(many, "1/99")
    assert "11/99 and 88 more" in refused(many)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"seconds": "5.0"}}, "seconds 4.0, not 5.0"),
        ({"options": {"seconds": "4.0", "lm": "x"}}, "lm None, not x"),
        ({"options": {}}, "seconds 4.0, not None"),
        ({"version": "1.1"}, "version 1.0, not 1.1"),
        ({"command": "cut"}, "command align, not cut"),
        ({"ids": IDS[:-1]}, "inputs 14 other items than these 13"),
        ({"ids": IDS[::-1]}, "inputs 14 other items than these 14"),
    ],
)
def test_shards_of_another_command(work: Work, change: dict[str, object], words: str) -> None:
    do(work, "1/2", "2/2")
    other = replace(work, **change)  # type: ignore[arg-type]
    assert words in refused(other)
    with pytest.raises(AsrError, match=words):
        do(other, "2/2")
    assert merge(work) == IDS  # nothing was lost by the attempt


def test_another_number_of_shards(work: Work) -> None:
    do(work, "1/2", "2/2")
    with pytest.raises(AsrError, match="expected 2 shards as in"):
        do(work, "1/3")
    assert merge(work) == IDS
    (work.folder / "00001-of-00003").mkdir()
    assert "got 2 and 3" in refused(work)


def test_damaged_copies(work: Work) -> None:
    do(work, "1/2", "2/2")
    place = work.place(Shard(2, 2))
    whole = (place / RESULTS).read_bytes()
    for damage in (whole[:-1], whole[:-9], b"", whole.replace(b"u", b"v"), whole + whole[-30:]):
        (place / RESULTS).write_bytes(damage)
        assert "results of shard 2/2 as it wrote them" in refused(work)
    (place / RESULTS).unlink()
    assert "results of shard 2/2" in refused(work)
    (place / RESULTS).write_bytes(whole)
    for record in (b"", b"[]", b"{}", b"\xff"):
        (place / DONE).write_bytes(record)
        assert "shard 2/2 of another" in refused(work)


def test_two_processes_with_one_shard(work: Work) -> None:
    with open_journal(work, Shard(1, 2)), pytest.raises(AsrError, match="with this shard"):
        do(work, "1/2")


def test_kept_items_are_done_by_no_shard(work: Work) -> None:
    some = replace(work, kept=frozenset(IDS[:3]))
    assert sorted(do(some, "1/2", "2/2")) == sorted(IDS[3:])
    assert merge(some) == IDS[3:]
    assert "a result of 'u0' in" in refused(work)


def test_paths_among_options_stand_for_their_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("1")
    made = [option_texts({"model": tmp_path / name, "lm": None}) for name in ("a", "b")]
    assert made[0] == made[1]
    (tmp_path / "b" / "weights").write_text("2")
    assert option_texts({"model": tmp_path / "b", "lm": None}) != made[0]
    assert option_texts({"model": tmp_path / "a", "lm": Path(tmp_path / "a/weights")}) != made[0]
