"""Hypotheses and scores of every utterance of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from asr.dataset.cuts import Item
from asr.dataset.prefetch import prefetch
from asr.dataset.sampler import plan_in_order
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.decoding.decoder import Decoder
from asr.errors import AudioError
from asr.inference.acoustics import BATCH_SECONDS
from asr.models.acoustic import AcousticModel
from asr.padded import Padded

GPU_SECONDS = 600.0  # a GPU decodes ten times as much in hardly more time


def batch_seconds(model: AcousticModel) -> float:
    """Seconds of audio in a batch, including padding; the hypotheses do not depend on it."""
    return GPU_SECONDS if next(model.parameters()).is_cuda else BATCH_SECONDS


@torch.inference_mode()
def score_waves(model: AcousticModel, waves: Padded) -> Padded:
    """Log-probabilities, on the model's device. Shape: [B, S] -> [B, T, V]."""
    device = next(model.parameters()).device
    scores: Padded = model(model.features(waves.to(device)))
    return scores


def decode_dataset(
    model: AcousticModel,
    dataset: SpeechDataset,
    decoder: Decoder,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Hypotheses by utterance id; `progress` as in `load_batches`. Raises AudioError for a
    recording that cannot be read."""
    hypotheses: dict[str, str] = {}
    for ids, log_probs in score_dataset(model, dataset, progress=progress):
        hypotheses.update(zip(ids, decoder.texts(log_probs), strict=True))
    return hypotheses


def score_dataset(
    model: AcousticModel,
    dataset: SpeechDataset,
    on_error: Callable[[str, AudioError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Sequence[str], Padded]]:
    """Utterance ids and log-probabilities [B, T, V], by batch. The model's mode is restored;
    `on_error` and `progress` as in `load_batches`."""
    with evaluation_mode(model):
        for batch in load_batches(dataset, batch_seconds(model), on_error, progress):
            yield batch.ids, score_waves(model, batch.waves)


@contextmanager
def evaluation_mode(model: AcousticModel) -> Iterator[None]:
    """Evaluation mode; the previous mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def load_batches(
    dataset: SpeechDataset,
    seconds: float,
    on_error: Callable[[str, AudioError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Batch]:
    """A dataset in batches of similar length and at most `seconds`, read ahead; `progress` is
    called after each.

    A recording that cannot be read is left out and passed to `on_error` with its id; without
    `on_error`, its AudioError is raised.
    """

    def load(items: Sequence[Item]) -> Batch | None:
        readable = []
        for item in items:
            (index,) = item.indices
            try:
                dataset.waveform(index)
                readable.append(item)
            except AudioError as error:
                if on_error is None:
                    raise
                on_error(dataset.utterances[index].id, error)
        if not readable:
            return None
        batch = dataset.batch(readable)
        return replace(batch, waves=batch.waves.pinned())

    batches = plan_in_order(dataset.durations, seconds)
    done = 0
    with prefetch(load, batches) as loaded:
        for items, batch in zip(batches, loaded, strict=True):
            if batch is not None:
                yield batch
            done += len(items)
            if progress:
                progress(done, len(dataset))
