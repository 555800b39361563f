"""An exported model, run by onnxruntime without torch.

The folder that `asr export --to onnx` writes is a model folder with model.onnx in place of
model.safetensors. The graph takes samples and returns log-probabilities; its metadata state the
rate of the samples.

N utterances, S samples, T frames, V tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.samples import RATES
from asr.config import Config, parse_saved
from asr.decoding.rows import Rows
from asr.errors import CheckpointError
from asr.io.model_files import read_facts
from asr.io.onnx_session import open_graph
from asr.text.normalise import TextConfig, normalise
from asr.text.tokens import Tokens, read_tokens

GRAPH = "model.onnx"
_OUTPUTS = [("log_probs", 3), ("frames", 1), ("spelled", 3), ("spelled_frames", 1)]
"""Outputs of a graph and the number of their axes; the latter two with hierarchical CTC."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of an utterance, and those of its hierarchical CTC layer, if there is one.

    Shape: [T, V] and [T', V].
    """

    log_probs: Floats
    spelled: Floats | None = None


@dataclass(frozen=True)
class OnnxModel:
    """A graph with the configuration of its input and output."""

    session: Any
    tokens: Tokens
    text: TextConfig
    sample_rate: int
    info: dict[str, Any] = field(default_factory=dict)

    def normalise(self, text: str) -> str:
        """A transcript with the normalisation of training."""
        return normalise(text, self.text)

    def score(self, waves: Sequence[Floats]) -> tuple[Rows, Rows | None]:
        """Log-probabilities of recordings by the last and by the hierarchical CTC layer.

        Each is computed alone, so that no other changes its scores, and several at once, one on
        each core. Shape: N times [S] in [-1, 1] at the model's rate -> N times [T, V].
        """
        if len(waves) == 1:  # a thread would cost time on a busy machine
            found = run_graph(self.session, waves)
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = list(pool.map(lambda wave: run_graph(self.session, [wave])[0], waves))
        spelled = [row.spelled for row in found if row.spelled is not None]
        return [row.log_probs for row in found], spelled or None


def is_onnx(folder: Path) -> bool:
    """Whether this is an exported model and not one for torch."""
    return os.path.isfile(folder / GRAPH)  # noqa: PTH113 (False, no error, on impossible names)


def load_onnx(folder: str | Path) -> OnnxModel:
    """Read an exported folder. Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    config = read_facts(folder / "config.json")
    text = parse_saved(_Text, {"text": config.get("text")}, str(folder / "config.json")).text
    tokens = read_tokens(folder)
    session = open_graph(folder / GRAPH)
    known = session.get_modelmeta().custom_metadata_map
    outputs = {value.name: value.shape for value in session.get_outputs()}
    inputs = {value.name: value.shape for value in session.get_inputs()}
    if inputs.keys() != {"samples", "lengths"}:
        raise CheckpointError(
            f"{folder / GRAPH}: expected a graph with the inputs samples and lengths, got "
            f"{', '.join(sorted(inputs))}: export it without --features"
        )
    ranks = [(name, len(shape)) for name, shape in outputs.items()]
    if ranks not in (_OUTPUTS[:2], _OUTPUTS):
        raise CheckpointError(
            f"{folder / GRAPH}: expected the outputs log_probs and frames, got "
            f"{', '.join(outputs) or 'none'}, or of other ranks: export the model again"
        )
    stated = known.get("sample_rate", "")
    rate = int(stated) if re.fullmatch("[0-9]{1,9}", stated) else 0
    if rate not in RATES:
        raise CheckpointError(
            f"{folder / GRAPH}: expected sample_rate {RATES[0]} to {RATES[-1]} in the metadata, "
            f"got {stated[:20]!r}: export the model again"
        )
    if outputs["log_probs"][2] != len(tokens):
        raise CheckpointError(
            f"{folder}: expected {len(tokens)} outputs for the tokens of tokens.json, got "
            f"{outputs['log_probs'][2]}: export the model again"
        )
    return OnnxModel(session, tokens, text, rate, read_facts(folder / "info.json"))


def run_graph(session: Any, sequences: Sequence[Floats]) -> list[LogProbs]:
    """The output for each utterance of a batch. Shape: N times samples [S] or features [T, F]."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    first, second = (value.name for value in session.get_inputs())
    values = np.zeros((len(sequences), max(lengths), *sequences[0].shape[1:]), np.float32)
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    log_probs, frames, *others = session.run(None, {first: values, second: lengths})
    if not others:
        return [LogProbs(row[:n]) for row, n in zip(log_probs, frames, strict=True)]
    spelled, spelled_frames = others
    return [
        LogProbs(row[:n], other[:m])
        for row, n, other, m in zip(log_probs, frames, spelled, spelled_frames, strict=True)
    ]


class _Text(Config):
    text: TextConfig
