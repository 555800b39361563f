"""The loss of one batch: speed perturbation, features, masking, CTC, consistency, attention."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from asr import shares
from asr.augment.config import AugmentConfig
from asr.augment.noise import Sounds, degrade
from asr.augment.specaugment import draw_distortion, spec_augment, warp_time
from asr.augment.waveform import change_tempo, length_at_speed, perturb_gain, perturb_speed
from asr.ctc.loss import ctc_loss, feasible
from asr.dataset.speech_dataset import Batch
from asr.features.transforms import utterance_statistics
from asr.models.acoustic import AcousticModel, Outputs
from asr.models.attention_decoder import smoothed_losses
from asr.padded import Padded
from asr.training.entropy_weight import EntropyWeight
from asr.training.loop import Loss

SEED_STRIDE = 1_000_003  # separates the seeds of the steps of two trainings

Autocast = Callable[[], AbstractContextManager[None]]
Network = Callable[..., Outputs]
"""`AcousticModel.outputs`, or the same with the weights in another place."""


@dataclass(frozen=True)
class Masked:
    """What the network and the loss read of a batch.

    Shape: features [views * B, T, F], targets and spelled [B, U], weights [B].
    """

    features: Padded
    targets: Padded
    spelled: Padded | None
    """Targets of the hierarchical CTC layer, if there is one."""
    weights: Tensor | None
    views: int


Compute = Callable[[Network, Masked], Loss]
Replay = Callable[[Compute, Masked], Loss]


def vary(batch: Batch, augment: AugmentConfig, sounds: Sounds, gain: bool) -> Padded:
    """The waveforms of a batch after augmentation; without `gain`, at their own level, for features
    that do not depend on it. Shape: [B, S] -> [B, S']."""
    pairs = zip(batch.samples, batch.speeds, strict=True)
    samples = [length_at_speed(length, speed) for length, speed in pairs]
    waves = perturb_speed(batch.waves, batch.speeds, batch.samples)
    waves = change_tempo(waves, batch.tempos, sounds.sample_rate, samples)
    waves = degrade(shares.same_length(waves), augment, sounds)
    return perturb_gain(waves, augment.gain_db) if gain else waves


def batch_loss(
    model: AcousticModel,
    batch: Batch,
    augment: AugmentConfig,
    cr_ctc_weight: float,
    autocast: Autocast,
    sounds: Sounds,
    replay: Replay | None = None,
    attention_weight: float = 0.0,
    intermediate_ctc_weight: float = 0.0,
    entropy: EntropyWeight | None = None,
) -> Loss:
    """CTC loss per token of an augmented batch, plus disagreement between its two views.

    With `cr_ctc_weight`, each utterance is masked twice, and the output for each view is trained
    towards that of the other (CR-CTC, Yao et al. 2025, eq. 2 to 4). A hierarchical CTC layer adds
    its own losses; the reported loss of utterances is the last layer's. With layers of intermediate
    CTC, the mean of their losses counts `intermediate_ctc_weight`, and the last layer's the rest.
    An attention decoder adds its loss with the weight `attention_weight`; the rest is the weight of
    all others.
    With `entropy`, the entropy of the last layer's alignments is made larger.

    The CTC loss of each utterance is multiplied by its weight. The divisor counts all tokens in
    full, so that a weight has the same effect in a batch in which all utterances have it. If
    several processes share the batch, the loss is that of the whole batch. `replay` computes
    network and loss in its own way, with the model's weights.
    """
    with torch.no_grad():
        waves = vary(batch, augment, sounds, model.features.config.follows_level)
        distortion = draw_distortion(len(batch.ids), augment, waves.values.device)
    with torch.set_grad_enabled(model.features.pretrained is not None):
        # Warped once: both views must have the same frames.
        features = warp_time(model.features(waves, distortion), augment.time_warp)
    views = 2 if cr_ctc_weight else 1
    centred = model.features.config.centred
    mean = 0.0 if centred else utterance_statistics(features)[0]
    masked = [spec_augment(features, augment, mean).values for _ in range(views)]
    given = Masked(
        Padded(torch.cat(masked), features.lengths.repeat(views)),
        batch.targets,
        None if model.spelling is None else batch.spelled,
        batch.weights,
        views,
    )
    attending = attention_weight if model.attention_decoder is not None else 0.0
    compute = partial(
        masked_loss,
        cr_ctc_weight=cr_ctc_weight,
        autocast=autocast,
        attention_weight=attending,
        intermediate_ctc_weight=intermediate_ctc_weight,
        entropy=entropy,
    )
    if replay is not None:
        return replay(compute, given)
    return compute(model.outputs, given)


def masked_loss(
    network: Network,
    given: Masked,
    cr_ctc_weight: float,
    autocast: Autocast,
    attention_weight: float = 0.0,
    intermediate_ctc_weight: float = 0.0,
    entropy: EntropyWeight | None = None,
) -> Loss:
    """The loss from features on, as in `batch_loss`."""
    views, weights = given.views, given.weights
    read = (given.features, given.targets) if attention_weight else (given.features,)
    with autocast():
        log_probs, spelled, earlier, attended = network(*read)
    loss = _ctc_of_views(log_probs, given.targets, views, cr_ctc_weight, weights)
    objective = loss.objective
    if earlier:
        own = [
            _ctc_of_views(scores, given.targets, views, cr_ctc_weight, weights).objective
            for scores in earlier
        ]
        mean = torch.stack(own).mean()
        objective = torch.lerp(objective, mean, intermediate_ctc_weight)
    if entropy is not None:
        objective = objective + entropy.loss(log_probs, given.targets)
    if spelled is not None:
        assert given.spelled is not None
        spelling = _ctc_of_views(spelled, given.spelled, views, cr_ctc_weight, weights)
        objective = objective + spelling.objective
    if attended is not None:
        attention = _attention_loss(attended, log_probs.lengths, given, loss)
        objective = (1 - attention_weight) * objective + attention_weight * attention
    return Loss(objective, loss.items, loss.units)


def _attention_loss(predicted: Padded, frames: Tensor, given: Masked, ctc: Loss) -> Tensor:
    """Of the utterances that CTC trains, by the same number of tokens.

    Shape: predicted [views * B, U + 1, V], frames [views * B] -> [].
    """
    views, targets = given.views, given.targets
    repeated = targets.repeated(views)
    losses = smoothed_losses(predicted, repeated)
    if given.weights is not None:
        losses = losses * given.weights.repeat(views)
    kept = losses.masked_fill(~feasible(frames, repeated), 0.0).sum()
    units = views * (ctc.units * torch.isfinite(ctc.items)).sum().clamp(min=1)
    return shares.objective(kept / units)


def _ctc_of_views(
    log_probs: Padded,
    targets: Padded,
    views: int,
    cr_ctc_weight: float,
    weights: Tensor | None = None,
) -> Loss:
    """Shape: log_probs [views * B, T, V], targets [B, U], weights [B]."""
    repeated = targets.repeated(views)
    losses = ctc_loss(log_probs, repeated)
    # NaN must stay visible to the gradient check; only infeasible targets are left out here.
    counted = losses if weights is None else losses * weights.repeat(views)
    kept = counted.masked_fill(torch.isposinf(losses), 0.0).sum()
    # All that other processes know of the batch, in one exchange.
    own = losses.detach().unflatten(0, (views, -1)).T
    found = shares.gather_batch(torch.cat([own, targets.lengths[:, None]], dim=1))
    of_views, lengths = found[:, :-1], found[:, -1].long()
    units = (lengths[:, None] * torch.isfinite(of_views)).sum().clamp(min=1)
    objective = kept / units
    if cr_ctc_weight:
        objective = objective + cr_ctc_weight * _consistency_loss(log_probs) / units
    return Loss(shares.objective(objective), of_views.mean(dim=1), lengths)


def _consistency_loss(log_probs: Padded) -> Tensor:
    """Summed over frames: KL divergence of each view from the other, a fixed target, in nats."""
    scores = log_probs.zeroed().values.unflatten(0, (2, -1))
    given = scores.detach().flip(0)
    return functional.kl_div(scores, given, reduction="sum", log_target=True)
