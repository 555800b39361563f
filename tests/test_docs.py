"""What docs/decoding.md says is run as it stands there."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from asr.audio import write_wav
from asr.ctc.beam import BeamConfig, BeamSearch
from asr.ctc.language import build_language
from asr.lm.estimate import estimate
from asr.tuning import BONUSES, SIZES, WEIGHTS
from tests.commands import Command
from tests.tones import RATE, speak, untrained_bundle

DECODING = (Path(__file__).resolve().parents[1] / "docs" / "decoding.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", DECODING, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_commands(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests, model = tones
    for manifest in (manifests["train"], manifests["dev"]):
        shutil.copy(manifest, tmp_path)
        shutil.copytree(manifest.with_suffix(""), tmp_path / manifest.stem)
    shutil.copytree(model, tmp_path / "run" / "model")
    with gzip.open(tmp_path / "more-sentences.txt.gz", "wt") as file:
        file.write("low high\nup down up\n")
    (tmp_path / "FILE").write_text("low\nhigh\n")
    (tmp_path / "talk.txt").write_text("low high")
    write_wav(tmp_path / "talk.wav", speak("low high"), RATE)
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks("")).splitlines():
        command = shlex.split(line.replace("MODEL", "run/model"))
        assert command[0] == "asr"
        assert run(*command[1:]).status == 0, line
    table = DECODING.partition("in place of what")[2].partition("##")[0]
    options = re.findall(r"`(--[^`]*)`", table)
    assert len(options) == 8
    audio = next((tmp_path / "dev").glob("*.wav"))
    for option in options:
        words = shlex.split(option.replace("PATH", "lm"))
        for place, other in (("espoo", "low"), ("oulu", "high")):
            words = [word.replace(place, other) for word in words]
        assert run("transcribe", audio, "--model", "run/model", *words).status == 0, option


def test_figures() -> None:
    (pairs,) = re.findall(r"tries (\d+) pairs .*, and beams of five sizes", DECODING)
    assert int(pairs) == len(WEIGHTS) * len(BONUSES)
    assert len(SIZES) == 5


def test_beam_search_while_somebody_speaks() -> None:
    (code,) = blocks("python")
    bundle = untrained_bundle()
    names = {
        "BeamConfig": BeamConfig,
        "BeamSearch": BeamSearch,
        "build_language": build_language,
        "bundle": bundle,
        "model": estimate(["low high", "up down"], order=2),
        "stream": torch.randn(3, 10, len(bundle.tokens)).log_softmax(-1),
    }
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/decoding.md", "exec"), names)
    assert len(out.getvalue().splitlines()) == 4
