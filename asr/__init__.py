"""Train a speech recogniser on recordings with transcripts, and use it.

The names in `__all__` are the public interface; docs/python.md describes them. Importing this
package imports no heavy modules: torch and others are imported when a function is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.errors import AsrError, AudioError, AudioWarning
    from asr.evaluation.evaluate import Evaluation
    from asr.inference.live_utterance import LiveText
    from asr.inference.recognizer import Recognizer
    from asr.inference.text_stream import StreamText, TextStream
    from asr.inference.time_formats import Word
    from asr.inference.transcribe import Source
    from asr.inference.transcript import Segment, Transcript

__version__ = "0.1.0"  # as in pyproject.toml

__all__ = [
    "AsrError",
    "AudioError",
    "AudioWarning",
    "Evaluation",
    "LiveText",
    "Recognizer",
    "Segment",
    "Source",
    "StreamText",
    "TextStream",
    "Transcript",
    "Word",
    "evaluate",
    "format_transcript",
    "load",
    "train",
]

_HOMES = {
    "AsrError": "asr.errors",
    "AudioError": "asr.errors",
    "AudioWarning": "asr.errors",
    "Evaluation": "asr.evaluation.evaluate",
    "LiveText": "asr.inference.live_utterance",
    "Recognizer": "asr.inference.recognizer",
    "Segment": "asr.inference.transcript",
    "Source": "asr.inference.transcribe",
    "StreamText": "asr.inference.text_stream",
    "TextStream": "asr.inference.text_stream",
    "Transcript": "asr.inference.transcript",
    "Word": "asr.inference.time_formats",
}

# libgomp's threads spin 300,000 times while they wait for each other. If another program uses one
# of the cores, this wait wastes the other one, and a training step takes several times as long
# (docs/speed.md). The library reads the variable when torch loads it.
_OPENMP = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_")
if "torch" not in sys.modules and not any(name.startswith(_OPENMP) for name in os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"

# torch imports dill if it is installed, which asks for the path of a temporary folder and writes
# nothing there. Without such a folder, the call raises an error.
try:
    tempfile.gettempdir()
except OSError:
    tempfile.tempdir = "/tmp"


def load(model: str | Path | None = None) -> Recognizer:
    """A model folder with its own decoder; by default the included model.

    Folders of `asr train` need torch, those of `asr export --to onnx` do not. Raises AsrError for a
    missing or damaged folder.
    """
    from asr.inference.recognizer import load_recognizer
    from asr.io.extras import extras_explained

    with extras_explained():
        return load_recognizer(model)


def format_transcript(transcript: Transcript, format: str) -> str:
    """The content of a file in one of the formats of `asr transcribe`: "txt", "json", "srt", "vtt",
    "tsv", "ctm", "textgrid" or "trn".

    Times come from the words. Without words, the subtitles of a segment share its time evenly, and
    ctm has no lines. Raises AsrError for another format.

    >>> from asr import Segment, Transcript
    >>> transcript = Transcript(Path("a.wav"), (Segment(0, 1, "yes no"),))
    >>> print(format_transcript(transcript, "trn"), end="")
    yes no (a)
    """
    from asr.errors import ConfigError
    from asr.inference.formats import FORMATS, to_text
    from asr.inference.time_formats import ctm_names

    found = next((known for known in FORMATS if known == format), None)
    if found is None:
        raise ConfigError(f"expected one of {', '.join(FORMATS)}, got {format!r}: name one")
    path = transcript.path or Path("recording")
    return to_text(transcript, found, ctm_names([path])[path])


def train(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a recipe file with `key.sub=value` overrides; resume a stopped training.

    Returns the folder of the model. Raises AsrError for bad data or settings.
    """
    from asr.io.extras import extras_explained

    with extras_explained():
        from asr.training.recipe import read_recipe
        from asr.training.trainer import train as train_model

        return train_model(read_recipe(Path(recipe), overrides))


def evaluate(model: str | Path, manifest: str | Path, out: str | Path | None = None) -> Evaluation:
    """Recognize a manifest with a model folder and its decoder, and count the errors.

    The report is written into the folder `out` if it is given. Raises AsrError for a bad model or
    manifest.
    """
    from asr.io.extras import extras_explained

    with extras_explained():
        from asr.evaluation.evaluate import evaluate as evaluate_model

        return evaluate_model(Path(model), Path(manifest), None if out is None else Path(out))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
