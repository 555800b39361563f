"""AdamW, and a learning rate that rises, then falls as a cosine."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import nn


class Schedule(Protocol):
    """What every kind of training is configured with, besides what is its own."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def build_optimizer(model: nn.Module, config: Schedule) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); only matrices decay, not biases and scales."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate(done: float, config: Schedule) -> float:
    """The rate after a share `done` (0 to 1) of the training; needs no state, so resumes exactly.

    >>> from asr.training.recipe import TrainConfig
    >>> config = TrainConfig(learning_rate=1.0, warmup=0.5)
    >>> [round(learning_rate(done, config), 2) for done in (0.25, 0.5, 0.75)]
    [0.5, 1.0, 0.5]
    """
    if done < config.warmup:
        return config.learning_rate * done / config.warmup
    falling = (done - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))
