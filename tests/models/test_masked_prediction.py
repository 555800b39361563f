"""Labels of masked prediction, masks, and the folder of a pretrained encoder.

Covers `asr/models/encoder_folder.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig
from asr.models import masked_prediction
from asr.models.bundle import load_bundle
from asr.models.config import ModelConfig
from asr.models.encoder_folder import load_encoder, save_encoder
from asr.models.files import is_encoder
from asr.models.masked_prediction import (
    MaskedPrediction,
    SpeechEncoder,
    audible,
    draw_mask,
    masked,
    windows,
)
from asr.padded import Padded, pad

RATE = 8000
FEATURES = FeatureConfig(sample_rate=RATE, bands=8)


def network(features: FeatureConfig = FEATURES, **model: Any) -> MaskedPrediction:
    torch.manual_seed(0)
    settings = {"channels": (2,), "strides": (3,), "layers": 2, "hidden": 4, "dropout": 0.0}
    body = SpeechEncoder(features, ModelConfig(**(settings | model)))
    return MaskedPrediction(body, 3, 16, 4, seed=5)


def noises(*seconds: float) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(int(s * RATE), generator=random) * 0.1 for s in seconds]


@pytest.mark.parametrize("cmvn", ["none", "utterance", "global"])
def test_labels_depend_neither_on_the_batch_nor_on_padding(cmvn: str) -> None:
    model = network(FeatureConfig(sample_rate=RATE, bands=8, cmvn=cmvn))
    waves = noises(0.5, 1.0, 0.13, 0.02)
    together = pad(waves)
    model.body.features.observe(together)
    dirty = Padded(together.values.clone(), together.lengths)
    dirty.values[~together.mask()] = torch.nan
    rows = model.label(model.body.features(dirty)).unpad()
    for wave, row in zip(waves, rows, strict=True):
        alone = model.label(model.body.features(pad([wave])))
        assert torch.equal(alone.values[0], row)
    assert len(rows[1].unique()) > 4


def test_labels_are_those_of_the_seed_and_are_never_trained() -> None:
    first, again = network(), network()
    x = first.body.features(pad(noises(1.0)))
    assert torch.equal(first.label(x).values, again.label(x).values)
    other = MaskedPrediction(first.body, 3, 16, 4, seed=6)
    assert not torch.equal(first.label(x).values, other.label(x).values)
    assert not any(name.startswith("labels.") for name, _ in first.named_parameters())


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"channels": (2, 2), "strides": (2, 1), "pyramid": 1},
        {"chunk": 4, "right_context": 2},
        {"bidirectional": False, "lookahead": 2},
        {"directions": "alternating"},
    ],
    ids=["plain", "pyramid", "chunk", "forward", "alternating"],
)
def test_a_label_for_every_frame_of_the_encoder(model: dict[str, Any]) -> None:
    net = network(FEATURES.model_copy(update={"cmvn": "global"}), **model)
    waves = pad(noises(0.5, 0.31, 0.02))
    features = net.body.features(waves)
    labels, hidden = net.label(features), net.body.encoder(features)
    assert labels.lengths.tolist() == hidden.lengths.tolist()
    assert labels.values.shape[1] == hidden.values.shape[1]
    found = net(waves, features, 3, 0.9, 0.1)
    loss = found.loss()
    loss.backward()
    assert loss.item() > 0
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_window_surrounds_the_centre_of_its_frame() -> None:
    x = Padded(torch.arange(1.0, 9)[None, :, None].repeat(2, 1, 1), torch.tensor([8, 4]))
    rows = windows(x, 3)
    assert rows.lengths.tolist() == [3, 2]
    # The convolution with stride 3 has its centres on the first, fourth and seventh frame.
    assert rows.values[0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert rows.values[1, :2].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_the_share_of_masked_frames_is_as_set_everywhere() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([60] * 500 + [20] * 500)
    mask = draw_mask(lengths, 60, 10, 0.4)
    assert not mask[500:, 20:].any()
    for part in (mask[:500, :5], mask[:500, 30:35], mask[:500, -5:], mask[500:, :20]):
        assert float(part.float().mean()) == pytest.approx(0.4, abs=0.05)
    changes = (mask[:500, 1:] != mask[:500, :-1]).sum(dim=1).float()
    assert float(changes.mean()) < 6  # spans, not single frames


def test_masked_frames_are_noise_and_others_stay() -> None:
    x = Padded(torch.full((1, 9, 4), 7.0), torch.tensor([8]))
    mask = torch.tensor([[False, True, False]])
    y = masked(x, mask, 3, 0.1 * torch.randn(1, 9, 4)).values
    changed = (y != 7.0).any(dim=2)[0]
    assert changed.tolist() == [False, False, True, True, True, False, False, False, False]
    assert 0 < float(y[0, 2:5].abs().max()) < 1
    assert not masked(x, mask, 3, torch.zeros(1, 9, 4)).values[0, 2:5].any()


def test_noise_is_that_of_the_features_where_they_are_not_normalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network(FeatureConfig(sample_rate=RATE, bands=8, cmvn="none"))
    waves = pad(noises(2.0))
    features = model.body.features(waves)
    seen = []

    def observed(features: Padded, mask: Tensor, reduction: int, noise: Tensor) -> Padded:
        seen.append(noise)
        return masked(features, mask, reduction, noise)

    monkeypatch.setattr(masked_prediction, "masked", observed)
    model(waves, features, 4, 0.4, 0.1)
    mean, deviation = features.values.mean(dim=1), features.values.std(dim=1)
    assert torch.allclose(seen[0].mean(dim=1), mean, atol=0.05)
    assert torch.allclose(seen[0].std(dim=1), 0.1 * deviation, rtol=0.3)
    assert float(mean.abs().max()) > 1


def test_silence_does_not_count() -> None:
    (noise,) = noises(0.6)
    waves = [torch.cat([noise, torch.full((RATE,), 0.3)]), torch.zeros(RATE), noise]
    net = network()
    batch = pad(waves)
    features = net.body.features(batch)
    labels = net.label(features)
    T, samples = labels.values.shape[1], 3 * net.body.features.shift
    heard = audible(batch, samples, labels.lengths, T)
    assert heard.sum(dim=1).tolist() == pytest.approx([20, 0, 20], abs=2)
    quiet = Padded(batch.values / 1024, batch.lengths)
    with torch.autocast("cpu", dtype=torch.float16):  # as on a GPU
        assert torch.equal(audible(quiet, samples, labels.lengths, T), heard)
    found = net(batch, features, 2, 0.9, 0.1)
    assert not found.counted[1].any()
    assert found.counted[0, :20].any()
    assert int(found.units) == int(found.counted.sum())


def test_silence_alone_has_a_loss_of_zero() -> None:
    net = network()
    waves = pad([torch.zeros(RATE)])
    assert net(waves, net.body.features(waves), 2, 0.9, 0.1).loss().item() == 0.0


def test_a_saved_encoder_is_the_same_and_no_recogniser(tmp_path: Path) -> None:
    net = network(FEATURES.model_copy(update={"cmvn": "global"}))
    net.body.features.observe(pad(noises(0.5)))
    save_encoder(tmp_path / "encoder", net.body, {"hours": 1})
    assert is_encoder(tmp_path / "encoder")
    loaded, info = load_encoder(tmp_path / "encoder")
    assert info == {"hours": 1}
    for name, tensor in net.body.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == [
        "config.json",
        "info.json",
        "model.safetensors",
    ]
    with pytest.raises(CheckpointError, match=r"expected a recogniser, got .*init\.model"):
        load_bundle(tmp_path / "encoder")


def test_damaged_encoders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    save_encoder(folder, network().body, {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 2}))
    with pytest.raises(CheckpointError, match="format"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="expected safetensors"):
        load_encoder(folder)
    assert not is_encoder(tmp_path)
