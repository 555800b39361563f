"""The loss of one step against torch's own, and what must not reach it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import NO_NOISE, Sounds
from asr.ctc.loss import ctc_loss
from asr.dataset.cuts import whole
from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.models.acoustic import AcousticModel
from asr.models.attention_decoder import smoothed_losses
from asr.padded import Padded
from asr.text.normalise import TextConfig
from asr.text.tokens import BLANK_ID
from asr.training import step
from asr.training.loop import Loss
from tests.tones import FEATURES, MODEL, RATE, untrained_bundle, write_corpus

SILENCE = Sounds(RATE, NO_NOISE)
PLAIN = AugmentConfig(speeds=[1.0], vtlp=0.0, concatenate_prob=0.0, time_masks=0, frequency_masks=0)


@pytest.fixture(scope="module")
def tones_batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    manifests = write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 4})
    data = SpeechDataset(
        read_manifest(manifests["train"]), untrained_bundle().tokens, TextConfig(), RATE
    )
    return data.batch([whole(i) for i in range(4)])


@pytest.fixture
def model() -> AcousticModel:
    torch.manual_seed(0)
    return untrained_bundle().model.train()


def loss_of(
    model: AcousticModel, batch: Batch, cr_ctc_weight: float = 0.0, attention_weight: float = 0.3
) -> Loss:
    return step.batch_loss(
        model, batch, PLAIN, cr_ctc_weight, contextlib.nullcontext, SILENCE,
        attention_weight=attention_weight,
    )  # fmt: skip


def test_the_loss_is_nats_a_unit(model: AcousticModel, tones_batch: Batch) -> None:
    loss = loss_of(model, tones_batch)
    log_probs = model(model.features(tones_batch.waves))
    expected = nn.functional.ctc_loss(
        log_probs.values.transpose(0, 1),
        tones_batch.targets.values,
        log_probs.lengths,
        tones_batch.targets.lengths,
        blank=BLANK_ID,
        reduction="none",
    )
    torch.testing.assert_close(loss.items, expected.detach())
    units = tones_batch.targets.lengths.sum()
    torch.testing.assert_close(loss.objective, expected.sum() / units)


def test_a_spelling_layer_adds_its_loss(tones_batch: Batch) -> None:
    torch.manual_seed(0)
    config = MODEL.model_copy(update={"layers": 2, "hierarchical_ctc_layer": 1})
    model = AcousticModel(FEATURES, config, len(untrained_bundle().tokens))
    loss = loss_of(model, tones_batch)
    written, spelled = model.forward_and_spell(model.features(tones_batch.waves))
    assert spelled is not None
    words = ctc_loss(written, tones_batch.targets)
    letters = ctc_loss(spelled, tones_batch.spelled)
    assert tones_batch.spelled.lengths.sum() > 3 * tones_batch.targets.lengths.sum()
    expected = (
        words.sum() / tones_batch.targets.lengths.sum()
        + letters.sum() / tones_batch.spelled.lengths.sum()
    )
    torch.testing.assert_close(loss.objective, expected)
    torch.testing.assert_close(loss.items, words.detach())
    loss.objective.backward()
    assert model.spelling is not None
    assert model.spelling.weight.grad is not None


def test_an_attention_decoder_shares_the_weight_with_ctc(
    model: AcousticModel, tones_batch: Batch
) -> None:
    plain = loss_of(model, tones_batch)
    torch.manual_seed(0)
    config = MODEL.model_copy(update={"attention_decoder": 8})
    own = AcousticModel(FEATURES, config, len(untrained_bundle().tokens)).train()
    own.load_state_dict(model.state_dict(), strict=False)
    decoder, targets = own.attention_decoder, tones_batch.targets
    assert decoder is not None
    hidden = own.encoder(own.features(tones_batch.waves))
    losses = smoothed_losses(decoder(hidden, own.scores(hidden), targets), targets)
    expected = 0.75 * plain.objective + 0.25 * losses.sum() / targets.lengths.sum()
    loss = loss_of(own, tones_batch, attention_weight=0.25)
    torch.testing.assert_close(loss.objective, expected)
    torch.testing.assert_close(loss.items, plain.items)
    # As with CTC: two views of an utterance count as one, and some utterances less or not at all.
    torch.testing.assert_close(loss_of(own, tones_batch, 0.5, 0.25).objective, loss.objective)
    half = loss_of(own, replace(tones_batch, weights=torch.full((4,), 0.5)), 0.0, 0.25)
    torch.testing.assert_close(half.objective, loss.objective / 2)
    loss.objective.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())


def test_intermediate_layers_share_the_loss(tones_batch: Batch) -> None:
    torch.manual_seed(0)
    settings = {"layers": 3, "intermediate_ctc": (1, 2), "self_conditioning": True}
    config = MODEL.model_copy(update=settings)
    model = AcousticModel(FEATURES, config, len(untrained_bundle().tokens))
    loss = step.batch_loss(
        model,
        tones_batch,
        PLAIN,
        0.0,
        contextlib.nullcontext,
        SILENCE,
        intermediate_ctc_weight=0.25,
    )
    written, _, earlier, _ = model.outputs(model.features(tones_batch.waves))
    last, first, second = (
        ctc_loss(scores, tones_batch.targets).sum() for scores in (written, *earlier)
    )
    expected = 0.75 * last + 0.25 * (first + second) / 2
    torch.testing.assert_close(loss.objective, expected / tones_batch.targets.lengths.sum())
    torch.testing.assert_close(loss.items.sum(), last.detach())
    loss.objective.backward()
    assert model.conditioning is not None
    assert model.conditioning.weight.grad is not None
    assert model.conditioning.weight.grad.any()


def test_utterances_count_by_their_weight(model: AcousticModel, tones_batch: Batch) -> None:
    plain = loss_of(model, tones_batch, 0.2)
    equal = loss_of(model, replace(tones_batch, weights=torch.ones(4)), 0.2)
    assert torch.equal(equal.objective, plain.objective)
    weights = torch.tensor([1.0, 0.25, 0.0, 0.5])
    weighted = loss_of(model, replace(tones_batch, weights=weights))
    units = tones_batch.targets.lengths.sum()
    expected = (weights * plain.items).sum() / units
    torch.testing.assert_close(weighted.objective.detach(), expected)
    # The same bits as without weights, if nothing else differs: with two views, another number of
    # utterances may be rounded in another way.
    assert torch.equal(weighted.items, loss_of(model, tones_batch).items)
    # One that does not fit its recording is left out, whatever its weight.
    long = tones_batch.targets.values.repeat(1, 100)
    fits = torch.tensor([True, False, False, True])
    lengths = tones_batch.targets.lengths.where(fits, torch.tensor(long.shape[1]))
    both = replace(tones_batch, targets=Padded(long, lengths), weights=weights)
    loss = loss_of(model, both)
    assert loss.items.isposinf().tolist() == (~fits).tolist()
    kept = (weights * loss.items)[fits].sum() / lengths[fits].sum()
    torch.testing.assert_close(loss.objective.detach(), kept)


def test_padding_does_not_reach_the_loss(model: AcousticModel, tones_batch: Batch) -> None:
    clean = loss_of(model, tones_batch)
    waves = tones_batch.waves
    garbage = torch.where(waves.mask(), waves.values, torch.nan)
    dirty = replace(tones_batch, waves=Padded(garbage, waves.lengths))
    assert torch.equal(loss_of(model, dirty).items, clean.items)


def test_two_equal_views_agree(model: AcousticModel, tones_batch: Batch) -> None:
    alone = loss_of(model, tones_batch)
    twice = loss_of(model, tones_batch, cr_ctc_weight=0.5)
    torch.testing.assert_close(twice.items, alone.items)
    torch.testing.assert_close(twice.objective, alone.objective)


def test_both_views_have_the_same_drawn_chunks(tones_batch: Batch) -> None:
    bundle = untrained_bundle()
    features = FEATURES.model_copy(update={"cmvn": "none"})
    config = MODEL.model_copy(update={"chunk": (2, 30), "right_context": 2, "dropout": 0.0})
    model = AcousticModel(features, config, len(bundle.tokens)).train()
    losses = set()
    for seed in range(6):
        found = []
        for weight in (0.0, 0.5):
            torch.manual_seed(seed)
            found.append(loss_of(model, tones_batch, weight).objective.item())
        assert found[0] == pytest.approx(found[1], rel=1e-5)
        losses.add(found[0])
    assert len(losses) > 3


def test_disagreement_is_the_divergence_of_each_view_from_the_other(
    model: AcousticModel, tones_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = iter([1.0, 0.5])

    def scaled(features: Padded, _: AugmentConfig, mean: float) -> Padded:
        return Padded(features.values * next(gains), features.lengths)

    monkeypatch.setattr(step, "spec_augment", scaled)
    loss = loss_of(model, tones_batch, cr_ctc_weight=0.2)
    features = model.features(tones_batch.waves)
    both = torch.cat([features.values, 0.5 * features.values])
    log_probs = model(Padded(both, features.lengths.repeat(2)))
    first, second = log_probs.values.double().chunk(2)
    mask = log_probs.mask()[: len(first), :, None]
    divergence = (first.exp() * (first - second) + second.exp() * (second - first)) * mask
    units = 2 * tones_batch.targets.lengths.sum()
    ctc = 2 * loss.items.double().sum()
    expected = (ctc + 0.2 * divergence.sum()) / units
    torch.testing.assert_close(loss.objective.double(), expected, rtol=1e-5, atol=1e-6)


def test_masks_have_the_mean_of_features_that_are_not_normalised(
    tones_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Padded, Any]] = []

    def masked(features: Padded, _: AugmentConfig, mean: Any) -> Padded:
        seen.append((features, mean))
        return features

    monkeypatch.setattr(step, "spec_augment", masked)
    for cmvn in ("utterance", "none"):
        features = FEATURES.model_copy(update={"cmvn": cmvn})
        loss_of(AcousticModel(features, MODEL, len(untrained_bundle().tokens)), tones_batch)
    (_, zero), (plain, mean) = seen
    assert zero == 0
    for row, expected in zip(mean, plain.unpad(), strict=True):
        torch.testing.assert_close(row[0], expected.mean(dim=0))


def test_everything_at_once_is_finite_and_repeats(model: AcousticModel, tones_batch: Batch) -> None:
    everything = AugmentConfig(
        tempos=[0.9],
        time_warp=2,
        gain_db=6,
        noise=NoiseConfig(prob=1),
        reverb=ReverbConfig(prob=1),
        telephone_prob=1,
    )
    batch = replace(tones_batch, speeds=[1.1] * 4, tempos=[0.9] * 4)
    sounds = Sounds(RATE, (1000 * torch.randn(RATE)).short())
    losses = []
    for _ in range(2):
        torch.manual_seed(7)
        model.zero_grad()
        loss = step.batch_loss(model, batch, everything, 0.2, contextlib.nullcontext, sounds)
        losses.append(loss.objective.item())
        assert torch.isfinite(loss.items).all()
    assert losses[0] == losses[1]
    assert losses[0] != loss_of(model, tones_batch, 0.2).objective.item()


@pytest.mark.parametrize(("cmvn", "varied"), [("utterance", False), ("global", True)])
def test_the_level_is_varied_only_where_features_follow_it(
    tones_batch: Batch, cmvn: str, varied: bool
) -> None:
    torch.manual_seed(0)
    features = FEATURES.model_copy(update={"cmvn": cmvn})
    model = AcousticModel(features, MODEL, len(untrained_bundle().tokens))
    losses = set()
    for seed in range(3):
        torch.manual_seed(seed)
        louder = PLAIN.model_copy(update={"gain_db": 20.0})
        loss = step.batch_loss(model, tones_batch, louder, 0.0, contextlib.nullcontext, SILENCE)
        losses.add(loss.objective.item())
    assert len(losses) == (3 if varied else 1)
