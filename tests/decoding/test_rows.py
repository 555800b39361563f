"""Log-probabilities as arrays give the texts of tensors, without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from asr.decoding.config import BeamConfig, RescoreConfig
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.greedy import greedy_decode
from asr.decoding.incremental import IncrementalDecoder
from asr.decoding.rows import as_rows
from asr.errors import ConfigError
from asr.lm.estimate import estimate
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel
from asr.padded import pad
from asr.text.tokens import Tokens

TOKENS = Tokens(("<blank>", "▁", "a", "b"))


def scores() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(n, len(TOKENS)).mul(3).log_softmax(dim=1) for n in (9, 1, 30)]


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_arrays_give_the_results_of_tensors(kind: str) -> None:
    config = DecoderConfig.model_validate({"kind": kind, "hot_words": {"ab": 2.0}})
    decoder = Decoder(TOKENS, config)
    batch = pad(scores())
    rows = [row.numpy() for row in scores()]
    assert [row.tolist() for row in as_rows(batch)] == [row.tolist() for row in rows]
    assert greedy_decode(rows) == greedy_decode(batch)
    assert decoder.texts(rows) == decoder.texts(batch)
    assert decoder.hypotheses(rows) == decoder.hypotheses(batch)
    steps = IncrementalDecoder(decoder), IncrementalDecoder(decoder)
    assert steps[0].push(rows[2]) == steps[1].push(scores()[2])
    assert steps[0].finish() == decoder.texts([rows[2]])[0]


def test_a_language_model_at_every_step_needs_torch() -> None:
    config = DecoderConfig(
        kind="beam", beam=BeamConfig(size=2), rescore=RescoreConfig(every_step=True)
    )
    lm = NeuralLm(NeuralModel(NeuralConfig(hidden=4), len(TOKENS)).eval(), TOKENS)
    with pytest.raises(ConfigError, match=r"rescore\.every_step, got an exported one"):
        Decoder(TOKENS, config, neural=lm).texts([np.zeros((3, len(TOKENS)), np.float32)])


def test_decoding_and_alignment_do_not_import_torch() -> None:
    code = "import asr.decoding.folder, asr.ctc.align, asr.inference.onnx_model, sys; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_closed_vocabulary_made_final_stays() -> None:
    tokens = Tokens(("<blank>", "▁", "a", "b", "c"))
    closed = estimate(["ab cab", "ab", "cab ab"] * 3, 2, closed=True)
    decoder = Decoder(tokens, DecoderConfig(kind="beam", beam=BeamConfig(size=8)), closed)
    for seed in range(60):
        torch.manual_seed(seed)
        log_probs = torch.randn(20, len(tokens)).mul(3).log_softmax(dim=1)
        stream, before = IncrementalDecoder(decoder), ""
        for part in log_probs.split(2):
            final, best = stream.push(part)
            assert final.startswith(before)
            assert best.startswith(final)
            before = final
        assert stream.finish().startswith(before)
