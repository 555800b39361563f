"""Hidden states of pretrained networks, by torchaudio's layers, exact with lengths.

torchaudio and transformers compute a batch with its padding: the first normalisation of base
models runs over time, padding included. Here no result depends on the batch.

L layers, D features of a frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import remove_parametrizations

from asr.features.pretrained_config import PretrainedNetwork
from asr.padded import Padded

Network = Any  # torchaudio's Wav2Vec2Model
VARIANCE_FLOOR = 1e-7  # of waveforms, as in transformers' Wav2Vec2FeatureExtractor


def build(description: PretrainedNetwork) -> Network:
    """torchaudio's network of this structure, with random weights and without dropout.

    The weight of the convolution over positions is stored whole, not as norm and direction.
    """
    from torchaudio.models import wav2vec2_model, wavlm_model

    d = description
    settings: dict[str, Any] = {
        "extractor_mode": f"{d.conv_norm}_norm",
        "extractor_conv_layer_config": list(
            zip(d.conv_channels, d.conv_kernels, d.conv_strides, strict=True)
        ),
        "extractor_conv_bias": d.conv_bias,
        "encoder_embed_dim": d.size,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": d.position_kernel,
        "encoder_pos_conv_groups": d.position_groups,
        "encoder_num_layers": d.layers,
        "encoder_num_heads": d.heads,
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": d.feed_forward,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": d.norm_first,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    if d.kind == "wavlm":
        settings |= {"encoder_num_buckets": d.buckets, "encoder_max_distance": d.distance}
        network: Network = wavlm_model(**settings)
    else:
        network = wav2vec2_model(**settings)
    remove_parametrizations(network.encoder.transformer.pos_conv_embed.conv, "weight")
    return network


def output_lengths(description: PretrainedNetwork, samples: Tensor) -> Tensor:
    """Frames of utterances with this many samples. Shape: [B] -> [B]."""
    for kernel, stride in zip(description.conv_kernels, description.conv_strides, strict=True):
        samples = _convolved(samples, kernel, stride)
    return samples


def _convolved(lengths: Tensor, kernel: int, stride: int) -> Tensor:
    steps = torch.div(lengths - kernel, stride, rounding_mode="floor")
    return (steps + 1).clamp(min=0)


def normalise_waves(waves: Padded) -> Padded:
    """Zero mean and unit variance over the samples of each utterance. Shape: [B, S] -> [B, S]."""
    count = waves.lengths.clamp(min=1)[:, None]
    values = waves.zeroed().values
    mean = values.sum(dim=1, keepdim=True) / count
    centred = Padded(values - mean, waves.lengths).zeroed().values
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return Padded(centred / torch.sqrt(variance + VARIANCE_FLOOR), waves.lengths)


def hidden_states(network: Network, description: PretrainedNetwork, waves: Padded) -> Padded:
    """The input of the first layer of the transformer and the output of each, as SUPERB uses them:
    of networks that normalise first, the last one is normalised.

    Shape: waves [B, S] -> [B, T, L + 1, D]; padding is zero.
    """
    waves = normalise_waves(waves) if description.normalise else waves.zeroed()
    x = _frames(network, description, waves)
    x = Padded(network.encoder.feature_projection(x.values), x.lengths).zeroed()
    transformer = network.encoder.transformer
    values = transformer._preprocess(x.values)
    states = [values]
    # A row of padding alone would attend to nothing: NaN, also in the gradients of other rows.
    real = Padded(values, x.lengths.clamp(min=min(1, values.shape[1]))).mask()
    T = values.shape[1]
    attended = real[:, None, None, :].expand(-1, 1, T, T)
    hidden = torch.zeros_like(real, dtype=values.dtype).masked_fill(~real, -torch.inf)
    bias: Tensor | None = None
    for layer in transformer.layers:
        if description.kind == "wavlm":
            values, bias = layer(values, position_bias=bias, key_padding_mask=hidden)
        else:
            values, _ = layer(values, attention_mask=attended)
        states.append(values)
    # torchaudio sets this to the opposite of its layers' flag: a norm before the first layer.
    if not transformer.layer_norm_first:
        states[-1] = transformer.layer_norm(values)
    return Padded(torch.stack(states, dim=2), x.lengths).zeroed()


def _frames(network: Network, description: PretrainedNetwork, waves: Padded) -> Padded:
    """The output of the convolutions. Shape: [B, S] -> [B, T, C]; T is at least 1."""
    missing = max(0, description.window - waves.values.shape[1])
    x = functional.pad(waves.values, (0, missing))[:, None, :]
    lengths = waves.lengths
    for layer in network.feature_extractor.conv_layers:
        x = layer.conv(x)
        lengths = _convolved(lengths, layer.kernel_size, layer.stride)
        if isinstance(layer.layer_norm, nn.GroupNorm):
            x = _normalised_over_time(layer.layer_norm, x, lengths)
        elif layer.layer_norm is not None:
            x = layer.layer_norm(x)
        x = functional.gelu(x)
    return Padded(x.transpose(1, 2), lengths)


def _normalised_over_time(norm: nn.GroupNorm, x: Tensor, lengths: Tensor) -> Tensor:
    """Group norm over the real frames of each utterance; padding is zero. Shape: [B, C, T]."""
    rows = []
    for row, length in zip(x, lengths.tolist(), strict=True):
        real = row[None, :, : max(1, length)]  # an utterance without frames needs one here
        y = torch.group_norm(real, norm.num_groups, norm.weight, norm.bias, norm.eps)
        rows.append(functional.pad(y, (0, x.shape[2] - y.shape[2])))
    return torch.cat(rows)
