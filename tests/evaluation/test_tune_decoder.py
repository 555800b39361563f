"""Tuning: the fewest errors on dev, kept in the model's folder, and never on a test set."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from operator import eq
from pathlib import Path

import pytest
import torch

from asr.dataset.manifest import read_manifest, write_manifest
from asr.dataset.splits import refuse_test_set
from asr.decoding.config import RescoreConfig
from asr.decoding.decoder import Decoder
from asr.decoding.folder import load_decoder, save_decoder
from asr.errors import AsrError
from asr.evaluation import tune_decoder
from asr.evaluation.confidence import SCALES
from asr.evaluation.evaluate import evaluate
from asr.evaluation.tune_decoder import Trial, picture_folder, tune, write_tuning
from asr.io.files import read_json
from asr.lm.estimate import estimate
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, save_neural
from asr.lm.storage import save_ngram
from asr.models.acoustic import AcousticModel
from asr.models.attention_decoder import Attended
from asr.models.bundle import load_bundle, save_bundle
from asr.padded import Padded
from tests.commands import Command

Tones = tuple[dict[str, Path], Path]


@pytest.fixture
def model(tones: Tones, tmp_path: Path) -> Path:
    """The model of tones, alone in a folder, with a language model beside it."""
    manifests, model = tones
    shutil.copytree(model, tmp_path / "run" / "model")
    texts = [utterance.text for utterance in read_manifest(manifests["train"])]
    save_ngram(tmp_path / "lm", estimate(texts, 2))
    return tmp_path / "run" / "model"


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.usefixtures("small_grid")
def test_the_best_settings_are_found_and_used(tones: Tones, model: Path, tmp_path: Path) -> None:
    dev = tones[0]["dev"]
    tokens = load_bundle(model).tokens
    told: list[tuple[int, int]] = []
    decoder = load_decoder(model, tokens, lm=tmp_path / "lm")
    result = tune(model, dev, decoder, lambda done, total: told.append((done, total)))
    assert told == [(i, 8) for i in range(1, 9)]
    surface, beams = result.trials[:6], result.trials[6:]
    assert {(t.weight, t.bonus) for t in surface} == {
        (w, b) for w in tune_decoder.WEIGHTS for b in tune_decoder.BONUSES
    }
    assert min(t.errors for t in surface) == min(
        t.errors for t in surface if (t.weight, t.bonus) == (result.best.weight, result.best.bonus)
    )
    assert result.best.bonus == 0  # at -50 nats a word nothing is written
    assert result.best in beams
    save_decoder(model, result.decoder)
    write_tuning(result, tmp_path / "tuning")
    # The folder's own decoder makes exactly the errors that were promised.
    report = evaluate(model, dev).report
    assert report.scores.words.errors == result.best.errors
    assert f"beam {result.best.size}" in report.facts.decoder
    assert read_json(model / "decoder.json")["confidence_scale"] in SCALES
    written = read_json(tmp_path / "tuning" / "tuning.json")
    assert (written["best"]["errors"], written["units"]) == (result.best.errors, "words")
    assert (tmp_path / "tuning" / "tuning.png").stat().st_size > 10_000


@pytest.mark.usefixtures("small_grid")
def test_an_attention_decoder_is_weighed_too(
    run: Command, tones: Tones, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(model)
    known, dev = bundle.model, tones[0]["dev"]
    config = known.config.model_copy(update={"attention_decoder": 8})
    own = AcousticModel(known.features.config, config, len(bundle.tokens)).eval()
    own.load_state_dict(known.state_dict(), strict=False)
    with torch.no_grad():  # so that it makes errors
        own.output.weight += 0.5 * torch.randn(own.output.weight.shape, generator=random())
    save_bundle(model, replace(bundle, model=own))
    right = [bundle.tokens.encode(u.text) for u in read_manifest(dev)]
    monkeypatch.setattr(tune_decoder, "RANKED_SIZE", 4)

    def alike(ids: Sequence[int]) -> float:
        """Tokens in common with the text of dev that is most like these, less those too many."""
        return max(sum(map(eq, ids, row)) - abs(len(ids) - len(row)) for row in right)

    def knows(heard: Attended, found: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        return [[10.0 * alike(ids) for ids in rows] for rows in found]

    def knows_nothing(
        heard: Attended, found: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        return [[0.0 for _ in rows] for rows in found]

    errors = []
    for score in (knows_nothing, knows):
        with monkeypatch.context() as patch:
            patch.setattr(Attended, "text_scores", score)
            assert ", attention decoder with weight" in run("tune", model, dev).out
            best = read_json(model.parent / "model-tuning" / "tuning.json")["best"]
            report = evaluate(model, dev).report
            assert report.scores.words.errors == best["errors"]
            assert ("attention decoder" in report.facts.decoder) == (best["attention"] > 0)
            errors.append(best["errors"])
    assert errors[1] < errors[0]
    assert best["attention"] > 0


@pytest.mark.usefixtures("small_grid")
def test_a_recurrent_language_model_is_weighed_too(
    run: Command, tones: Tones, model: Path, tmp_path: Path
) -> None:
    dev = tones[0]["dev"]
    texts = [tones[0]["train"], "--dev", dev, "--model", model, "--out", tmp_path / "lstm"]
    small = ["--set", "epochs=2", "--set", "model.hidden=8"]
    assert run("lm", "train", *texts, *small).status == 0
    ended = run("tune", model, dev, "--lm", tmp_path / "lm", "--rescore", tmp_path / "lstm")
    assert "rescored" in ended.out
    best = read_json(tmp_path / "run" / "model-tuning" / "tuning.json")["best"]
    report = evaluate(model, dev).report
    assert report.scores.words.errors == best["errors"]
    # One that gains nothing is not kept.
    kept = "language model of lstm cells for rescoring" in report.facts.decoder
    assert kept == (model / "lstm").exists() == ("not rescored" not in ended.out)


@pytest.mark.usefixtures("small_grid")
def test_a_recurrent_language_model_that_gains_nothing_stays_in_the_folder(
    run: Command, tones: Tones, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = load_bundle(model).tokens
    save_neural(model / "lstm", NeuralLm(NeuralModel(NeuralConfig(hidden=4), len(tokens)), tokens))
    weights = {path.name: path.read_bytes() for path in (model / "lstm").iterdir()}
    useless = RescoreConfig(weight=0, word_bonus=0)
    monkeypatch.setattr(
        tune_decoder, "_rescored", lambda *given: replace(given[4], rescore=useless)
    )
    dev = tones[0]["dev"]
    for expected in ("not rescored", ""):  # the second time it is not tried
        ended = run("tune", model, dev, "--lm", tmp_path / "lm")
        assert ended.status == 0
        assert expected in ended.out
        assert f"not used, but kept: {model / 'lstm'}" in ended.err
        assert {path.name: path.read_bytes() for path in (model / "lstm").iterdir()} == weights
        assert load_decoder(model, tokens).neural is None
    assert load_decoder(model, tokens, rescore=model / "lstm").neural is not None


@pytest.mark.usefixtures("small_grid")
def test_a_recurrent_language_model_may_choose_from_a_larger_beam(
    tones: Tones, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = load_bundle(model).tokens
    vocabulary = NeuralModel(NeuralConfig(hidden=4), len(tokens))
    save_neural(tmp_path / "lstm", NeuralLm(vocabulary, tokens))
    monkeypatch.setattr(tune_decoder, "RANKED_SIZE", 4)

    def ranked(
        decoder: Decoder, neural: NeuralLm, scores: Padded, count: object, start: Trial
    ) -> Trial:
        # As if only the larger one had the right text in it.
        errors = start.errors if start.size < 4 else -1
        return replace(start, errors=errors, rescore=RescoreConfig(weight=0.3))

    monkeypatch.setattr(tune_decoder, "_rescored", ranked)
    decoder = load_decoder(model, tokens, lm=tmp_path / "lm", rescore=tmp_path / "lstm")
    best = tune(model, tones[0]["dev"], decoder).best
    assert (best.size, best.errors) == (4, -1)


def test_of_equals_the_middle_of_the_plain_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_decoder, "WEIGHTS", (0, 1, 2, 3))
    monkeypatch.setattr(tune_decoder, "BONUSES", (0,))
    trials = [Trial(weight, 0, 1, errors) for weight, errors in enumerate((9, 5, 5, 6))]
    assert tune_decoder._most_robust(trials).weight == 2


@pytest.mark.usefixtures("small_grid")
def test_the_command_keeps_the_decoder(
    run: Command, tones: Tones, model: Path, tmp_path: Path
) -> None:
    ended = run("tune", model, tones[0]["dev"], "--lm", tmp_path / "lm")
    assert ended.status == 0
    assert ended.out.startswith("weight ")
    assert (model / "decoder.json").is_file()
    assert (model.parent / "model-tuning" / "tuning.png").is_file()
    recording = read_manifest(tones[0]["dev"])[0]
    assert run("transcribe", recording.audio, "--model", model).out.strip() == recording.text
    greedy = run("evaluate", model, tones[0]["dev"], "--decoder", "greedy")
    assert "decoder       greedy" in greedy.out
    assert "decoder       beam" in run("evaluate", model, tones[0]["dev"]).out
    assert "omit the rest" in run("tune", model, tones[0]["dev"], "--reset").error()
    assert (model / "lm").is_dir()
    assert run("tune", model, "--reset").status == 0
    names = {path.name for path in model.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokens.json", "info.json"}
    assert "decoder       greedy" in run("evaluate", model, tones[0]["dev"]).out
    assert "name its manifest" in run("tune", model).error()


def test_every_model_has_a_picture_of_its_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert picture_folder(Path("exp/a")) == Path("exp/a-tuning")
    monkeypatch.chdir(model)
    assert picture_folder(Path()) == model.parent / "model-tuning"


def test_what_is_tested_on_is_refused(tones: Tones, model: Path, tmp_path: Path) -> None:
    manifests, _ = tones
    utterances = [
        replace(u, audio=Path(shutil.copy(u.audio, tmp_path)))
        for u in read_manifest(manifests["dev"])
    ]
    named = tmp_path / "my-test.jsonl"
    write_manifest(named, utterances)
    with pytest.raises(AsrError, match="which its name marks as a test set"):
        refuse_test_set(model, named, utterances)
    plain = tmp_path / "other.jsonl"
    write_manifest(plain, utterances)
    refuse_test_set(model, plain, utterances)
    for folder in ("test-clean", "an4test_clstk", "eval"):
        moved = [
            replace(u, audio=tmp_path / "corpus" / folder / "speaker" / "a.wav") for u in utterances
        ]
        with pytest.raises(AsrError, match=f"the folder {folder} of its recordings"):
            refuse_test_set(model, plain, moved)
        refuse_test_set(model, plain, [replace(u, extra={"part": "dev"}) for u in moved])
    for folder in ("tester", "attested", "evaluator", "dev", "latest", "contest", "greatest hits"):
        moved = [
            replace(u, audio=tmp_path / "corpus" / folder / "speaker" / "a.wav") for u in utterances
        ]
        refuse_test_set(model, plain, moved)
    evaluate(model, plain, model.parent / "test")
    with pytest.raises(AsrError, match=r"the report .*report\.json marks as a test set"):
        refuse_test_set(model, plain, utterances)


def test_without_a_beam_there_is_nothing_to_tune(tones: Tones, model: Path) -> None:
    decoder = load_decoder(model, load_bundle(model).tokens)
    with pytest.raises(AsrError, match="expected a decoder with a beam"):
        tune(model, tones[0]["dev"], decoder)


@pytest.mark.usefixtures("small_grid")
def test_a_folder_that_cannot_be_written_is_told_at_once_and_costs_no_choice(
    run: Command, tones: Tones, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    arguments = ["tune", model, tones[0]["dev"], "--lm", tmp_path / "lm"]
    with monkeypatch.context() as patch:
        patch.setattr(tune_decoder, "tune", lambda *_: pytest.fail("tuned in vain"))
        assert "choose another --out" in run(*arguments, "--out", tmp_path / "taken").error()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "tuning.png")

    monkeypatch.setattr(tune_decoder, "write_tuning", full)
    assert run(*arguments).status == 1
    assert (model / "decoder.json").is_file()


def test_what_cannot_be_tuned_leaves_the_model_alone(
    run: Command, tones: Tones, model: Path, tmp_path: Path
) -> None:
    rows = [replace(row, text="") for row in read_manifest(tones[0]["dev"])[:2]]
    mute = tones[0]["dev"].with_name("mute.jsonl")
    write_manifest(mute, rows)
    lm = ["--lm", tmp_path / "lm"]
    assert "got none" in run("tune", model, mute, *lm).error()
    tokens = load_bundle(model).tokens
    save_neural(
        tmp_path / "lstm", NeuralLm(NeuralModel(NeuralConfig(hidden=4), len(tokens)), tokens)
    )
    every = ["--rescore", tmp_path / "lstm", "--set", "rescore.every_step=true"]
    assert "omit it" in run("tune", model, tones[0]["dev"], *every).error()
    assert not (model / "decoder.json").exists()
