"""Shards come when they are wanted and go when they are used up."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.augment.config import AugmentConfig
from asr.dataset import remote
from asr.dataset.cuts import Corpus, Item, whole, windows
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.remote import RemoteShards, fetch_all, remote_shards
from asr.dataset.sampler import plan_all, plan_epoch
from asr.dataset.shards import Archive, pack
from asr.errors import AsrError
from asr.io.files import read_json
from asr.training.preview import write_examples
from asr.training.recipe import Recipe
from tests.commands import Command
from tests.tones import RATE, run_quietly, tone_recipe, write_corpus

SIZE = 100  # bytes of a shard


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A store of ten shards, each of two utterances."""
    folder = tmp_path / "origin"
    folder.mkdir()
    for number in range(10):
        (folder / f"train-{number:05}.tar").write_bytes(bytes([number]) * SIZE)
    return folder


def shards_here(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.tar")}


def make_shards(origin: object, folder: Path, room: int) -> RemoteShards:
    shards = [Archive(folder / f"train-{number:05}.tar", SIZE) for number in range(10)]
    return RemoteShards(
        str(origin), shards, [number for number in range(10) for _ in range(2)], room
    )


def corpus_of(shards: RemoteShards, room: int) -> Corpus:
    sizes = [shard.bytes for shard in shards.shards]
    return Corpus([1.0] * 20, shards=shards.of, shard_bytes=sizes, room=room)


def test_batches_come_with_their_shards_and_within_the_room(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shards = make_shards(origin, folder, 4 * SIZE)
    corpus = corpus_of(shards, 2 * SIZE)
    for epoch in range(3):
        plan = plan_epoch(corpus, AugmentConfig(), 2.5, seed=1, epoch=epoch)
        seen: list[int] = []
        for batch in shards.fetched(plan, print):
            seen += [i for item in batch for i in item.indices]
            wanted = {shards.shards[shards.of[i]].path for item in batch for i in item.indices}
            assert all(path.read_bytes()[:1] == bytes([int(path.stem[-5:])]) for path in wanted)
            assert sum(shards_here(folder).values()) <= shards.room
        assert sorted(seen) == list(range(20))


def test_a_plan_that_wants_more_than_there_is_room_for_gets_it(
    origin: Path, tmp_path: Path
) -> None:
    shards = make_shards(origin, tmp_path / "here", SIZE)
    (batch,) = shards.fetched([[whole(i) for i in range(20)]], print)
    assert len(batch) == 20
    assert len(shards_here(tmp_path / "here")) == 10


def test_what_is_here_is_not_fetched_again(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_shards(origin, tmp_path / "here", 10 * SIZE)
    plan = plan_all(corpus_of(shards, 10 * SIZE), 4.0)
    assert len(list(shards.fetched(plan, print))) == len(plan)

    def copy(address: str, shard: Archive) -> None:
        raise AssertionError(address)

    monkeypatch.setattr(remote, "_copy", copy)
    assert len(list(shards.fetched(plan, print))) == len(plan)


def test_shards_of_dev_stay(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    rows = [
        Utterance(f"u{i}", folder / f"train-{i // 2:05}.tar", "yes", 1.0, packed=(0, SIZE))
        for i in range(20)
    ]
    fetch_all(str(origin), folder, rows[5:6])
    shards = remote_shards(str(origin), folder, rows, SIZE, rows[5:6])
    for _ in shards.fetched([[whole(i)] for i in range(20)], print):
        assert "train-00002.tar" in shards_here(folder)


def test_windows_hold_whole_shards_and_every_utterance_once(tmp_path: Path) -> None:
    corpus = corpus_of(make_shards("", tmp_path, 0), 3 * SIZE)
    batches = plan_epoch(corpus, AugmentConfig(), 4.0, seed=3, epoch=2)
    order = [corpus.shards[i] for batch in batches for item in batch for i in item.indices]
    assert sorted(order) == sorted(corpus.shards)
    first, last = {s: order.index(s) for s in order}, {s: i for i, s in enumerate(order)}
    for place in range(len(order)):  # never more than three shards are begun and not ended
        assert sum(first[s] <= place < last[s] for s in first) <= 3
    again = plan_epoch(corpus, AugmentConfig(), 4.0, seed=3, epoch=2)
    assert again == batches
    everything = replace(corpus, room=10 * SIZE)
    assert plan_epoch(everything, AugmentConfig(), 4.0, 3, 2) == plan_epoch(
        Corpus(corpus.durations), AugmentConfig(), 4.0, 3, 2
    )


def test_a_shard_larger_than_the_room_is_a_window_of_its_own(tmp_path: Path) -> None:
    corpus = corpus_of(make_shards("", tmp_path, 0), SIZE // 2)
    parts = windows(corpus, np.random.default_rng(0))
    assert [len(part) for part in parts] == [2] * 10


# --- what goes wrong ---


def one(origin: object, folder: Path) -> list[list[Item]]:
    return list(make_shards(origin, folder, SIZE).fetched([[whole(0)]], print))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match=r"expected a shard at .*train-00000\.tar, got nothing"):
        one(tmp_path / "nowhere", tmp_path / "here")


def test_a_store_that_nothing_can_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match=r"at nosuch://bucket/train-00000\.tar, got .*nosuch"):
        one("nosuch://bucket/", tmp_path / "here")


def test_a_shard_cut_short_is_tried_again_and_never_kept(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    short = origin / "train-00000.tar"
    short.write_bytes(b"short")
    with pytest.raises(AsrError, match=r"got 5 of 100 bytes: check data\.origin"):
        one(origin, tmp_path / "here")
    assert waits == [2.0, 4.0]
    assert list((tmp_path / "here").iterdir()) == []
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: short.write_bytes(bytes(SIZE)))
    assert len(one(origin, tmp_path / "here")) == 1


@pytest.mark.parametrize("stated", [True, False])
def test_a_shard_that_would_fill_the_disk_is_refused(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: bool
) -> None:
    class Endless:
        size = 10**9 if stated else None
        sent = 0

        def read(self, size: int) -> bytes:
            self.sent += size
            assert self.sent <= 10 * SIZE
            return bytes(size)

    source = Endless()
    disk = 5 * SIZE
    monkeypatch.setattr(remote, "BLOCK", SIZE)
    monkeypatch.setattr(remote, "RESERVE", 2 * SIZE)
    monkeypatch.setattr(
        remote.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, disk - source.sent)
    )
    monkeypatch.setattr(remote.fsspec, "open", lambda *_: contextlib.nullcontext(source))
    size = "1,000,000,000" if stated else "400"
    with pytest.raises(AsrError, match=f"got {size} bytes or more instead of the 100 of the man"):
        one(origin, tmp_path / "here")
    assert source.sent == (0 if stated else 4 * SIZE)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_shard_as_large_as_expected_may_take_the_reserve(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, SIZE))
    assert len(one(origin, tmp_path / "here")) == 1


def test_recordings_in_files_of_their_own_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="expected packed recordings, got u1 in a file of its own"):
        remote_shards("x", tmp_path, [Utterance("u1", tmp_path / "a.wav", "yes", 1.0)], SIZE)


@pytest.mark.parametrize("place", ["own", "here/../own", "here/below"])
def test_shards_of_somebody_are_neither_removed_nor_written(
    origin: Path, tmp_path: Path, place: str
) -> None:
    own = tmp_path / place / "train-00000.tar"
    utterances = [Utterance("u1", own, "yes", 1.0, packed=(0, 10))]
    with pytest.raises(AsrError, match=r"expected shards named without a folder .* got .*train-0"):
        remote_shards(str(origin), tmp_path / "here", utterances, SIZE)
    with pytest.raises(AsrError, match="take the manifests that asr pack wrote"):
        fetch_all(str(origin), tmp_path / "here", utterances)
    assert not own.exists()


# --- a training ---


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def packed(tmp_path: Path) -> Iterator[tuple[dict[str, Path], dict[str, Path], str]]:
    """Manifests of a corpus, those of the same in shards, and the address of the shards."""
    loose = write_corpus(tmp_path / "corpus", {"train": 12, "dev": 3})
    folder = tmp_path / "packed"
    written = pack(list(loose.values()), folder, hours=3 / 3600, rate=RATE)
    manifests = {path.stem: path for path in written.manifests}
    for name, path in manifests.items():  # which are elsewhere than the shards
        write_manifest(tmp_path / "m" / path.name, read_manifest(path))
        manifests[name] = tmp_path / "m" / path.name
        text = manifests[name].read_text().replace(f"{folder}/", "")
        manifests[name].write_text(text)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield loose, manifests, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def with_origin(recipe: Recipe, origin: str, gigabytes: float) -> Recipe:
    data = recipe.data.model_copy(update={"origin": origin, "keep_gb": gigabytes})
    return recipe.model_copy(update={"data": data})


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_json(out / "history.json")]


def test_training_from_a_store_learns_the_same(
    packed: tuple[dict[str, Path], dict[str, Path], str], tmp_path: Path
) -> None:
    loose, manifests, origin = packed
    run_quietly(tone_recipe(loose, tmp_path / "near", epochs=2))
    run_quietly(with_origin(tone_recipe(manifests, tmp_path / "far", epochs=2), origin, 1.0))
    assert losses(tmp_path / "far") == losses(tmp_path / "near")
    # With room for two shards at a time there are other batches, and they are learnt, too.
    room = 2 * max(shards_here(tmp_path / "packed").values()) / 1e9
    few = with_origin(tone_recipe(manifests, tmp_path / "few", epochs=2), origin, room)
    augment = few.augment.model_copy(update={"splice_prob": 0.5, "splice_from": 0.5})
    features = few.features.model_copy(update={"cmvn": "global"})
    run_quietly(few.model_copy(update={"augment": augment, "features": features}))
    kept = shards_here(tmp_path / "few" / "shards")
    train = {name: size for name, size in kept.items() if name.startswith("train")}
    assert sum(train.values()) <= room * 1e9
    assert len(losses(tmp_path / "few")) == 2


def test_examples_to_hear_fetch_their_shards(
    packed: tuple[dict[str, Path], dict[str, Path], str], tmp_path: Path
) -> None:
    loose, manifests, origin = packed
    near = write_examples(tone_recipe(loose, tmp_path / "out", epochs=1), tmp_path / "near", 2)
    far = with_origin(tone_recipe(manifests, tmp_path / "out", epochs=1), origin, 1.0)
    assert write_examples(far, tmp_path / "far", 2) == near
    for file in (tmp_path / "near").glob("*.wav"):
        assert file.read_bytes() == (tmp_path / "far" / file.name).read_bytes()


def test_a_store_without_the_dev_set_is_told_before_training(
    packed: tuple[dict[str, Path], dict[str, Path], str], tmp_path: Path, run: Command
) -> None:
    _, manifests, origin = packed
    recipe = with_origin(tone_recipe(manifests, tmp_path / "out", epochs=1), origin + "/no", 1.0)
    with pytest.raises(AsrError, match=r"/no/dev-00000\.tar, got 404.*check data\.origin"):
        run_quietly(recipe)


def test_shards_are_fetched_once_for_many_utterances(origin: Path, tmp_path: Path) -> None:
    path = tmp_path / "here" / "train-00001.tar"
    utterances = [Utterance(f"u{i}", path, "yes", 1.0, packed=(i * 10, 10)) for i in range(9)]
    fetch_all(str(origin), tmp_path / "here", utterances)
    assert shards_here(tmp_path / "here") == {"train-00001.tar": SIZE}
