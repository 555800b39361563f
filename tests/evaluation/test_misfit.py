"""Wrong transcripts are ranked worst, and shown with what the model writes.

Covers `asr/evaluation/check_page.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.dataset.manifest import Utterance, read_manifest
from asr.decoding.decoder import Decoder
from asr.errors import AudioError
from asr.evaluation.check_page import write_check_page
from asr.evaluation.misfit import Ranked, misfits, rank, with_findings, write_ranking
from asr.models.bundle import Bundle, load_bundle
from asr.padded import Padded
from asr.text.tokens import BLANK_ID
from tests.tones import one_thread, trained_tones

OTHER = {"low": "high", "high": "low", "up": "down", "down": "up"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(trained_tones(tmp_path_factory.getbasetemp())[1])


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    manifests, _ = trained_tones(tmp_path_factory.getbasetemp())
    return list(read_manifest(manifests["test"]))


def ranking(bundle: Bundle, rows: list[Utterance]) -> tuple[list[Ranked], list[str]]:
    bad: list[str] = []

    def on_error(name: str, error: AudioError) -> None:
        bad.append(f"{name}: {error}")

    with one_thread():
        return rank(bundle, Decoder(bundle.tokens), rows, on_error), bad


def test_a_misfit_is_the_loss_of_a_token() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 7, 4).log_softmax(-1)
    lengths = torch.tensor([7, 5, 2])
    targets = [[1, 2, 2], [3], []]
    found = misfits(Padded(scores, lengths), targets)
    for row, length, target, misfit in zip(scores, lengths, targets, found, strict=True):
        loss = nn.functional.ctc_loss(
            row[:length, None], torch.tensor([target]), length[None], torch.tensor([len(target)]),
            blank=BLANK_ID, reduction="sum",
        )  # fmt: skip
        assert misfit == pytest.approx(float(loss) / max(1, len(target)), rel=1e-5)
    assert misfits(Padded(scores, lengths), [[], [], [1, 1]])[2] == math.inf


def test_wrong_transcripts_come_first(bundle: Bundle, utterances: list[Utterance]) -> None:
    wrong = {u.id for u in utterances[::5]}
    rows = [
        replace(u, text=" ".join(OTHER[word] for word in u.text.split())) if u.id in wrong else u
        for u in utterances
    ]
    ranked, bad = ranking(bundle, rows)
    assert not bad
    assert {row.utterance.id for row in ranked[: len(wrong)]} == wrong
    assert [row.misfit for row in ranked] == sorted((r.misfit for r in ranked), reverse=True)
    spoken = {u.id: u.text for u in utterances}
    assert all(row.hypothesis == spoken[row.utterance.id] for row in ranked)
    worst = with_findings(ranked[0])
    assert worst.extra["hypothesis"] == ranked[0].hypothesis
    assert worst.extra["misfit"] == pytest.approx(ranked[0].misfit, abs=1e-4)


def test_what_cannot_be_aligned_is_worst(
    bundle: Bundle, utterances: list[Utterance], tmp_path: Path
) -> None:
    long = replace(utterances[3], text="low high " * 40)
    unknown = replace(utterances[4], text="low xyz")
    gone = replace(utterances[5], audio=tmp_path / "gone.wav")
    ranked, bad = ranking(bundle, [*utterances[:3], long, unknown, gone])
    assert [row.utterance.id for row in ranked[:2]] == [long.id, unknown.id]
    assert all(math.isinf(row.misfit) for row in ranked[:2])
    assert "more tokens than" in ranked[0].problem
    assert "got 'xyz'" in ranked[1].problem
    assert len(ranked) == 5
    (line,) = bad
    assert line.startswith(gone.id)
    assert with_findings(ranked[1]).extra["misfit"] is None
    written = write_ranking(tmp_path, ranked, utterances, 2)
    assert [u.id for u in read_manifest(written["check"])] == [long.id, unknown.id]
    assert [u.id for u in read_manifest(written["rest"])] == [u.id for u in utterances[:3]]
    assert write_ranking(tmp_path, ranked, utterances, 5).keys() == {"check"}
    assert not (tmp_path / "rest.jsonl").exists()


def test_the_page(utterances: list[Utterance], tmp_path: Path) -> None:
    strange = replace(utterances[0], id="<b>one</b>", text="Low <i>high</i>")
    rows = [
        Ranked(strange, 3.25, "low <i>high</i>", "low low"),
        Ranked(utterances[1], math.inf, "up", "", "it does not fit"),
        Ranked(replace(utterances[2], audio=tmp_path / "gone.wav"), 1.0, "up", "up"),
    ]
    write_check_page(tmp_path / "check.html", rows, Path("exp/model"), Path("train.jsonl"), 1.0)
    page = (tmp_path / "check.html").read_text()
    assert "<i>" not in page
    assert "<b>one" not in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert '<del class="S">&lt;i&gt;high&lt;/i&gt;</del> <ins class="S">low</ins>' in page
    assert "transcript: Low &lt;i&gt;high&lt;/i&gt;" in page
    assert '<del class="D">up</del>' in page
    assert page.count("<audio controls") == 3
    assert page.count("data:audio/flac;base64,") == 2
    assert 'src="gone.wav"' in page
    assert all(text in page for text in ("3.25", "∞", "it does not fit", "train.jsonl to check"))
    write_check_page(tmp_path / "check.html", rows, Path("exp/model"), Path("train.jsonl"), 0.0)
    assert "data:audio" not in (tmp_path / "check.html").read_text()
    write_check_page(tmp_path / "check.html", [], Path("exp/model"), Path("train.jsonl"), 0.0)


def test_the_problem_of_an_earlier_round_is_forgotten(utterances: list[Utterance]) -> None:
    corrected = replace(utterances[0], extra={"problem": "got '@'", "room": "hall"})
    found = with_findings(Ranked(corrected, 0.3, "low", "low"))
    assert found.extra == {"room": "hall", "misfit": 0.3, "hypothesis": "low"}
