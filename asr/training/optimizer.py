"""AdamW, and a learning rate with warm-up and cosine decay."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from asr.config import Config
from asr.io.caches import set_cache_folders

# Settings with different defaults for every kind of training.
Epochs = Annotated[int, Field(ge=1, description="Number of passes over the training set.")]
LearningRate = Annotated[
    float, Field(gt=0, description="Highest learning rate, reached after the warm-up.")
]
ClipNorm = Annotated[
    float,
    Field(gt=0, description="Limit of the Euclidean norm of the gradient, of the loss in nats."),
]


class OptimizationConfig(Config):
    """The optimisation settings of every kind of training."""

    epochs: Epochs = 30
    learning_rate: LearningRate = 1e-3
    warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of the training with a rising learning rate; afterwards it decays as a cosine."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decay of the weight matrices towards zero."""
    clip_norm: ClipNorm = 5.0
    seed: int = Field(1, ge=0, lt=1 << 40)
    """Seed of the initial weights, the batches and all random draws."""


def build_optimizer(
    model: nn.Module, config: OptimizationConfig, factors: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); only matrices decay, not biases and scales.

    `factors` gives factors on the learning rate (see `set_rate`) by the start of a parameter's
    name; the longest start counts, and without one the factor is 1. Frozen parameters are left out.
    """
    set_cache_folders()  # torch creates a cache folder with the first optimiser
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (_factor(name, factors or {}), parameter.dim() > 1)
            groups.setdefault(key, []).append(parameter)
    in_order = sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "factor": factor,
            }
            for (factor, decays), parameters in in_order
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def _factor(name: str, factors: Mapping[str, float]) -> float:
    starts = [start for start in factors if name.startswith(start)]
    return factors[max(starts, key=len)] if starts else 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group to this rate times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate(done: float, config: OptimizationConfig) -> float:
    """The rate after a fraction `done` (0 to 1) of the training; stateless, so it resumes exactly.

    >>> config = OptimizationConfig(learning_rate=1.0, warmup=0.5)
    >>> [round(learning_rate(done, config), 2) for done in (0.25, 0.5, 0.75)]
    [0.5, 1.0, 0.5]
    """
    if done < config.warmup:
        return config.learning_rate * done / config.warmup
    falling = (done - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))


def fixed_settings(config: OptimizationConfig, data: object) -> dict[str, Any]:
    """The settings and data (JSON) that must be the same to resume a training."""
    total = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
    return config.model_dump(mode="json", exclude={"epochs"}) | {"data": total}
