"""What a model hears in every utterance of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from asr.batching import plan_in_order
from asr.composition import Item
from asr.ctc.greedy import greedy_decode
from asr.dataset import Batch, SpeechDataset, prefetch
from asr.errors import AudioError
from asr.models.acoustic import AcousticModel
from asr.padded import Padded
from asr.tokens import Tokens

BATCH_SECONDS = 60.0


@torch.inference_mode()
def decode_waves(model: AcousticModel, waves: Padded, tokens: Tokens) -> list[str]:
    """Greedy hypotheses of a batch, on the model's device. Shape: waves [B, S] -> B texts."""
    device = next(model.parameters()).device
    log_probs = model(model.features(waves.to(device)))
    return [tokens.decode(ids) for ids in greedy_decode(log_probs)]


def decode_dataset(
    model: AcousticModel,
    dataset: SpeechDataset,
    tokens: Tokens,
    on_error: Callable[[str, AudioError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Greedy hypotheses by utterance id. The model is left in the mode it came in.

    A recording that cannot be read is left out and given to `on_error` with its id; without
    `on_error` its AudioError is raised.
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
        return dataset.batch(readable) if readable else None

    was_training = model.training
    model.eval()
    hypotheses: dict[str, str] = {}
    batches = plan_in_order(dataset.durations, BATCH_SECONDS)
    done = 0
    try:
        with prefetch(load, batches) as loaded:
            for items, batch in zip(batches, loaded, strict=True):
                if batch is not None:
                    texts = decode_waves(model, batch.waves, tokens)
                    hypotheses.update(zip(batch.ids, texts, strict=True))
                done += len(items)
                if progress:
                    progress(done, len(dataset))
    finally:
        model.train(was_training)
    return hypotheses
