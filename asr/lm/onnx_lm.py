"""A recurrent language model as an ONNX graph, run without torch.

On disk the model is the folder of `asr.lm.neural` with model.onnx in place of model.safetensors.

N sentences, T positions in the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.errors import CheckpointError
from asr.io.model_files import read_facts
from asr.io.onnx_session import open_graph
from asr.lm.encoding import UNITS_AT_ONCE, encode_sentence
from asr.text.tokens import Tokens, read_tokens

GRAPH = "model.onnx"


@dataclass(frozen=True)
class OnnxLm:
    """A graph with its tokens; scores sentences as `NeuralLm` does."""

    session: Any
    tokens: Tokens
    cell: str

    def score(self, sentences: Sequence[str]) -> list[float]:
        """Log-probability of each sentence with its end. Raises LanguageModelError."""
        encoded = [encode_sentence(self.tokens, sentence) for sentence in sentences]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        scores = [0.0] * len(encoded)
        while order:
            count = max(1, UNITS_AT_ONCE // len(encoded[order[-1]]))
            chosen, order = order[-count:], order[:-count]
            lengths = np.array([len(encoded[i]) for i in chosen], np.int64)
            ids = np.zeros((len(chosen), max(lengths)), np.int64)
            for row, i in zip(ids, chosen, strict=True):
                row[: len(encoded[i])] = encoded[i]
            (values,) = self.session.run(None, {"ids": ids, "lengths": lengths})
            for i, row in zip(chosen, values, strict=True):
                scores[i] = float(row[: len(encoded[i]) - 1].sum(dtype=np.float64))
        return scores


def is_onnx_lm(folder: Path) -> bool:
    """Whether this is an exported recurrent language model."""
    return (folder / GRAPH).is_file()


def load_onnx_lm(folder: str | Path) -> OnnxLm:
    """Read a folder. Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    facts = read_facts(folder / "lstm.json")
    tokens = read_tokens(folder)
    try:
        cell = str(facts["model"]["cell"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'lstm.json'}: expected the cell of a language model, got {error}: export "
            "it again"
        ) from None
    return OnnxLm(open_graph(folder / GRAPH), tokens, cell)
