"""`asr clean`: the worst transcripts, and the rest to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.dataset.manifest import read_manifest, write_manifest
from tests.commands import Command

Tones = tuple[dict[str, Path], Path]


def test_clean(run: Command, tones: Tones, tmp_path: Path) -> None:
    manifests, model = tones
    rows = list(read_manifest(manifests["test"]))
    rows[4] = replace(rows[4], text="up up up up up", extra={"confidence": 0.5})
    rows[7] = replace(rows[7], audio=tmp_path / "gone.wav")
    write_manifest(tmp_path / "labels.jsonl", rows)
    ended = run("clean", model, tmp_path / "labels.jsonl", "--out", tmp_path / "c", "--worst", "3")
    assert ended.status == 1
    (error,) = ended.errors
    assert "left out: " in error
    assert "gone.wav" in error
    assert "1 of 19 transcripts to check" in ended.err
    (worst,) = read_manifest(tmp_path / "c" / "check.jsonl")
    assert (worst.id, worst.text, worst.extra["confidence"]) == (rows[4].id, "up up up up up", 0.5)
    rest = read_manifest(tmp_path / "c" / "rest.jsonl")
    assert [u.id for u in rest] == [u.id for i, u in enumerate(rows) if i not in (4, 7)]
    assert worst.id in (tmp_path / "c" / "check.html").read_text()


def test_misuse(run: Command, tones: Tones, tmp_path: Path) -> None:
    model, (utterance, *_) = tones[1], read_manifest(tones[0]["test"])
    write_manifest(tmp_path / "check.jsonl", [utterance])
    refused = run("clean", model, tmp_path / "check.jsonl", "--out", tmp_path)
    assert "expected --out that replaces no input" in refused.error()
    assert "expected a manifest" in run("clean", model, tmp_path / "no", "--out", tmp_path).error()


def test_nothing_is_made_or_lost_by_a_refusal(run: Command, tones: Tones, tmp_path: Path) -> None:
    words = tones[0]["test"], "--out", tmp_path / "c"
    assert "included model is in" in run("clean", "default", *words).error()
    assert not (tmp_path / "c").exists()
    (tmp_path / "c").mkdir()
    for name in ("check.reviewed.jsonl", "rest.left_out.jsonl"):
        (tmp_path / "c" / name).write_text("{}")
        refused = run("clean", tones[1], *words)
        assert f"expected --out without an earlier review, got {tmp_path / 'c' / name}" in (
            refused.error()
        )
        (tmp_path / "c" / name).unlink()


def test_without_recordings_the_earlier_result_stays(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    rows = list(read_manifest(tones[0]["test"]))[:5]
    write_manifest(tmp_path / "m.jsonl", rows)
    words = "clean", tones[1], tmp_path / "m.jsonl", "--out", tmp_path / "c", "--worst", "40"
    assert run(*words).status == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    write_manifest(tmp_path / "m.jsonl", [replace(u, audio=tmp_path / "no.wav") for u in rows])
    ended = run(*words)
    assert ended.status == 1
    assert "expected recordings that can be read, got none in" in ended.errors[-1]
    assert {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()} == before


def test_the_share_is_not_rounded_up_by_an_error_of_floats(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    rows = list(read_manifest(tones[0]["test"]))
    rows = [replace(rows[i % 2], id=f"u{i}") for i in range(25)]
    write_manifest(tmp_path / "m.jsonl", rows)
    words = "clean", tones[1], tmp_path / "m.jsonl", "--out", tmp_path / "c", "--worst", "28"
    assert "7 of 25 transcripts to check" in run(*words).err
