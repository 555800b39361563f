"""AdamW, and a learning rate with warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from asr.config import Config
from asr.io.caches import settle

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
    seed: int = Field(1, ge=0)
    """Seed of the initial weights, the batches and all random draws."""


def build_optimizer(
    model: nn.Module, config: OptimizationConfig, lower_lr_factor: float = 1.0
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); only matrices decay, not biases and scales. Layers below
    the output have `lower_lr_factor` times the rate (see `set_rate`), frozen ones none."""
    settle()  # torch creates a cache folder with the first optimiser
    groups = []
    for factor, names in _parts(model, lower_lr_factor):
        learning = [p for n, p in model.named_parameters() if n in names and p.requires_grad]
        for decay, wanted in ((config.weight_decay, True), (0.0, False)):
            parameters = [p for p in learning if (p.dim() > 1) is wanted]
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "factor": factor})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _parts(model: nn.Module, lower_lr_factor: float) -> list[tuple[float, set[str]]]:
    """Names of parameters by the factor on their learning rate."""
    names = {name for name, _ in model.named_parameters()}
    if lower_lr_factor == 1:
        return [(1.0, names)]
    upper = {name for name in names if name.startswith(("output.", "spelling."))}
    return [(lower_lr_factor, names - upper), (1.0, upper)]


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
