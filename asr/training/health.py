"""Detection of failing training: infeasible targets, bad gradients, blank-only output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from asr.ctc.loss import required_frames
from asr.dataset.speech_dataset import SpeechDataset
from asr.models.acoustic import AcousticModel

PLATEAU_EPOCHS = 8
BLANK_SHARE = 0.95


@dataclass
class Health:
    """The problems so far; part of every checkpoint."""

    skipped_steps: int = 0
    """Steps skipped because the gradient was not finite."""
    infinite_losses: dict[str, int] = field(default_factory=dict)
    """Number of infinite or undefined losses of each utterance."""
    blank_epochs: int = 0
    """Consecutive epochs in which nearly every dev hypothesis was empty."""

    def count_losses(self, ids: Sequence[str], losses: torch.Tensor) -> None:
        """Record utterances whose loss is not finite. Shape: losses [B]."""
        bad = ~torch.isfinite(losses)
        if bool(bad.any()):
            for i in bad.nonzero().flatten().tolist():
                self.infinite_losses[ids[i]] = self.infinite_losses.get(ids[i], 0) + 1

    def observe_hypotheses(self, hypotheses: Mapping[str, str]) -> str | None:
        """Advice, once, when nearly all texts have been empty for PLATEAU_EPOCHS epochs."""
        empty = sum(not text for text in hypotheses.values()) / max(1, len(hypotheses))
        self.blank_epochs = self.blank_epochs + 1 if empty >= BLANK_SHARE else 0
        return PLATEAU_ADVICE if self.blank_epochs == PLATEAU_EPOCHS else None


PLATEAU_ADVICE = (
    f"Dev output was nearly empty for {PLATEAU_EPOCHS} epochs. CTC always starts this way, "
    "but this phase should be over. Try, in this order: check that audio and transcripts belong "
    "together (asr check); lower train.batch_seconds, for more steps per epoch; raise "
    "train.learning_rate threefold, or lower it if the loss jumps; less masking (augment); fewer "
    "model.layers; more data."
)


def infeasible(model: AcousticModel, dataset: SpeechDataset, speed: float) -> dict[str, str]:
    """Utterances whose target needs more frames than the model outputs at `speed`, with details."""
    found = {}
    for needed, layer in _needed(model, dataset):
        for i, given in enumerate(_frames(model, dataset, speed, layer)):
            if given < needed[i]:
                found[dataset.utterances[i].id] = f"{needed[i]} frames needed, {given} given"
    return found


def fastest_speeds(
    model: AcousticModel, dataset: SpeechDataset, speeds: Sequence[float]
) -> list[float]:
    """The highest of `speeds` at which each target fits; the lowest if none does."""
    fastest = [min(speeds)] * len(dataset)
    outputs = _needed(model, dataset)
    for speed in sorted(speeds):
        frames = [_frames(model, dataset, speed, layer) for _, layer in outputs]
        for i in range(len(dataset)):
            if all(
                given[i] >= needed[i] for given, (needed, _) in zip(frames, outputs, strict=True)
            ):
                fastest[i] = speed
    return fastest


def _needed(model: AcousticModel, dataset: SpeechDataset) -> list[tuple[list[int], int | None]]:
    """The fewest frames for each utterance, of the last output and of that of hierarchical CTC,
    with its layer."""
    outputs: list[tuple[Callable[[int], list[int]], int | None]] = [(dataset.target, None)]
    if model.spelling is not None:
        outputs.append((dataset.spelled, model.config.hierarchical_ctc_layer))
    return [
        ([max(1, required_frames(target(i))) for i in range(len(dataset))], layer)
        for target, layer in outputs
    ]


def _frames(
    model: AcousticModel, dataset: SpeechDataset, speed: float, layer: int | None
) -> list[int]:
    samples = torch.tensor([int(d * dataset.sample_rate / speed) for d in dataset.durations])
    frames: list[int] = model.output_lengths(samples, layer).tolist()
    return frames
