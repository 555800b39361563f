"""Pretrain the encoder of an acoustic model on recordings without transcripts, by masked prediction
(`asr/models/masked_prediction.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from rich.console import Console

from asr.augment.config import AugmentConfig
from asr.augment.noise import Sounds, load_sounds
from asr.augment.specaugment import draw_distortion
from asr.config import parse, with_overrides
from asr.dataset.cuts import Corpus
from asr.dataset.manifest import Utterance, write_manifest
from asr.dataset.prefetch import prefetch
from asr.dataset.sampler import plan_epoch, plan_in_order
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.errors import TrainingError
from asr.features.extractor import FeatureConfig
from asr.io.files import atomic_path, write_json
from asr.models.config import ModelConfig
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import MaskedPrediction, Predicted, SpeechEncoder
from asr.plotting import pyplot
from asr.text.normalise import TextConfig
from asr.training import loop
from asr.training.device import shown_precision
from asr.training.optimizer import Epochs, LearningRate, OptimizationConfig, fixed_settings
from asr.training.place import Place, working_in
from asr.training.prepare import precision
from asr.training.recipe import read_recipe, refuse_obstacles
from asr.training.step import SEED_STRIDE, vary

DEV_SEED = 20_221  # of the masks of dev: the same in every epoch
DEV_DRAWS = 20  # masks tried on a short dev set until one covers speech
SHORT_DEV = 60.0  # seconds


class PretrainConfig(OptimizationConfig):
    """The settings of `asr pretrain`. `features` and `model` must be those of the later training,
    except for settings that do not change the meaning of weights, such as dropout; --recipe takes
    them and `augment` from its recipe."""

    features: FeatureConfig = FeatureConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    epochs: Epochs = 60
    learning_rate: LearningRate = 1e-3
    batch_seconds: float = Field(48.0, gt=0)
    """Seconds of audio in a batch, including padding."""
    mask_share: float = Field(0.4, gt=0, lt=1)
    """Share of the frames that are masked, on average."""
    mask_ms: float = Field(300.0, gt=0)
    """Length of a masked span; spans may overlap."""
    mask_noise: float = Field(0.1, ge=0)
    """Standard deviation of the noise in place of masked features."""
    codebooks: int = Field(4, ge=1, le=64)
    """Number of random codebooks, and so of labels of a frame."""
    codes: int = Field(256, ge=2, le=65536)
    """Entries of a codebook."""
    code_size: int = Field(16, ge=2, le=1024)
    """Values of an entry."""
    longest_seconds: float = Field(20.0, ge=1)
    """Longer recordings are cut at pauses into pieces of at most this length, of speech only."""
    shortest_seconds: float = Field(0.3, ge=0.1)
    """Shorter recordings and pieces are left out."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp16 on a GPU, bf16 on a CPU that supports it for LSTMs, else fp32."""
    save_seconds: float = Field(60.0, ge=0)
    """Longest time between two checkpoints, which limits the loss from a crash."""

    @model_validator(mode="after")
    def _check_streaming(self) -> Self:
        refuse_obstacles(self.features, self.model)
        return self


def read_config(recipe: Path | None, overrides: Sequence[str]) -> PretrainConfig:
    """The settings: features, network and augmentation of a recipe, with `key.sub=value` overrides.

    Raises ConfigError: one line naming the file and the key.
    """
    base: dict[str, Any] = {}
    if recipe is not None:
        whole = read_recipe(recipe)
        base = {key: getattr(whole, key).model_dump() for key in ("features", "model", "augment")}
    return parse(PretrainConfig, with_overrides(base, overrides), "--set")


def refuse_training(out: Path) -> None:
    """Raise TrainingError for the folder of another training, before anything is written there."""
    if (out / "recipe.json").exists():
        raise TrainingError(
            f"expected a folder for the pretraining, got {out}, which has a training with "
            "transcripts: choose another --out"
        )


FREE = {"save_seconds"}  # may change when a pretraining is resumed


@dataclass
class _Run:
    config: PretrainConfig
    model: MaskedPrediction
    span: int
    train: SpeechDataset
    dev: SpeechDataset
    corpus: Corpus
    sounds: Sounds
    state: loop.Loop


def pretrain(
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    config: PretrainConfig,
    out: Path,
    console: Console | None = None,
    hook: loop.Hook = lambda task: task,
) -> Path:
    """Pretrain on the recordings of `train`; their texts are not used. The weights are those of the
    epoch with the lowest loss on `dev`.

    `out` gets checkpoints, curves and the folder `encoder`, for `init.model`: the same call resumes
    a stopped pretraining. `hook` may replace functions of the training's `Task`.

    Returns that folder. Raises TrainingError without recordings or for a loss that is not finite,
    AsrError for another training in `out`, InterruptedTraining after Ctrl-C, SIGTERM or SIGHUP.
    """
    for part, purpose in ((train, "train on"), (dev, "choose the epoch by")):
        if not part:
            raise TrainingError(f"expected recordings to {purpose}, got none: give some")
    with working_in(out, config.epochs, console, lasting=True) as place:
        run = _prepare(train, dev, config, place)
        for name, part in (("train", train), ("dev", dev)):
            write_manifest(out / f"{name}.jsonl", part)  # for `asr new --from`
        if not run.state.progress.step and sum(run.dev.durations) < SHORT_DEV:
            _validate(run)  # fails now, not after an epoch, if dev has no speech to mask
        task = hook(_task(run, out))
        loop.run_epochs(run.state, task)
        return _finish(run, out)


def _prepare(
    train: Sequence[Utterance], dev: Sequence[Utterance], config: PretrainConfig, place: Place
) -> _Run:
    say = place.display.say
    computed = precision(config.precision, say)
    torch.manual_seed(config.seed)
    body = SpeechEncoder(config.features, config.model)
    model = MaskedPrediction(body, config.codebooks, config.codes, config.code_size, config.seed)
    rate = config.features.sample_rate
    data, held = (SpeechDataset(part, None, TextConfig(), rate) for part in (train, dev))
    state = loop.begin(model, config, place, _identity(config, train, dev), computed)
    seconds = sum(data.durations)
    state.save_seconds, state.audio_seconds = config.save_seconds, seconds
    device = state.accelerator.device
    sounds = load_sounds(config.augment, rate).to(device)
    corpus = Corpus(durations=data.durations, speakers=data.speakers)
    frame_ms = config.features.shift_ms * config.features.stride * body.reduction
    span = max(1, round(config.mask_ms / frame_ms))
    say(
        f"{len(data)} recordings, {seconds / 3600:.2f} hours; {len(held)} held out, "
        f"{sum(held.durations) / 60:.1f} minutes; {model.parameter_count() / 1e6:.1f} M "
        f"parameters; masks of {span} frames of {frame_ms:g} ms; {device.type}, "
        f"{shown_precision(computed)}"
    )
    if not state.progress.step and config.features.of_training_set:
        for items in plan_in_order(data.durations, config.batch_seconds):
            body.features.observe(data.batch(items).waves.to(device))
    return _Run(config, model, span, data, held, corpus, sounds, state)


def _identity(
    config: PretrainConfig, train: Sequence[Utterance], dev: Sequence[Utterance]
) -> dict[str, Any]:
    """The settings by key, and the recordings, that must be the same to resume."""
    rows = [[[u.id, u.duration, u.start, u.speaker] for u in part] for part in (train, dev)]
    flat: dict[str, Any] = {}
    for key, value in fixed_settings(config, rows).items():
        inner = value.items() if isinstance(value, dict) else ()
        flat |= {f"{key}.{name}": own for name, own in inner} or {key: value}
    return {key: value for key, value in flat.items() if key not in FREE}


def _task(run: _Run, out: Path) -> loop.Task[Batch]:
    state = run.state

    def keep(row: dict[str, Any]) -> None:
        state.keep_best(row is _chosen(state))
        write_json(out / "history.json", state.progress.history)

    return loop.Task(
        batches=partial(_batches, run),
        loss=partial(_loss, run),
        validate=partial(_validate, run),
        keep=keep,
        size=lambda batch: (
            f"{len(batch.ids)} recordings of "
            f"{batch.waves.values.shape[1] / run.train.sample_rate:.1f} s: lower batch_seconds "
            f"(now {run.config.batch_seconds:g})"
        ),
    )


def _batches(run: _Run) -> tuple[int, AbstractContextManager[Any]]:
    config, progress, device = run.config, run.state.progress, run.state.accelerator.device
    seconds, seed = config.batch_seconds, config.seed
    plan = plan_epoch(run.corpus, config.augment, seconds, seed, progress.epoch)
    left = plan[progress.batch :]
    return len(plan), prefetch(lambda items: run.train.batch(items).to(device), left)


def _loss(run: _Run, batch: Batch) -> loop.Loss:
    config = run.config
    torch.manual_seed(config.seed * SEED_STRIDE + run.state.progress.step)
    found = _predicted(run, batch, config.augment)
    total, units = found.loss(), found.units
    items = total.detach().double()[None]
    return loop.Loss(total / units.clamp(min=1), items, units[None])


def _predicted(run: _Run, batch: Batch, augment: AugmentConfig | None) -> Predicted:
    """Predictions for masked frames. Labels and input have the same augmentation."""
    config, extractor = run.config, run.model.body.features
    with torch.no_grad():
        if augment is None:
            waves, distortion = batch.waves, None
        else:
            waves = vary(batch, augment, run.sounds, extractor.config.follows_level)
            distortion = draw_distortion(len(batch.ids), augment, waves.values.device)
        features = extractor(waves, distortion)
    with run.state.accelerator.autocast():
        found: Predicted = run.model(
            waves, features, run.span, config.mask_share, config.mask_noise
        )
    return found


@torch.no_grad()
def _validate(run: _Run) -> tuple[dict[str, Any], str]:
    """On dev, with the same masks in every epoch: loss in nats, share of right labels, and that of
    the most frequent label of each codebook, which needs no network."""
    run.model.eval()
    draws = DEV_DRAWS if sum(run.dev.durations) < SHORT_DEV else 1
    for seed in range(DEV_SEED, DEV_SEED + draws):
        loss, right, frames, seen = _on_dev(run, seed)
        if frames:
            return _measures(loss, right, frames, seen)
    raise TrainingError(
        "expected speech to mask in the held-out recordings, got none: they are silent, or shorter "
        "than an encoder frame; give others (--dev)"
    )


def _on_dev(run: _Run, seed: int) -> tuple[float, int, int, torch.Tensor]:
    """Loss, right labels and counted frames of dev, and how often each label occurs, with masks
    that depend on the seed."""
    device = run.state.accelerator.device
    loss, right, frames = 0.0, 0, 0
    seen = torch.zeros(run.config.codebooks, run.config.codes, dtype=torch.int64, device=device)
    plan = plan_in_order(run.dev.durations, run.config.batch_seconds)
    torch.manual_seed(seed)  # each training step has a seed of its own
    with prefetch(lambda items: run.dev.batch(items).to(device), plan) as batches:
        for batch in batches:
            found = _predicted(run, batch, None)
            labels = found.labels[found.counted]
            loss += float(found.loss())
            frames += len(labels)
            right += int((found.scores[found.counted].argmax(dim=2) == labels).sum())
            for row, own in zip(seen, labels.T, strict=True):
                row += torch.bincount(own, minlength=len(row))
    return loss, right, frames, seen


def _measures(
    loss: float, right: int, frames: int, seen: torch.Tensor
) -> tuple[dict[str, Any], str]:
    if not math.isfinite(loss):
        raise TrainingError(
            f"expected a finite loss on dev, got {loss}: lower the learning rate (learning_rate)"
        )
    shares = seen.double() / frames
    values = {
        "dev_loss": loss / frames,
        "dev_accuracy": right / (frames * len(seen)),
        "dev_frequent": float(shares.max(dim=1).values.mean()),
        "dev_entropy": float(torch.special.entr(shares).sum(dim=1).mean()),
        "dev_frames": frames,
    }
    shown = (
        f"dev {values['dev_loss']:.4f} (label frequencies {values['dev_entropy']:.2f}), right "
        f"{100 * values['dev_accuracy']:.2f} %, most frequent {100 * values['dev_frequent']:.2f} %"
    )
    return values, shown


def _chosen(state: loop.Loop) -> dict[str, Any]:
    return min(state.progress.history, key=lambda row: float(row["dev_loss"]))


# --- results ---


def _finish(run: _Run, out: Path) -> Path:
    """Write the encoder of the best epoch and the picture."""
    progress, config = run.state.progress, run.config
    chosen = _chosen(run.state)
    run.model.load_state_dict(run.state.kept)
    folder = out / "encoder"
    made_of = {"epoch": chosen["epoch"], "epochs": progress.epoch, "seed": config.seed}
    info = made_of | {
        **{name: round(chosen[name], 6) for name in ("dev_loss", "dev_accuracy", "dev_frequent")},
        "hours": round(sum(run.train.durations) / 3600, 3),
        "recordings": len(run.train),
        "speakers": len(set(run.train.speakers) - {""}) or None,
        "training_seconds": round(progress.total_seconds, 1),
        "date": date.today().isoformat(),
        "masks": {"share": config.mask_share, "ms": config.mask_ms, "noise": config.mask_noise},
        "labels": {"codebooks": config.codebooks, "codes": config.codes},
    }
    save_encoder(folder, run.model.body.eval(), info)
    draw(progress.history, out / "pretraining.png")
    run.state.place.display.say(
        f"epoch {chosen['epoch']} of {progress.epoch}: right "
        f"{100 * chosen['dev_accuracy']:.2f} % of the masked labels of dev, the most frequent "
        f"label {100 * chosen['dev_frequent']:.2f} %"
    )
    if chosen["dev_loss"] >= chosen["dev_entropy"]:
        run.state.place.display.say(
            f"the loss on dev, {chosen['dev_loss']:.2f} nats, is not below that of the label "
            f"frequencies, {chosen['dev_entropy']:.2f}: this encoder has learnt nothing yet; give "
            "more epochs (epochs) or recordings"
        )
    return folder


def draw(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss and share of right labels by epoch, beside what the frequencies of labels give."""
    plt = pyplot(path)
    epochs = [row["epoch"] for row in history]
    last = history[-1]
    best = min(history, key=lambda row: float(row["dev_loss"]))["epoch"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(epochs, [row["loss"] for row in history], label="training")
    left.plot(epochs, [row["dev_loss"] for row in history], label="dev")
    left.axhline(last["dev_entropy"], color="grey", linestyle="--", label="label frequencies")
    left.set_ylabel("nats a masked label")
    right.plot(
        epochs, [100 * row["dev_accuracy"] for row in history], color="tab:orange", label="dev"
    )
    frequent = 100 * last["dev_frequent"]
    right.axhline(frequent, color="grey", linestyle="--", label="most frequent label")
    right.set_ylabel("right labels of masked frames, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.axvline(best, color="grey", linestyle=":", label=f"best epoch, {best}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
