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

from asr.ctc.beam import BeamConfig, BeamSearch
from asr.ctc.language import build_language
from asr.lm.estimate import estimate
from asr.tuning import BONUSES, SIZES, WEIGHTS
from tests.commands import Command
from tests.tones import untrained_bundle

DECODING = (Path(__file__).resolve().parents[1] / "docs" / "decoding.md").read_text()


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
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```$", DECODING, re.DOTALL | re.MULTILINE)
    for line in "".join(blocks).splitlines():
        command = shlex.split(line.replace("MODEL", "run/model"))
        assert command[0] == "asr"
        assert run(*command[1:]).status == 0, line
    options = re.findall(r"`(--[^`]*)`", DECODING.partition("in place of what")[2])
    assert len(options) == 7
    audio = next((tmp_path / "dev").glob("*.wav"))
    for option in options:
        words = shlex.split(option.replace("PATH", "lm"))
        for place, other in (("espoo", "low"), ("oulu", "high")):
            words = [word.replace(place, other) for word in words]
        assert run("transcribe", audio, "--model", "run/model", *words).status == 0, option


def test_figures() -> None:
    (pairs,) = re.findall(r"tries (\d+) pairs .*, and beams of eight sizes", DECODING)
    assert int(pairs) == len(WEIGHTS) * len(BONUSES)
    assert len(SIZES) == 8


def test_beam_search_while_somebody_speaks() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DECODING, re.DOTALL | re.MULTILINE)
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
