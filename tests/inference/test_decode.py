"""Decoding a dataset: by id, past bad recordings, and the model left as it came.

Covers `asr/evaluation/evaluate.py`, `asr/inference/word_times.py`, `asr/inference/acoustics.py`,
`asr/inference/recognize_dataset.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.audio.load import load_audio
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.config import RescoreConfig
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.rescoring import Scored
from asr.errors import AudioError
from asr.evaluation import evaluate as evaluation
from asr.evaluation.error_rate import Scores, score
from asr.evaluation.evaluate import evaluate
from asr.evaluation.normalise import Profile, Rules
from asr.evaluation.scoring import Scoring
from asr.inference import decode
from asr.inference.decode import decode_dataset, score_dataset, score_waves
from asr.inference.recognize_dataset import recognize_dataset
from asr.inference.word_times import recognize_waves
from asr.io.files import read_json
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel
from asr.models.bundle import Bundle, load_bundle
from asr.padded import Padded, pad
from asr.text.normalise import TextConfig
from tests.tones import RATE, one_thread, trained_tones


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(trained_tones(tmp_path_factory.getbasetemp())[1])


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    return list(read_manifest(trained_tones(tmp_path_factory.getbasetemp())[0]["test"]))


def dataset(utterances: list[Utterance]) -> SpeechDataset:
    return SpeechDataset(utterances, None, TextConfig(), RATE)


def test_hypotheses_go_by_id_and_not_by_place(bundle: Bundle, utterances: list[Utterance]) -> None:
    forward = decode_dataset(bundle.model, dataset(utterances), Decoder(bundle.tokens))
    backward = decode_dataset(bundle.model, dataset(utterances[::-1]), Decoder(bundle.tokens))
    assert forward == backward
    assert forward.keys() == {u.id for u in utterances}
    assert sum(forward[u.id] == u.text for u in utterances) >= 0.8 * len(utterances)


def test_words_that_cannot_be_spelled_in_their_frames_have_times(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = bundle.tokens
    # A character right after a word: read as one word, which is none of the units.
    path = [tokens.units.index(unit) for unit in ("▁high", "▁low", "w")]
    scores = torch.eye(len(tokens))[path].add(1e-4).log()
    monkeypatch.setattr(Bundle, "score", lambda *_: (pad([scores]), None))
    (result,) = recognize_waves(bundle, Decoder(tokens), [np.zeros(RATE, np.float32)])
    assert result.text == "high loww"
    assert [(word.text, word.start, word.end) for word in result.words] == [
        ("high", 0.0, 0.5),
        ("loww", 0.5, 1.0),
    ]


@pytest.mark.parametrize("every_step", [False, True])
def test_a_recurrent_language_model_is_asked_once(
    bundle: Bundle,
    utterances: list[Utterance],
    monkeypatch: pytest.MonkeyPatch,
    every_step: bool,
) -> None:
    torch.manual_seed(0)
    neural = NeuralLm(NeuralModel(NeuralConfig(hidden=4), len(bundle.tokens)).eval(), bundle.tokens)
    rescore = RescoreConfig(weight=0.5, every_step=every_step)
    decoder = Decoder(bundle.tokens, DecoderConfig(kind="beam", rescore=rescore), neural=neural)
    searches = []
    search = Decoder.n_best

    def count(self: Decoder, log_probs: Padded, wanted: int) -> list[list[Scored]]:
        searches.append(wanted)
        return search(self, log_probs, wanted)

    monkeypatch.setattr(Decoder, "n_best", count)
    results, _ = recognize_dataset(bundle.model, dataset(utterances[:4]), decoder)
    assert len(searches) == 1
    texts = decode_dataset(bundle.model, dataset(utterances[:4]), decoder)
    assert {name: row.text for name, row in results.items()} == texts
    for row in results.values():
        assert row.posteriors is not None
        assert [word.text for word in row.words] == row.text.split()


def test_what_nobody_draws_is_not_gathered(bundle: Bundle, utterances: list[Utterance]) -> None:
    waves = [load_audio(u.audio, RATE) for u in utterances[:2]]
    for row in recognize_waves(bundle, Decoder(bundle.tokens), waves):
        assert row.posteriors is None


def test_the_batch_does_not_change_a_hypothesis(
    bundle: Bundle, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = decode_dataset(bundle.model, dataset(utterances), Decoder(bundle.tokens))
    monkeypatch.setattr(decode, "BATCH_SECONDS", 0.01)
    assert decode_dataset(bundle.model, dataset(utterances), Decoder(bundle.tokens)) == together


def test_padding_does_not_change_a_hypothesis(bundle: Bundle, utterances: list[Utterance]) -> None:
    data = dataset(utterances)
    waves = pad([torch.from_numpy(data.waveform(i)).float() / 32768 for i in range(4)])
    garbage = torch.where(waves.mask(), waves.values, torch.nan)
    decoder = Decoder(bundle.tokens)
    clean = decoder.texts(score_waves(bundle.model, waves))
    padded = Padded(garbage, waves.lengths)
    assert decoder.texts(score_waves(bundle.model, padded)) == clean


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_came_in(
    bundle: Bundle, utterances: list[Utterance], training: bool
) -> None:
    evaluated = decode_dataset(bundle.model.eval(), dataset(utterances), Decoder(bundle.tokens))
    before = {name: value.clone() for name, value in bundle.model.state_dict().items()}
    bundle.model.train(training)
    assert decode_dataset(bundle.model, dataset(utterances), Decoder(bundle.tokens)) == evaluated
    assert bundle.model.training is training
    bundle.model.eval()
    after = bundle.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_progress_counts_up_to_all(
    bundle: Bundle, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "BATCH_SECONDS", 2.0)
    told: list[tuple[int, int]] = []
    decode_dataset(
        bundle.model,
        dataset(utterances),
        Decoder(bundle.tokens),
        progress=lambda done, total: told.append((done, total)),
    )
    done = [d for d, _ in told]
    assert len(done) > 1
    assert done == sorted(set(done))
    assert told[-1] == (len(utterances), len(utterances))


def with_bad_ones(utterances: list[Utterance], tmp_path: Path) -> list[Utterance]:
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(b"no audio")
    bad = [
        replace(utterances[0], id="absent", audio=tmp_path / "absent.wav"),
        replace(utterances[1], id="garbage", audio=garbage),
    ]
    return [bad[0], *utterances[:3], bad[1]]


def test_bad_recordings_are_told_and_passed_over(
    bundle: Bundle, utterances: list[Utterance], tmp_path: Path
) -> None:
    told: dict[str, str] = {}
    decoder = Decoder(bundle.tokens)
    hypotheses: dict[str, str] = {}
    for ids, log_probs in score_dataset(
        bundle.model,
        dataset(with_bad_ones(utterances, tmp_path)),
        on_error=lambda name, error: told.update({name: str(error)}),
    ):
        hypotheses.update(zip(ids, decoder.texts(log_probs), strict=True))
    assert hypotheses == decode_dataset(
        bundle.model, dataset(utterances[:3]), Decoder(bundle.tokens)
    )
    assert told.keys() == {"absent", "garbage"}
    assert all(name + ".wav" in reason and "\n" not in reason for name, reason in told.items())


def test_without_anyone_to_tell_a_bad_recording_is_an_error(
    bundle: Bundle, utterances: list[Utterance], tmp_path: Path
) -> None:
    bad = with_bad_ones(utterances, tmp_path)[-1]
    bundle.model.train()
    with pytest.raises(AudioError, match=r"garbage\.wav"):
        decode_dataset(bundle.model, dataset([bad]), Decoder(bundle.tokens))
    assert bundle.model.training
    bundle.model.eval()


# --- the whole evaluation ---


def test_an_evaluation_counts_unreadable_recordings_as_deletions(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance], tmp_path: Path
) -> None:
    model = trained_tones(tmp_path_factory.getbasetemp())[1]
    bad = with_bad_ones(utterances, tmp_path)
    write_manifest(tmp_path / "test.jsonl", bad)
    result = evaluate(model, tmp_path / "test.jsonl", tmp_path / "report")
    assert result.unreadable.keys() == {"absent", "garbage"}
    scores = result.report.scores
    assert set(scores.missing) == {"absent", "garbage"}
    lost = len(bad[0].text.split()) + len(bad[-1].text.split())
    assert scores.words.deletions >= lost
    figures = read_json(tmp_path / "report" / "report.json")
    assert figures["unreadable"].keys() == {"absent", "garbage"}


@pytest.mark.parametrize(("replaced", "times"), [((), 1), ((("low", "lower"),), 2)])
def test_texts_are_aligned_once_unless_they_are_normalised(
    tmp_path_factory: pytest.TempPathFactory,
    utterances: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: tuple[tuple[str, str], ...],
    times: int,
) -> None:
    model = trained_tones(tmp_path_factory.getbasetemp())[1]
    write_manifest(tmp_path / "test.jsonl", utterances[:10])
    aligned = []

    def count(*texts: dict[str, str]) -> Scores:
        aligned.append(texts)
        return score(*texts)

    monkeypatch.setattr(evaluation, "score", count)
    scoring = Scoring(Profile("mine", Rules(replace=replaced)))
    report = evaluate(model, tmp_path / "test.jsonl", scoring=scoring).report
    assert len(aligned) == times
    assert report.calibration.words == sum(len(row.words) for row in report.details.values())


def test_facts_say_what_was_measured(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]
) -> None:
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    facts = evaluate(model, manifests["test"]).report.facts
    assert facts.audio_seconds == pytest.approx(sum(u.duration for u in utterances))
    assert facts.parameters == load_bundle(model).model.parameter_count()
    assert facts.peak_memory_mib is not None
    assert facts.peak_memory_mib > 50
    assert facts.real_time_factor is not None
    assert 0 < facts.real_time_factor < 100
