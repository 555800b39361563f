"""A recurrent language model over the tokens of a recogniser, or over characters.

Token 0, the blank of CTC, stands before and after a sentence. On disk the model is a folder;
loading it runs no code:

lstm.json           format version, configuration, origin, text normalisation
tokens.json         the tokens
model.safetensors   weights

B sentences, T positions in the longest, V tokens, H cells. Scores are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from asr.config import Config, parse_saved
from asr.errors import CheckpointError
from asr.io.files import atomic_path, check_replaceable, write_json
from asr.io.foreign import which_is
from asr.io.model_files import read_facts
from asr.lm.encoding import BOUNDARY, UNITS_AT_ONCE, encode_sentence, is_neural
from asr.lm.ngram import END, WordScore
from asr.models.cells import CELLS, State
from asr.models.recurrent import RecurrentLayer
from asr.models.weights import load_model, save_weights
from asr.padded import Padded, pad
from asr.text.characters import canonical
from asr.text.normalise import TextConfig, normalise
from asr.text.tokens import WORD_START, Tokens, read_tokens

FORMAT = 1


class NeuralConfig(Config):
    """Size and shape of the network."""

    cell: str = "lstm"
    """As in `model.cell`, without layer_norm and light_gru, which normalise their input, and
    projected."""
    layers: int = Field(1, ge=1, le=8)
    """Recurrent layers."""
    hidden: int = Field(256, ge=1, le=8192)
    """Cells, and features of a token."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the features dropped before and after every layer."""

    @field_validator("cell")
    @classmethod
    def _check_cell(cls, name: str) -> str:
        if name in CELLS and (CELLS[name].input_norm or CELLS[name].projects):
            raise ValueError(
                "expected a cell that neither normalises its input nor has a projection, got "
                f"{name}"
            )
        return name


class NeuralModel(nn.Module):
    """Tokens to log-probabilities of the next one. Embedding and output share their weights (Press
    and Wolf 2017, "Using the output embedding to improve language models")."""

    def __init__(self, config: NeuralConfig, units: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(units, config.hidden)
        nn.init.normal_(self.embedding.weight, std=config.hidden**-0.5)
        self.layers = nn.ModuleList(
            RecurrentLayer(config.hidden, config.hidden, config.cell, bidirectional=False)
            for _ in range(config.layers)
        )
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(
        self, ids: Padded, states: Sequence[Sequence[State]] | None = None
    ) -> tuple[Padded, list[list[State]]]:
        """The predictions after each token, and the states after the last ones.

        Shape: ids [B, T] -> log-probabilities [B, T, V]; states of each layer.
        """
        x, after = self.embedding(ids.values), []
        before: Sequence[Sequence[State] | None] = states or [None] * len(self.layers)
        for layer, state in zip(self.layers, before, strict=True):
            x = functional.dropout(x, self.config.dropout, self.training)
            y, reached = layer.run(Padded(x, ids.lengths), state)  # type: ignore[operator]
            x = y.values
            after.append(reached)
        x = functional.dropout(x, self.config.dropout, self.training)
        logits = functional.linear(x, self.embedding.weight, self.bias)
        return Padded(torch.log_softmax(logits.float(), dim=2), ids.lengths), after

    def targets(self, sentences: Padded) -> Padded:
        """Log-probability of every token but the first. Shape: [B, T] -> [B, T - 1]."""
        lengths = sentences.lengths - 1
        scores, _ = self(Padded(sentences.values[:, :-1], lengths))
        picked = scores.values.gather(2, sentences.values[:, 1:, None])[:, :, 0]
        return Padded(picked, lengths)


@dataclass(frozen=True)
class NeuralLm:
    """A network with its tokens."""

    model: NeuralModel
    tokens: Tokens
    info: dict[str, Any] = field(default_factory=dict)
    text: TextConfig | None = None
    """The normalisation of its sentences, if it was trained for a recogniser."""

    @property
    def cell(self) -> str:
        """The cell of its recurrent layers."""
        return self.model.config.cell

    def encode(self, sentence: str) -> Tensor:
        """Token ids between two boundaries. Shape: [T]. Raises LanguageModelError."""
        return torch.tensor(encode_sentence(self.tokens, sentence))

    @torch.inference_mode()
    def unit_scores(self, sentences: Sequence[str]) -> list[Tensor]:
        """Log-probability of each token after the previous ones, and of the end. -> B times [T -
        1], for `encode` gives both boundaries."""
        device = self.model.bias.device
        scores: dict[int, Tensor] = {}
        encoded = [self.encode(sentence) for sentence in sentences]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        while order:
            count = max(1, UNITS_AT_ONCE // len(encoded[order[-1]]))
            chosen, order = order[-count:], order[:-count]
            batch = pad([encoded[i] for i in chosen]).to(device)
            for i, row in zip(chosen, self.model.eval().targets(batch).unpad(), strict=True):
                scores[i] = row.cpu()
        return [scores[i] for i in range(len(encoded))]

    def score(self, sentences: Sequence[str]) -> list[float]:
        """Log-probability of each sentence with its end."""
        return [float(row.double().sum()) for row in self.unit_scores(sentences)]

    def score_sentence(self, sentence: Sequence[str]) -> list[WordScore]:
        """Every word of a sentence after the previous ones, and the end. No word is unknown: a word
        without a token is spelled."""
        units = self.encode(" ".join(sentence))[1:-1].tolist()
        scores = self.unit_scores([" ".join(sentence)])[0].tolist()
        starts = [i for i, u in enumerate(units) if self.tokens.units[u].startswith(WORD_START)]
        bounds = [*starts, len(units), len(scores)]
        return [
            WordScore(word, math.fsum(scores[first:last]), place, unknown=False)
            for place, (word, first, last) in enumerate(
                zip([*sentence, END], bounds[:-1], bounds[1:], strict=True), start=1
            )
        ]

    @torch.inference_mode()
    def sample(
        self, prompt: str, temperature: float, random: torch.Generator, longest: int = 500
    ) -> str:
        """A random sentence that begins with `prompt`; a temperature below 1 gives likelier ones.

        Raises LanguageModelError for a prompt of other characters.
        """
        prompt = canonical(prompt) if self.text is None else normalise(prompt, self.text)
        ids = self.encode(prompt)[:-1].tolist()
        model = self.model.eval()
        given, states = torch.tensor([ids], device=model.bias.device), None
        while len(ids) <= longest:
            lengths = torch.tensor([given.shape[1]], device=given.device)
            scores, states = model(Padded(given, lengths), states)
            weights = (scores.values[0, -1].cpu() / temperature).softmax(dim=0)
            drawn = int(torch.multinomial(weights, 1, generator=random))
            if drawn == BOUNDARY:
                break
            ids.append(drawn)
            given = torch.tensor([[drawn]], device=model.bias.device)
        return self.tokens.decode(ids[1:])


class _Saved(Config):
    format: int
    model: NeuralConfig
    info: dict[str, Any]
    text: TextConfig | None = None


def save_neural(folder: str | Path, lm: NeuralLm) -> None:
    """Write the folder atomically, replacing an earlier one."""
    check_replaceable(folder, "lstm.json")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_weights(temporary / "model.safetensors", lm.model)
        write_json(temporary / "tokens.json", lm.tokens.to_json())
        saved = _Saved(format=FORMAT, model=lm.model.config, info=lm.info, text=lm.text)
        write_json(temporary / "lstm.json", saved.model_dump())


def load_neural(folder: str | Path) -> NeuralLm:
    """Read a folder. Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    if not is_neural(folder):
        raise CheckpointError(
            f"expected a recurrent language model, got {folder} without lstm.json"
            f"{which_is(folder)}: correct the path or train one with asr lm train"
        )
    facts = read_facts(folder / "lstm.json")
    if facts.get("format") != FORMAT:
        raise CheckpointError(
            f"expected a language model of format {FORMAT}, got {folder / 'lstm.json'}: train it"
        )
    saved = parse_saved(_Saved, facts, str(folder / "lstm.json"))
    tokens = read_tokens(folder)
    path = folder / "model.safetensors"
    model = load_model(lambda: NeuralModel(saved.model, len(tokens)), path)
    return NeuralLm(model, tokens, saved.info, saved.text)
