"""The structure of a pretrained network, as a model folder stores it."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from asr.config import Config

KINDS = ("wav2vec2", "hubert", "wavlm")
SHORTEST = 1e-3  # least seconds of a frame, which keeps the number of frames within bounds

Width = Annotated[int, Field(ge=1, le=16384)]
Step = Annotated[int, Field(ge=1, le=1000)]


class PretrainedNetwork(Config):
    """wav2vec 2.0 (Baevski et al. 2020), HuBERT (Hsu et al. 2021) or WavLM (Chen et al. 2022): a
    stack of convolutions over samples, and a transformer over their frames."""

    kind: Literal["wav2vec2", "hubert", "wavlm"]
    name: str = Field("", max_length=300)
    """Folder or name on the hub from which the weights came."""
    sha256: str = Field("", max_length=64)
    """Digest of the files from which the weights came."""
    sample_rate: int = Field(16000, ge=4000, le=96000)
    """Hz of the waveforms."""
    normalise: bool = True
    """Whether waveforms are scaled to zero mean and unit variance first."""
    conv_channels: tuple[Width, ...] = Field(min_length=1, max_length=32)
    conv_kernels: tuple[Step, ...] = Field(min_length=1, max_length=32)
    conv_strides: tuple[Step, ...] = Field(min_length=1, max_length=32)
    conv_norm: Literal["group", "layer"]
    """group: the first convolution is normalised over time; layer: each one within its frames."""
    conv_bias: bool = False
    size: Width
    """Features of a frame."""
    layers: int = Field(ge=1, le=200)
    heads: int = Field(ge=1, le=1024)
    feed_forward: Annotated[int, Field(ge=1, le=65536)]
    position_kernel: int = Field(ge=1, le=4096)
    """Frames that the convolution over positions joins."""
    position_groups: int = Field(ge=1, le=4096)
    norm_first: bool = False
    """Whether each layer normalises its input, not its output."""
    buckets: int = Field(320, ge=4, le=65536)
    """Of WavLM: number of embedded distances between frames."""
    distance: int = Field(800, ge=2, le=1_000_000)
    """Of WavLM: frames from which on all distances are one."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        counts = {len(self.conv_channels), len(self.conv_kernels), len(self.conv_strides)}
        if len(counts) > 1:
            raise ValueError("expected as many kernels and strides as channels of convolutions")
        for name, parts in (("heads", self.heads), ("position_groups", self.position_groups)):
            if self.size % parts:
                raise ValueError(f"expected a size that {name} divide, got {self.size} by {parts}")
        if self.shift < SHORTEST * self.sample_rate:
            raise ValueError(f"expected frames of {1000 * SHORTEST:g} ms or more, got shorter ones")
        if self.kind == "wavlm" and self.distance <= self.buckets // 4:
            raise ValueError(
                f"expected a distance of more than {self.buckets // 4} frames with {self.buckets} "
                f"buckets, got {self.distance}"
            )
        return self

    @property
    def shift(self) -> int:
        """Samples from one frame to the next."""
        return prod(self.conv_strides)

    @property
    def window(self) -> int:
        """Samples on which a frame of the convolutions depends."""
        window, step = 1, 1
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            window += (kernel - 1) * step
            step *= stride
        return window
