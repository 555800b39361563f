"""Folders with tiny pretrained networks of random weights, in the files of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from asr.features.pretrained_config import PretrainedNetwork
from asr.features.pretrained_network import build

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 12],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 4],
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
WAVLM: dict[str, Any] = {"num_buckets": 12, "max_bucket_distance": 20}


def write_network(
    folder: Path, kind: str = "wav2vec2", sample_rate: int = 8000, **settings: object
) -> Path:
    """A folder with a network of these settings, with the names of torch before 2.0."""
    folder.mkdir(parents=True)
    config = SMALL | settings | {"model_type": kind}
    preprocessor = {"do_normalize": True, "sampling_rate": sample_rate}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    description = PretrainedNetwork(
        kind="wavlm" if kind == "wavlm" else "wav2vec2",
        sample_rate=sample_rate,
        conv_channels=tuple(config["conv_dim"]),
        conv_kernels=tuple(config["conv_kernel"]),
        conv_strides=tuple(config["conv_stride"]),
        conv_norm=config.get("feat_extract_norm", "group"),
        conv_bias=config.get("conv_bias", False),
        size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        feed_forward=config["intermediate_size"],
        position_kernel=config["num_conv_pos_embeddings"],
        position_groups=config["num_conv_pos_embedding_groups"],
        norm_first=config.get("do_stable_layer_norm", False),
        buckets=config.get("num_buckets", 320),
        distance=config.get("max_bucket_distance", 800),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build(description).state_dict()
        weights = {name: w + 0.1 * torch.randn_like(w) for name, w in weights.items()}
    save_file(_named(weights), folder / "model.safetensors")
    return folder


def _named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchaudio's network under the names of transformers."""
    found = {}
    for name, tensor in weights.items():
        name = name.removeprefix("encoder.")
        name = name.replace("transformer.", "encoder.")
        if name == "encoder.pos_conv_embed.conv.weight":
            found[name + "_g"] = tensor.norm(dim=(0, 1), keepdim=True)
            found[name + "_v"] = tensor
        elif ".attention.in_proj_" in name:
            for which, part in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("attention.in_proj_", f"{which}_proj.")] = part.clone()
        else:
            found[name.replace("attention.attention.", "attention.")] = tensor
    return found
