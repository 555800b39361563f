"""Confidences: shares of the beam, a scale that fits, and a measure of their truth.

Covers `asr/evaluation/confidence.py`, `asr/evaluation/reliability_plot.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.decoding.confidence import SUREST, gather
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.evaluation.confidence import Calibration, calibration, fit_scale
from asr.evaluation.reliability_plot import write_picture
from asr.padded import pad
from tests.tones import untrained_bundle


def test_a_word_is_as_sure_as_the_texts_that_have_it() -> None:
    scores = [math.log(0.6), math.log(0.3), math.log(0.1)]
    evidence = gather("a b c", ["a b c", "a x c", "b c"], scores)
    assert evidence.confidences(1.0) == pytest.approx([0.9, 0.7, SUREST])
    flat = evidence.confidences(1e-9)
    assert flat == pytest.approx([2 / 3, 2 / 3, SUREST])


def test_texts_without_words() -> None:
    assert gather("", ["", "a"], [-1.0, -2.0]).confidences(1.0).tolist() == []
    assert gather("a", ["a", ""], [0.0, 0.0]).confidences(1.0) == pytest.approx([0.5])
    assert fit_scale([], []) == 1.0
    # A word of joiners alone is none for the alignment.
    assert gather("می \u200c", ["می \u200c"], [0.0]).confidences(1.0).tolist() == [
        SUREST,
        1 - SUREST,
    ]


def test_the_scale_makes_up_for_too_much_certainty() -> None:
    # Says 95 %, and is right in 75 % of the cases.
    evidence = [gather("a", ["a", "b"], [math.log(0.95), math.log(0.05)])] * 4
    right = [[True], [True], [True], [False]]
    scale = fit_scale(evidence, right)
    assert pytest.approx(float(evidence[0].confidences(scale)[0]), abs=0.03) == 0.75
    assert fit_scale(evidence, [[True]] * 4) == 2.0


def test_calibration_error() -> None:
    # Guo et al. 2017, equation 3, by hand: 2/5 * |0.95 - 0.5| + 3/5 * |0.35 - 2/3|.
    result = calibration([0.95, 0.95, 0.35, 0.35, 0.35], [True, False, True, True, False])
    assert result.error == pytest.approx(0.4 * 0.45 + 0.6 * (2 / 3 - 0.35), abs=1e-6)
    assert result.words == 5
    assert result.mean_confidence == pytest.approx(0.59, abs=1e-6)
    assert result.right == pytest.approx(0.6, abs=1e-6)
    assert calibration([], []) == Calibration(())
    assert Calibration(()).error == 0.0
    assert calibration([1.0], [True]).bins[0].words == 1


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_a_decoder_hears_what_it_writes(kind: str) -> None:
    tokens = untrained_bundle().tokens
    torch.manual_seed(0)
    rows = [3 * torch.randn(T, len(tokens)) for T in (1, 12, 30)]
    log_probs = pad([row.log_softmax(dim=1) for row in rows])
    decoder = Decoder(tokens, DecoderConfig.model_validate({"kind": kind}))
    found = decoder.hypotheses(log_probs)
    assert [row.text for row in found] == decoder.texts(log_probs)
    for row in found:
        assert len(row.confidences) == len(row.text.split())
        assert all(0 < sure < 1 for sure in row.confidences)
    assert len({round(sure, 3) for row in found for sure in row.confidences}) > 3


def test_reliability_picture(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.3, 1.0, 500)
    result = calibration(sure.tolist(), (random.random(500) < sure**2).tolist())
    write_picture(result, tmp_path / "picture.png", "a title of $1 to_$5.jsonl")
    write_picture(Calibration(()), tmp_path / "empty.png", "nothing recognised")
    assert (tmp_path / "empty.png").stat().st_size > 1000
