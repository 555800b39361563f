"""The duration of a training, estimated from a few steps."""

from __future__ import annotations

import time

import torch

from asr.augment.noise import load_sounds
from asr.dataset.cuts import Item
from asr.dataset.sampler import plan_epoch
from asr.models.acoustic import AcousticModel
from asr.training.batch_size import CPU_SECONDS
from asr.training.device import build_accelerator
from asr.training.prepare import datasets, precision, training_corpus
from asr.training.pretrained_features import load, with_network
from asr.training.recipe import Recipe
from asr.training.step import batch_loss

_ENOUGH = 3.0  # seconds of steps, after the first one
_MOST = 3  # steps


def measure_training(recipe: Recipe) -> float:
    """Seconds for all epochs of a recipe on this machine at its present load, without the decoding
    of dev after each epoch. Nothing is written.

    Raises AsrError like a training before its first step.
    """
    recipe, network_folder = with_network(recipe)
    computed = precision(recipe.train.precision, lambda _: None)
    accelerator = build_accelerator(computed, lambda _: None)
    device, autocast = accelerator.device, accelerator.autocast
    tokens, _, data, _ = datasets(recipe, lambda _: None)
    model = AcousticModel(recipe.features, recipe.model, len(tokens)).to(device).train()
    load(model, recipe, network_folder)
    corpus = training_corpus(recipe, model, data, None)
    train = recipe.train
    seconds = CPU_SECONDS if train.batch_seconds == "auto" else train.batch_seconds
    plan = plan_epoch(corpus, recipe.augment, seconds, train.seed, 0)
    sounds = load_sounds(recipe.augment, data.sample_rate).to(device)

    def step(items: list[Item]) -> float:
        batch = data.batch(items).to(device)
        started = time.monotonic()
        loss = batch_loss(
            model, batch, recipe.augment, train.cr_ctc_weight, autocast, sounds,
            attention_weight=train.attention_weight,
            intermediate_ctc_weight=train.intermediate_ctc_weight,
        )  # fmt: skip
        loss.objective.backward()
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - started

    step(plan[0][: max(1, len(plan[0]) // 4)])  # one-time work is not counted
    taken = [step(plan[0])]
    for items in plan[1:_MOST]:
        if sum(taken) > _ENOUGH:
            break
        taken.append(step(items))
    return sum(taken) / len(taken) * len(plan) * train.epochs
