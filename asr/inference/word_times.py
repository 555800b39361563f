"""Recognition with word times: texts, and the time and confidence of each word.

B utterances, S samples, T frames, V units.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.decoding.rescoring import Scored
from asr.errors import AlignmentError, AudioError
from asr.inference.decode import batch_seconds, decode_waves, evaluating, load_batches
from asr.inference.forced_alignment import time_words
from asr.inference.time_formats import Posteriors, Word
from asr.models.acoustic import AcousticModel
from asr.padded import Padded, pad
from asr.text.tokens import BLANK_ID, Tokens

SHOWN = 3  # most probable tokens per frame
FAINTEST = 0.03  # lowest probability that is visible in a picture


@dataclass(frozen=True)
class Recognition:
    """The text of a recording, its words with times and confidences, and the network's output if it
    is to be drawn."""

    text: str
    words: tuple[Word, ...]
    posteriors: Posteriors | None = None


@torch.inference_mode()
def recognize_waves(
    model: AcousticModel, decoder: Decoder, waves: Padded, sample_rate: int
) -> list[Recognition]:
    """The text and words of each recording. Shape: waves [B, S] in [-1, 1] -> B."""
    return _recognize(decoder, *_forward(model, waves), _seconds(waves, sample_rate))


@torch.inference_mode()
def recognize_texts(
    model: AcousticModel, decoder: Decoder, waves: Padded, sample_rate: int, timed: Sequence[bool]
) -> list[Recognition]:
    """The text of each recording, and the times of its words, without confidences, for those that
    are `timed`. Shape: waves [B, S] in [-1, 1] -> B."""
    if not any(timed):
        return [Recognition(text, ()) for text in decode_waves(model, waves, decoder)]
    scores, spelled = _forward(model, waves)
    written = scores.unpad()
    sounds = written if spelled is None else spelled.unpad()
    results = []
    for text, own, sound, seconds, wanted in zip(
        decoder.texts(scores), written, sounds, _seconds(waves, sample_rate), timed, strict=True
    ):
        spells = spelled is not None
        words = _times(decoder.tokens, sound, own, spells, text, seconds) if wanted else []
        results.append(Recognition(text, tuple(words)))
    return results


def recognize_scores(decoder: Decoder, log_probs: Tensor, seconds: float, text: str) -> Recognition:
    """The words of a stream that has ended, whose text is known. Shape: log_probs [T, V]."""
    return _recognize(decoder, pad([log_probs.cpu()]), None, [seconds], [text])[0]


def _forward(model: AcousticModel, waves: Padded) -> tuple[Padded, Padded | None]:
    device = next(model.parameters()).device
    return model.forward_and_spell(model.features(waves.to(device)))


def _seconds(waves: Padded, sample_rate: int) -> list[float]:
    return [length / sample_rate for length in waves.lengths.tolist()]


def _recognize(
    decoder: Decoder,
    scores: Padded,
    spelled: Padded | None,
    seconds: Sequence[float],
    texts: Sequence[str] | None = None,
    found: Sequence[Sequence[Scored]] | None = None,
) -> list[Recognition]:
    """From the log-probabilities [B, T, V] of the last and of the hierarchical CTC layer, and the
    results of the decoder."""
    written = scores.unpad()
    sounds = written if spelled is None else spelled.unpad()
    results = []
    for row, own, sound, length in zip(
        decoder.hypotheses(scores, texts, found), written, sounds, seconds, strict=True
    ):
        times = _times(decoder.tokens, sound, own, spelled is not None, row.text, length)
        pairs = zip(times, row.confidences, strict=True)
        words = tuple(replace(word, confidence=sure) for word, sure in pairs)
        results.append(Recognition(row.text, words))
    return results


def _times(
    tokens: Tokens, sound: Tensor, own: Tensor, spells: bool, text: str, seconds: float
) -> list[Word]:
    """Times of each word of a recognized text, from the log-probabilities [T, V] of the
    hierarchical and of the last CTC layer."""
    for log_probs, spelling in ((sound, spells), (own, False)):
        try:
            return time_words(tokens, log_probs, spelling, text, seconds, "")
        except AlignmentError:  # emitted in fewer frames than its spelling needs
            continue
    # Words and characters in sequence, without the mark between them, read as one long word.
    words = text.split()
    step = seconds / max(1, len(words))
    ends = [round(i * step, 3) for i in range(len(words) + 1)]
    return [Word(word, ends[i], ends[i + 1]) for i, word in enumerate(words)]


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
    with evaluating(model), torch.inference_mode():
        for batch in load_batches(dataset, batch_seconds(model), on_error, progress):
            scores, spelled = _forward(model, batch.waves)
            first = decoder.first_search(scores)
            started = time.perf_counter()
            seconds = _seconds(batch.waves, dataset.sample_rate)
            rows = _recognize(decoder, scores, spelled, seconds, *first)
            posteriors = map(likeliest_units, scores.unpad(), seconds)
            for id_, row, output in zip(batch.ids, rows, posteriors, strict=True):
                results[id_] = replace(row, posteriors=output)
            beyond += time.perf_counter() - started
    return results, beyond
