"""The batched beam search finds what the compiled one finds, and all that paths add up to."""

from __future__ import annotations

import math

import pytest
import torch

from asr.decoding.beam import BeamHypothesis, beam_decode
from asr.decoding.beam_batched import batched_decode
from asr.decoding.config import BeamConfig
from asr.decoding.fusion import build_language
from asr.errors import ConfigError
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel
from asr.padded import Padded, pad
from asr.text.tokens import BLANK, WORD_START, Tokens
from tests.decoding.test_beam import MIXED, SPELLED, every_text, random_log_probs

TOKENS = Tokens((BLANK, WORD_START, *"abcdefgh"))


def language_model(tokens: Tokens) -> NeuralLm:
    torch.manual_seed(3)
    model = NeuralModel(NeuralConfig(hidden=8, layers=2, dropout=0.0), len(tokens))
    with torch.no_grad():
        model.embedding.weight.mul_(5)  # an untrained one expects everything equally
    return NeuralLm(model.eval(), tokens)


def same(ours: list[BeamHypothesis], theirs: list[BeamHypothesis]) -> None:
    assert [row.ids for row in ours] == [row.ids for row in theirs]
    assert [row.score for row in ours] == pytest.approx([row.score for row in theirs], abs=1e-6)


@pytest.mark.parametrize("size", [1, 3, 30])
def test_the_same_as_the_compiled_search(size: int) -> None:
    rows = [random_log_probs(T, len(TOKENS), seed=T) for T in (1, 40, 0, 25)]
    config = BeamConfig(size=size, nats=1e9, token_nats=1e9)
    ours = batched_decode(pad(rows), TOKENS, config, size)
    theirs = beam_decode(pad(rows), build_language(TOKENS), config, size)
    for mine, other in zip(ours, theirs, strict=True):
        same(mine, other)


def test_what_lies_in_the_padding_is_not_heard() -> None:
    rows = [random_log_probs(T, len(TOKENS), seed=T) for T in (9, 30)]
    padded = pad(rows)
    filled = padded.values.masked_fill(~padded.mask()[:, :, None], math.nan)
    config = BeamConfig(size=8)
    (short, _), (alone,) = (
        batched_decode(x, TOKENS, config, 8)
        for x in (Padded(filled, padded.lengths), pad(rows[:1]))
    )
    same(short, alone)


@pytest.mark.parametrize("tokens", [SPELLED, MIXED])
def test_exact_with_a_language_model_at_every_step(tokens: Tokens) -> None:
    lm, log_probs = language_model(tokens), random_log_probs(5, len(tokens))
    everything = BeamConfig(size=2000, nats=1e9, token_nats=1e9)
    found = batched_decode(pad([log_probs]), tokens, everything, 5000, lm, 0.7, 0.5)[0]
    expected = every_text(log_probs)
    assert {row.ids for row in found} == expected.keys()
    starts = {i for i, unit in enumerate(tokens.units) if unit.startswith(WORD_START)}
    for row in found[:: len(found) // 50]:
        ids = torch.tensor([0, *row.ids, 0])
        language = lm.model.targets(pad([ids])).values.sum().item()
        language = 0.7 * language + 0.5 * sum(unit in starts for unit in row.ids)
        assert row.ctc == pytest.approx(expected[row.ids], abs=1e-6)
        assert row.language == pytest.approx(language, abs=1e-4)
    scores = [row.score for row in found]
    assert scores == sorted(scores, reverse=True)


def test_a_batch_with_a_language_model_is_its_utterances() -> None:
    lm = language_model(TOKENS)
    rows = [random_log_probs(T, len(TOKENS), seed=T) for T in (20, 7, 33)]
    config = BeamConfig(size=6)
    together = batched_decode(pad(rows), TOKENS, config, 6, lm, 0.5)
    for row, mine in zip(rows, together, strict=True):
        same(mine, batched_decode(pad([row]), TOKENS, config, 6, lm, 0.5)[0])


def test_a_language_model_of_other_units_is_refused() -> None:
    with pytest.raises(ConfigError, match="of the recogniser's tokens"):
        batched_decode(
            pad([random_log_probs(3, 4)]), SPELLED, BeamConfig(), 1, language_model(TOKENS), 1.0
        )


@pytest.mark.gpu
def test_the_same_on_a_gpu() -> None:
    rows = [random_log_probs(T, len(TOKENS), seed=T) for T in (50, 31)]
    config, lm = BeamConfig(size=16), language_model(TOKENS)
    here = batched_decode(pad(rows), TOKENS, config, 16, lm, 0.5)
    lm.model.cuda()
    there = batched_decode(pad(rows).to("cuda"), TOKENS, config, 16, lm, 0.5)
    for mine, other in zip(here, there, strict=True):
        assert [row.ids for row in mine[:4]] == [row.ids for row in other[:4]]
