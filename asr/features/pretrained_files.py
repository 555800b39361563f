"""Pretrained networks in the files of Hugging Face's transformers.

config.json                    structure; settings that are not computed here are refused
preprocessor_config.json       sample rate, and whether waveforms are normalised
model.safetensors              weights, or model.safetensors.index.json with the names of parts

Nothing here reads a pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.config import parse_saved
from asr.errors import CheckpointError
from asr.features.pretrained_config import KINDS, PretrainedNetwork
from asr.features.pretrained_network import build
from asr.io.files import digest
from asr.io.foreign import which_is
from asr.io.model_files import read_facts
from asr.io.tensors import read_header, read_tensors, shapes_only

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
MOST_PARTS = 1000

_FLOATS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
# Their defaults in transformers, where config.json may leave them out.
_DEFAULTS: dict[str, Any] = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "conv_bias": False,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
_OURS = {
    "conv_dim": "conv_channels",
    "conv_kernel": "conv_kernels",
    "conv_stride": "conv_strides",
    "feat_extract_norm": "conv_norm",
    "conv_bias": "conv_bias",
    "hidden_size": "size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward",
    "num_conv_pos_embeddings": "position_kernel",
    "num_conv_pos_embedding_groups": "position_groups",
    "do_stable_layer_norm": "norm_first",
    "num_buckets": "buckets",
    "max_bucket_distance": "distance",
}
# Settings that change the network, and the only value of each that is computed.
_ONLY: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "adapter_attn_dim": None,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "quantization_config": None,
}
# What networks with a head on top call the part that is read.
_PARTS = ("feature_extractor.", "feature_projection.", "encoder.")


def read_network(folder: Path, name: str) -> PretrainedNetwork:
    """The structure of the network in a folder, to be known as `name`.

    Raises CheckpointError naming a missing or damaged file, an unknown kind, settings that are not
    computed, and weights that do not fit.
    """
    description = read_structure(folder, name)
    _check_weights(description, folder)
    return description


def read_structure(folder: Path, name: str) -> PretrainedNetwork:
    """`read_network` without a look at the weights."""
    if not folder.is_dir():
        raise CheckpointError(
            f"expected a folder with a pretrained network, got {folder}{which_is(folder)}: check "
            "features.pretrained"
        )
    path = folder / CONFIG
    config, preprocessor = read_facts(path), read_facts(folder / PREPROCESSOR)
    kind = config.get("model_type")
    if kind not in KINDS:
        raise CheckpointError(
            f"{path}: expected a model_type among {', '.join(KINDS)}, got {_shown(kind)}: give a "
            "network of one of these kinds"
        )
    for key, only in _ONLY.items():
        if (value := config.get(key, only)) != only:
            raise CheckpointError(
                f"{path}: expected {key} {_shown(only)}, got {_shown(value)}, which is not "
                "supported: give another network"
            )
    values = {ours: config.get(key, _DEFAULTS[key]) for key, ours in _OURS.items()}
    if kind != "wavlm":
        del values["buckets"], values["distance"]
    values |= {"kind": kind, "name": name, "sha256": _digest(folder)}
    values |= _of_waveforms(preprocessor, folder / PREPROCESSOR)
    return parse_saved(PretrainedNetwork, values, str(path))


def _of_waveforms(preprocessor: Mapping[str, Any], path: Path) -> dict[str, Any]:
    extractor = preprocessor.get("feature_extractor_type", "Wav2Vec2FeatureExtractor")
    channels = preprocessor.get("feature_size", 1)
    if extractor != "Wav2Vec2FeatureExtractor" or channels != 1:
        raise CheckpointError(
            f"{path}: expected a Wav2Vec2FeatureExtractor of feature_size 1, got "
            f"{_shown(extractor)} of {_shown(channels)}: give a network of waveforms"
        )
    return {
        "sample_rate": preprocessor.get("sampling_rate", 16000),
        "normalise": preprocessor.get("do_normalize", True),
    }


def _shown(value: object) -> str:
    return repr(value)[:60] if value is not None else "none"


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        places = read_facts(folder / INDEX).get("weight_map")
        names = list(places.values()) if isinstance(places, dict) else []
        # A name with a folder could point anywhere.
        good = all(isinstance(n, str) and Path(n).name == n and n.endswith(".safetensors")
                   for n in names)  # fmt: skip
        if not names or not good or len(set(names)) > MOST_PARTS:
            raise CheckpointError(
                f"{folder / INDEX}: expected a weight_map to safetensors beside it, got another: "
                "copy the folder whole"
            )
        return [folder / name for name in sorted(set(names))]
    if (folder / PICKLE).is_file():
        raise CheckpointError(
            f"expected {WEIGHTS} in {folder}, got {PICKLE}, a pickle, which can run code: convert "
            f"it where you trust it, with transformers: AutoModel.from_pretrained({str(folder)!r})"
            ".save_pretrained(NEW_FOLDER)"
        )
    raise CheckpointError(f"expected {folder / WEIGHTS}, got no such file: copy the folder whole")


def _digest(folder: Path) -> str:
    """Of the files that determine the hidden states."""
    files = [folder / CONFIG, folder / PREPROCESSOR, *_weight_files(folder)]
    try:
        found = "".join(digest(path) for path in files)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"expected {error.filename}, got no such file: copy the folder whole"
        ) from None
    return hashlib.sha256(found.encode()).hexdigest()


def _check_weights(description: PretrainedNetwork, folder: Path) -> None:
    """Raise CheckpointError unless the headers of the files name the tensors of the network, before
    anything takes memory: a configuration of a few bytes can ask for any amount."""
    stored = {}
    for path in _weight_files(folder):
        for name, (shape, kind) in read_header(path).items():
            stored[name] = torch.empty(shape, device="meta", dtype=_FLOATS.get(kind, torch.int32))
    with shapes_only():
        network = build(description)
    own, weights = network.state_dict(), _renamed(stored, folder)
    for name in sorted(own.keys() | weights.keys()):
        expected = tuple(own[name].shape) if name in own else "nothing"
        got = tuple(weights[name].shape) if name in weights else "nothing"
        if expected != got:
            raise CheckpointError(
                f"{folder}: expected {name} of shape {expected}, got {got}: weights and "
                f"{CONFIG} are of different networks"
            )
        if not weights[name].is_floating_point():
            raise CheckpointError(
                f"{folder}: expected {name} as floating-point numbers, got others: convert it"
            )


def load_network(network: nn.Module, folder: Path) -> None:
    """Copy the weights of a folder into a network that has the structure of `read_network`.

    Raises CheckpointError unless every weight is finite.
    """
    stored: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        stored |= read_tensors(path)
    weights = {name: tensor.float() for name, tensor in _renamed(stored, folder).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{folder}: expected finite weights, got {name} with others: copy it again"
            )
    network.load_state_dict(weights)


def _renamed(stored: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Weights under torchaudio's names. Heads, quantisers and the embedding of masks are left out;
    networks with a head on top have a prefix, such as wav2vec2."""
    prefixes = [f"{kind}." for kind in KINDS if any(n.startswith(f"{kind}.") for n in stored)]
    prefix = prefixes[0] if prefixes else ""
    inner = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    inner = {n: t for n, t in inner.items() if n.startswith(_PARTS)}
    for name in [n for n in inner if n.endswith(".attention.gru_rel_pos_linear.weight")]:
        _join_projections(inner, name.removesuffix("gru_rel_pos_linear.weight"))
    _join_norm(inner, folder)
    renamed = {}
    for name, tensor in inner.items():
        if name.startswith("encoder."):
            name = "encoder.transformer." + name.removeprefix("encoder.")
        elif name.startswith("feature_projection."):
            name = "encoder." + name
        renamed[name] = tensor
    return renamed


def _join_projections(weights: dict[str, Tensor], layer: str) -> None:
    """Of WavLM: the projections of queries, keys and values as one, under torchaudio's names."""
    for kind in ("weight", "bias"):
        names = [f"{layer}{which}_proj.{kind}" for which in "qkv"]
        shapes = {weights[name].shape for name in names if name in weights}
        if len({shape[1:] for shape in shapes}) > 1 or torch.Size() in shapes:
            continue  # of no WavLM; what is missing is named later
        if all(name in weights for name in names):
            weights[f"{layer}attention.in_proj_{kind}"] = torch.cat([weights.pop(n) for n in names])
        if (out := weights.pop(f"{layer}out_proj.{kind}", None)) is not None:
            weights[f"{layer}attention.out_proj.{kind}"] = out


def _join_norm(weights: dict[str, Tensor], folder: Path) -> None:
    """The weight of the convolution over positions, from its norm for each place of the kernel and
    its direction (weight normalisation, Salimans and Kingma 2016, eq. 2)."""
    place = "encoder.pos_conv_embed.conv."
    for norm, direction in (
        ("weight_g", "weight_v"),  # of torch before 2.0
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        g, v = weights.pop(place + norm, None), weights.pop(place + direction, None)
        if g is None or v is None:
            continue
        if v.dim() != 3 or g.shape != (1, 1, v.shape[2]):
            raise CheckpointError(
                f"{folder}: expected a norm for each place of {place}{direction}, got shapes "
                f"{tuple(g.shape)} and {tuple(v.shape)}: copy it again"
            )
        if not v.is_meta:  # its shape is enough, and torch would import its compiler for products
            v = g.float() * v.float() / v.float().norm(dim=(0, 1), keepdim=True)
        weights[f"{place}weight"] = v
