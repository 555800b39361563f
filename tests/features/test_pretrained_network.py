"""Hidden states against transformers, which computes one utterance at a time exactly. Its import
takes four seconds: tests that need it are slow.

Covers `asr/features/pretrained_config.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr.features.pretrained import PretrainedFeatures
from asr.features.pretrained_files import load_network, read_network, read_structure
from asr.features.pretrained_network import build, hidden_states, normalise_waves, output_lengths
from asr.padded import Padded, pad
from tests.contracts import assert_contract, ragged
from tests.pretrained import LARGE, SMALL, WAVLM, write_network

STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2 base": ("wav2vec2", {}),
    "wav2vec2 large": ("wav2vec2", LARGE),
    "hubert base": ("hubert", {}),
    "hubert large": ("hubert", LARGE),
    "wavlm base": ("wavlm", WAVLM),
    "wavlm large": ("wavlm", WAVLM | LARGE),
}
WAVES = [torch.from_numpy(np.random.default_rng(n).normal(0.1, 0.3, n)).float()
         for n in (4000, 1700, 130)]  # fmt: skip


def reference(kind: str, settings: dict[str, Any]) -> Any:
    """A model of transformers with random weights, also where it begins with ones and zeros."""
    import transformers

    config, model = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
    }[kind]
    torch.manual_seed(1)
    made = model(config(**(SMALL | settings))).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def saved(folder: Path, model: Any, **how: Any) -> Path:
    from transformers import Wav2Vec2FeatureExtractor

    model.save_pretrained(folder, **how)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def ours(folder: Path) -> Callable[[Padded], Padded]:
    description = read_network(folder, "x")
    network = build(description)
    load_network(network, folder)
    return torch.no_grad()(lambda waves: hidden_states(network, description, waves))


def theirs(model: Any, wave: Tensor) -> Tensor:
    """Shape: [S] -> [T, L + 1, D]. The last one is `last_hidden_state`: since version 5, that of
    `hidden_states` lacks the normalisation after the last layer."""
    normalised = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
    with torch.no_grad():
        made = model(normalised[None], output_hidden_states=True)
    return torch.stack([*made.hidden_states[:-1], made.last_hidden_state], dim=2)[0]


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_every_layer_is_that_of_transformers(style: str, tmp_path: Path) -> None:
    model = reference(*STYLES[style])
    computed = ours(saved(tmp_path, model))(pad(WAVES))
    assert len(computed.values[0, 0]) == SMALL["num_hidden_layers"] + 1
    for wave, states in zip(WAVES, computed.unpad(), strict=True):
        torch.testing.assert_close(states, theirs(model, wave), rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_parts_halves_prefixes_and_former_names_are_read(tmp_path: Path) -> None:
    model = reference("wav2vec2", {})
    expected = ours(saved(tmp_path / "whole", model))(pad(WAVES)).values
    parts = saved(tmp_path / "parts", model, max_shard_size="10KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(ours(parts)(pad(WAVES)).values, expected)
    path = tmp_path / "whole" / "model.safetensors"
    weights = load_file(path)
    conv = "encoder.pos_conv_embed.conv."
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        weights[conv + old] = weights.pop(f"{conv}parametrizations.weight.{new}")
    weights = {f"wav2vec2.{name}": tensor for name, tensor in weights.items()}
    weights["lm_head.weight"] = torch.zeros(3, 3)
    save_file(weights, path)
    torch.testing.assert_close(ours(path.parent)(pad(WAVES)).values, expected)
    save_file({name: tensor.half() for name, tensor in weights.items()}, path)
    torch.testing.assert_close(ours(path.parent)(pad(WAVES)).values, expected, rtol=0.1, atol=0.05)


@pytest.mark.slow
def test_their_own_batch_depends_on_its_padding(tmp_path: Path) -> None:
    """What ours must not do: the group norm of base models sees the padding."""
    model = reference("wav2vec2", {})
    together = torch.nn.utils.rnn.pad_sequence(WAVES[:2], batch_first=True)
    with torch.no_grad():
        batch = model(together).last_hidden_state[1]
        alone = model(WAVES[1][None]).last_hidden_state[0]
    assert (batch[: len(alone)] - alone).abs().max() > 0.01


@pytest.mark.parametrize("style", ["wav2vec2 base", "wav2vec2 large", "wavlm base"])
def test_the_contract(style: str, tmp_path: Path) -> None:
    kind, settings = STYLES[style]
    folder = write_network(tmp_path / "network", kind, **settings)
    layer = PretrainedFeatures(read_network(folder, ""))
    load_network(layer.network, folder)
    layer.fine_tunes = True

    def lengths(samples: Tensor) -> Tensor:
        return output_lengths(layer.description, samples)

    assert_contract(layer, ragged([400, 181, 45, 44, 0]), lengths, tolerance=2e-5)


def test_lengths_are_those_of_the_convolutions(tmp_path: Path) -> None:
    description = read_network(write_network(tmp_path / "network"), "")
    assert (description.shift, description.window) == (20, 45)
    samples = torch.tensor([0, 44, 45, 64, 65, 8000])
    assert output_lengths(description, samples).tolist() == [0, 0, 1, 1, 2, 398]


def test_waveforms_are_normalised_over_their_own_samples() -> None:
    waves = normalise_waves(Padded(torch.tensor([[1.0, 3.0, 9.0], [5.0, 5.0, 5.0]]),
                                   torch.tensor([2, 3])))  # fmt: skip
    expected = torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(waves.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_settings_that_transformers_leaves_out_have_its_defaults(tmp_path: Path) -> None:
    import transformers

    folder = write_network(tmp_path / "network")
    for kind, config in (("wav2vec2", transformers.Wav2Vec2Config),
                         ("hubert", transformers.HubertConfig),
                         ("wavlm", transformers.WavLMConfig)):  # fmt: skip
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        bare = read_structure(folder, "")
        (folder / "config.json").write_text(json.dumps(config().to_dict()))
        full = read_structure(folder, "")
        assert full.model_copy(update={"sha256": bare.sha256}) == bare
