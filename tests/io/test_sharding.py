"""Every item belongs to one shard, the same everywhere; each system's variables are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.io.sharding import MOST_SHARDS, Shard, read_shard, shard_number


def slurm(task: int, first: int, count: int, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def torchrun(rank: int, size: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size)}


@settings(max_examples=30)
@given(st.lists(st.text(max_size=9), unique=True, max_size=9), st.integers(1, 9))
def test_every_item_is_in_one_shard(ids: list[str], count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for id_ in ids:
        assert [shard for shard in shards if shard.holds(id_)] == [
            Shard(shard_number(id_, count), count)
        ]


def test_the_hash_never_changes() -> None:
    # The first eight bytes of `printf NAME | sha256sum`.
    for name, hashed in {
        "": 0xE3B0C44298FC1C14,
        "a1": 0xF55FF16F66F43360,
        "talks/a.wav": 0x22A78E5BA77EDC9A,
        "caf\xe9": 0x850F7DC43910FF89,
    }.items():
        assert shard_number(name, 99_991) == hashed % 99_991 + 1
    assert 1 <= shard_number("caf\udce9", 7) <= 7  # a byte that is not UTF-8


def test_shards_are_of_similar_size() -> None:
    sizes = [0] * 16
    for place in range(16_000):
        sizes[shard_number(f"utterance-{place:05}", 16) - 1] += 1
    assert min(sizes) > 850
    assert max(sizes) < 1150


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("3/16", {}, Shard(3, 16)),
        ("1/1", torchrun(3, 4), Shard(1, 1)),
        ("auto", torchrun(0, 4), Shard(1, 4)),
        ("auto/4", torchrun(3, 4), Shard(4, 4)),
        ("auto", slurm(1, 1, 16), Shard(1, 16)),
        ("auto", slurm(15, 0, 16), Shard(16, 16)),
        ("auto", slurm(10, 2, 4, 4), Shard(3, 4)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, Shard(8, 8)),
        # torchrun in a job of one task, and a rank without a size, which is of something else.
        ("auto", {**slurm(2, 1, 2), "RANK": "0"}, Shard(2, 2)),
    ],
)
def test_which_shard(text: str, environ: dict[str, str], shard: Shard) -> None:
    assert read_shard(text, environ) == shard


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("0/4", {}, "count from 1"),
        ("5/4", {}, "1 <= i <= N"),
        (f"1/{MOST_SHARDS + 1}", {}, f"N <= {MOST_SHARDS}"),
        ("3", {}, "got '3'"),
        ("1/2/3", {}, "got '1/2/3'"),
        ("-1/2", {}, "got '-1/2'"),
        ("٣/٤", {}, "expected --shard i/N"),
        ("", {}, "got ''"),
        ("auto", {}, "got none of them"),
        ("auto/0", {"JOB_COMPLETION_INDEX": "0"}, "1 <= i <= N"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "auto/N"),
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}, "1 <= i <= N"),
        ("auto", {**torchrun(0, 2), **slurm(1, 1, 2)}, "got torchrun"),
        ("auto/4", torchrun(0, 2), "got 2 from torchrun"),
        # Two of 16 tasks, sent again.
        ("auto", slurm(7, 3, 2), "--array=1-2"),
        ("auto", slurm(4, 1, 4, 2), "steps of 2"),
        ("auto", slurm(1, 1, 1, 0), "steps of 0"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK, got 'x'"),
    ],
)
def test_what_is_no_shard(text: str, environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_shard(text, environ)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
