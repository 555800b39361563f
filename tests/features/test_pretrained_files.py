"""Folders that are damaged, or not supported, get one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import CheckpointError
from asr.features.pretrained_files import load_network, read_network
from asr.features.pretrained_network import build
from tests.pretrained import write_network


def changed(name: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def with_index(value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(value))

    return change


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return rewrite


NORM = "encoder.layer_norm.weight"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown kind": (changed("config.json", model_type="whisper"), "model_type among wav2vec2"),
    "no kind": (changed("config.json", model_type=None), "got none"),
    "activation": (changed("config.json", hidden_act="relu"), "hidden_act 'gelu', got 'relu'"),
    "adapter": (changed("config.json", add_adapter=True), "add_adapter False, got True"),
    "batch norm": (changed("config.json", conv_pos_batch_norm=True), "conv_pos_batch_norm"),
    "epsilon": (changed("config.json", layer_norm_eps=1e-6), "layer_norm_eps"),
    "norm": (changed("config.json", feat_extract_norm="batch"), "conv_norm"),
    "kernels": (changed("config.json", conv_kernel=[10]), "as many kernels"),
    "heads": (changed("config.json", num_attention_heads=5), "heads divide, got 16 by 5"),
    "layers": (changed("config.json", num_hidden_layers=10**9), "layers"),
    "a network of terabytes": (
        changed("config.json", hidden_size=16384, intermediate_size=65536, num_hidden_layers=9),
        "of shape",
    ),
    "strides": (changed("config.json", conv_stride=[1, 1]), "frames of 1 ms or more"),
    "text as a number": (changed("config.json", hidden_size="wide"), "size"),
    "another width": (changed("config.json", intermediate_size=25), "of shape"),
    "another depth": (changed("config.json", num_hidden_layers=3), "got nothing"),
    "spectrograms": (
        changed("preprocessor_config.json", feature_extractor_type="WhisperFeatureExtractor"),
        "Wav2Vec2FeatureExtractor",
    ),
    "no rate": (changed("preprocessor_config.json", sampling_rate=0), "sample_rate"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json, got no such file"),
    "no preprocessor": (
        lambda f: (f / "preprocessor_config.json").unlink(),
        "preprocessor_config.json, got no such file",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors, got no such"),
    "a pickle": (as_pickle, "a pickle, which can run code: convert it where you trust it"),
    "an index to elsewhere": (with_index({"weight_map": {"a": "../other.safetensors"}}), "beside"),
    "an odd index": (with_index({"weight_map": {"a": []}}), "beside"),
    "an empty index": (with_index({"weight_map": {}}), "beside"),
    "an index to a lost part": (with_index({"weight_map": {"a": "x.safetensors"}}), "no such file"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "expected safetensors"),
    "infinite": (weights(lambda w: w[NORM].fill_(torch.inf)), "finite weights"),
    "integers": (weights(lambda w: w.update({NORM: w[NORM].int()})), "floating-point numbers"),
    "a lost tensor": (weights(lambda w: w.pop(NORM)), "got nothing"),
    "a further tensor": (
        weights(lambda w: w.update({"encoder.layers.0.adapter_layer.norm.bias": torch.zeros(3)})),
        "adapter_layer.norm.bias of shape nothing",
    ),
    "half of a norm": (
        weights(lambda w: w.pop("encoder.pos_conv_embed.conv.weight_g")),
        "pos_conv_embed",
    ),
    "a norm of another shape": (
        weights(lambda w: w.update({"encoder.pos_conv_embed.conv.weight_g": torch.ones(16, 1, 1)})),
        "a norm for each place",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(case: str, tmp_path: Path) -> None:
    folder = write_network(tmp_path / "network")
    change, message = BAD[case]
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(build(read_network(folder, "x")), folder)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder with a pretrained network, got"):
        read_network(tmp_path / "nothing", "x")


def test_the_digest_is_of_weights_and_configuration(tmp_path: Path) -> None:
    folder = write_network(tmp_path / "network")
    first = read_network(folder, "x").sha256
    changed("preprocessor_config.json", do_normalize=False)(folder)
    second = read_network(folder, "x").sha256
    weights(lambda w: w[NORM].add_(1))(folder)
    assert len({first, second, read_network(folder, "x").sha256}) == 3
