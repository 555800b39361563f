from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.load import load_audio
from asr.dataset import shards
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.shards import load_recording, pack
from asr.dataset.speech_dataset import SpeechDataset
from asr.errors import AsrError, AudioError
from asr.text.normalise import TextConfig
from tests.commands import Command
from tests.processes import start

RATE = 16000
HOUR = 3600.0
SECOND = 1 / HOUR


def corpus(folder: Path, count: int = 12) -> Path:
    """Recordings at two rates, a few of them stretches of one longer recording."""
    random = np.random.default_rng(1)
    folder.mkdir()
    soundfile.write(folder / "long.wav", random.uniform(-0.9, 0.9, 4 * RATE), RATE)
    utterances = []
    for i in range(count):
        path, seconds = folder / f"{i}.flac", float(random.uniform(0.5, 1.0))
        rate = RATE if i % 2 else 22050
        soundfile.write(path, random.uniform(-0.9, 0.9, round(seconds * rate)), rate)
        start, end = 0.0, None
        if i % 5 == 0:
            path, start, end = folder / "long.wav", i / 5, i / 5 + seconds
        utterance = Utterance(f"u/{i}", path, f"yés {i}", seconds, f"s{i % 3}", start, end)
        utterances.append(replace(utterance, extra={"room": i}))
    write_manifest(folder / "train.jsonl", utterances)
    return folder / "train.jsonl"


def waveforms(manifest: Path, rate: int = RATE) -> dict[str, list[int]]:
    data = SpeechDataset(read_manifest(manifest), None, TextConfig(), rate)
    return {u.id: data.waveform(i).tolist() for i, u in enumerate(data.utterances)}


def test_training_hears_the_same_samples(tmp_path: Path) -> None:
    manifest = corpus(tmp_path / "corpus")
    packed = pack([manifest], tmp_path / "packed", hours=3 * SECOND)
    assert packed.manifests == (tmp_path / "packed" / "train.jsonl",)
    assert packed.unreadable == ()
    assert packed.shards == len(list((tmp_path / "packed").glob("train-*.tar"))) == 3
    (tmp_path / "corpus").rename(tmp_path / "elsewhere")
    assert waveforms(tmp_path / "elsewhere" / "train.jsonl") == waveforms(packed.manifests[0])
    before, after = (
        read_manifest(tmp_path / "elsewhere" / "train.jsonl"),
        read_manifest(packed.manifests[0]),
    )
    for one, other in zip(before, after, strict=True):  # in the same order
        for key in ("id", "text", "duration", "speaker", "extra"):
            assert getattr(one, key) == getattr(other, key)


def test_other_tools_can_read_a_shard(tmp_path: Path) -> None:
    pack([corpus(tmp_path / "corpus", 3)], tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "train-00000.tar") as archive:
        members = [(member.name, archive.extractfile(member)) for member in archive]
        content = {name: file.read() for name, file in members if file is not None}
    samples, rate = soundfile.read(io.BytesIO(content["00000001.flac"]))
    assert rate == RATE
    expected = load_audio(tmp_path / "corpus" / "1.flac")
    np.testing.assert_allclose(samples, expected, atol=2**-15)
    assert json.loads(content["00000001.json"])["text"] == "yés 1"


def test_what_is_there_is_kept_and_what_has_changed_is_packed_anew(tmp_path: Path) -> None:
    manifest, folder = corpus(tmp_path / "corpus"), tmp_path / "packed"
    pack([manifest], folder, hours=3 * SECOND)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    seen: list[tuple[int, int]] = []
    pack([manifest], folder, hours=3 * SECOND, progress=lambda *at: seen.append(at))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == times
    assert seen[-1] == (12, 12)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    # Another text, and another recording of the same name: each changes one shard.
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0].replace("y\u00e9s 0", "no"), *lines[1:]]) + "\n")
    pack([manifest], folder, hours=3 * SECOND)
    changed = [path for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert len(changed) == 1
    soundfile.write(tmp_path / "corpus" / "1.flac", np.zeros(RATE), RATE)
    pack([manifest], folder, hours=3 * SECOND)
    now = [path for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert len(now) <= 2
    assert waveforms(folder / "train.jsonl") == waveforms(manifest)


def test_shards_of_an_earlier_packing_are_not_left_behind(tmp_path: Path) -> None:
    manifest, folder = corpus(tmp_path / "corpus"), tmp_path / "packed"
    pack([manifest], folder, hours=2 * SECOND)
    (folder / "train-00077.tar").write_bytes(b"somebody's own")
    pack([manifest], folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-00000.tar",
        "train-00077.tar",
        "train.jsonl",
    ]


def test_a_packing_that_is_killed_leaves_whole_shards_and_can_be_run_again(tmp_path: Path) -> None:
    manifest, folder = corpus(tmp_path / "corpus"), tmp_path / "packed"
    process = start(_pack_and_die, manifest, folder)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    whole = {path: path.read_bytes() for path in folder.glob("train-*.tar")}
    assert whole
    assert not (folder / "train.jsonl").exists()
    packed = pack([manifest], folder, hours=2 * SECOND)
    assert all(path.read_bytes() == content for path, content in whole.items())
    assert waveforms(packed.manifests[0]) == waveforms(manifest)
    assert not list(folder.glob(".*"))


def _pack_and_die(manifest: Path, folder: Path) -> None:
    def progress(done: int, total: int) -> None:
        if done == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    pack([manifest], folder, hours=2 * SECOND, progress=progress)


def test_what_cannot_be_read_is_told_and_tried_again(tmp_path: Path, run: Command) -> None:
    manifest = corpus(tmp_path / "corpus", 4)
    good = (tmp_path / "corpus" / "2.flac").read_bytes()
    (tmp_path / "corpus" / "2.flac").write_bytes(b"no sound")
    ended = run("pack", manifest, "--out", tmp_path / "packed")
    assert ended.status == 1
    assert "left out: u/2: " in ended.err
    assert "2.flac" in ended.err
    assert [u.id for u in read_manifest(tmp_path / "packed" / "train.jsonl")] == [
        "u/0",
        "u/1",
        "u/3",
    ]
    (tmp_path / "corpus" / "2.flac").write_bytes(good)
    assert run("pack", manifest, "--out", tmp_path / "packed").status == 0
    assert len(read_manifest(tmp_path / "packed" / "train.jsonl")) == 4


def test_manifests_that_would_overwrite_each_other(tmp_path: Path) -> None:
    manifest = corpus(tmp_path / "corpus", 2)
    with pytest.raises(AsrError, match=r"different names, got train\.jsonl twice"):
        pack([manifest, manifest], tmp_path / "packed")
    with pytest.raises(AsrError, match="another folder than that of"):
        pack([manifest], tmp_path / "corpus")


def test_a_shard_that_is_not_whole_is_named(tmp_path: Path) -> None:
    (manifest,) = pack([corpus(tmp_path / "corpus", 3)], tmp_path / "packed").manifests
    u = read_manifest(manifest)[2]
    assert u.packed is not None
    first, count = u.packed
    with pytest.raises(
        AudioError,
        match=rf"bytes {first + 1} to .* the shard is damaged",
    ):
        load_recording(u.audio, RATE, packed=(first + 1, count))
    content = u.audio.read_bytes()
    u.audio.write_bytes(content[: first + 5])
    with pytest.raises(AudioError, match=r"expected \d+ bytes, got 5; the shard is incomplete"):
        load_recording(u.audio, RATE, packed=u.packed)
    u.audio.unlink()
    with pytest.raises(AudioError, match="'No such file or directory'; fetch or pack the shard"):
        load_recording(u.audio, RATE, packed=u.packed)


def test_utterances_are_dealt_so_that_a_shard_holds_many_speakers() -> None:
    dealt = shards._dealt([1.0] * 1000, 100.0)
    assert [len(places) for places in dealt] == [100] * 10
    assert sorted(place for places in dealt for place in places) == list(range(1000))
    assert all(len({place // 100 for place in places}) == 10 for places in dealt)
