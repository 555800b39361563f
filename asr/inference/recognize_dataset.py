"""Texts, word times and network outputs of every utterance of a dataset.

T frames, V tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.errors import AudioError
from asr.inference.decode import batch_seconds, evaluation_mode, load_batches
from asr.inference.time_formats import Posteriors
from asr.inference.word_times import Recognition, recognize
from asr.models.acoustic import AcousticModel
from asr.text.tokens import BLANK_ID

SHOWN = 3  # most probable tokens per frame
FAINTEST = 0.03  # lowest probability that is visible in a picture


def likeliest_units(log_probs: Tensor, seconds: float) -> Posteriors:
    """The most probable tokens of each frame, for a picture of the output. Shape: [T, V]."""
    frames, units = log_probs.shape
    step = seconds / max(1, frames)
    probabilities = log_probs.exp().cpu()
    best, ids = probabilities.topk(min(SHOWN + 1, units), dim=1)
    shown = (best >= FAINTEST) & (ids != BLANK_ID)
    at = shown.nonzero().tolist()
    entries = [
        (int(ids[frame, rank]), frame, round(100 * float(best[frame, rank]))) for frame, rank in at
    ]
    return Posteriors(frames, step, tuple(entries))


def recognize_dataset(
    model: AcousticModel,
    dataset: SpeechDataset,
    decoder: Decoder,
    on_error: Callable[[str, AudioError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Recognition], float]:
    """Recognitions by utterance id, and the seconds spent on word times and confidences. `on_error`
    and `progress` as in `load_batches`."""
    results: dict[str, Recognition] = {}
    beyond = 0.0
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.inference_mode():
        for batch in load_batches(dataset, batch_seconds(model), on_error, progress):
            scores, spelled = model.forward_and_spell(model.features(batch.waves.to(device)))
            first = decoder.first_search(scores)
            started = time.perf_counter()
            seconds = [n / dataset.sample_rate for n in batch.waves.lengths.tolist()]
            rows = recognize(decoder, scores, spelled, seconds, *first)
            posteriors = map(likeliest_units, scores.unpad(), seconds)
            for id_, row, output in zip(batch.ids, rows, posteriors, strict=True):
                results[id_] = replace(row, posteriors=output)
            beyond += time.perf_counter() - started
    return results, beyond
