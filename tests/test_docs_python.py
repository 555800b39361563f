"""Every Python block of docs/python.md is run as it stands there, in its order."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import asr
from asr.audio.load import write_wav
from asr.audio.vad import speech_detector
from asr.decoding.decoder import Decoder
from asr.inference.recognizer import Recognizer
from tests.inference.test_text_stream import streaming_bundle
from tests.tones import RATE, one_thread, speak

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text()


def test_every_public_name_is_described_and_there() -> None:
    for name in asr.__all__:
        assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", PAGE), name
        assert getattr(asr, name).__doc__ or name == "Source"
        assert name in dir(asr)
    with pytest.raises(AttributeError, match="'asr' has no attribute 'absent'"):
        _ = asr.absent


def test_blocks(
    tones: tuple[dict[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests, model = tones
    shutil.copytree(model, tmp_path / "exp" / "mine" / "model")
    for part, manifest in manifests.items():
        shutil.copy(manifest, tmp_path / f"{part}.jsonl")
        shutil.copytree(manifest.with_suffix(""), tmp_path / part)
    shutil.copytree(tmp_path / "test", tmp_path / "recordings")
    shutil.copy(next((tmp_path / "test").glob("*.wav")), tmp_path / "hello.wav")
    write_wav(tmp_path / "call.wav", speak("low high up down low high"), RATE)
    recipe = "data: {train: train.jsonl, dev: dev.jsonl}\nout: run\n"
    recipe += "features: {sample_rate: 8000, bands: 16}\nmodel: {layers: 1, hidden: 8}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    bundle = streaming_bundle()
    microphone = np.array_split(np.repeat(speak("low high up"), 16000 // RATE), 9)
    names = {"recognizer": Recognizer(bundle, Decoder(bundle.tokens)), "microphone": microphone}
    # Tones are no speech for the other detectors.
    energy = functools.partial(speech_detector, kind="energy")
    monkeypatch.setattr("asr.inference.live.speech_detector", energy)
    printed = []
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        out = io.StringIO()
        own = dict(names) if code.startswith(("with", "for")) else {}
        with one_thread(), contextlib.redirect_stdout(out):
            exec(compile(code, "docs/python.md", "exec"), own)
        printed.append(out.getvalue())
    words, absent, call, many, samples, live, _, stream, rate = printed
    assert len(words.splitlines()) == len(words.splitlines()[0].split()) + 1
    assert "absent.wav: expected" in absent
    assert re.fullmatch(r"(\d of 1 s\n)+0\.5 \d\.\d+ 1 .*\n", call)
    assert len(many.splitlines()) == len(list(Path("recordings").iterdir()))
    assert samples == "[1.0, 1.0]\n"
    *partial, final = live.splitlines()
    assert partial
    assert all("|" in line for line in partial)
    assert re.search(r"\w+ \[\d", final)
    assert len(stream.splitlines()) == 10
    assert 0 <= float(rate) <= 2
    assert (tmp_path / "report" / "report.html").is_file()
