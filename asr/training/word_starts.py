"""Where words begin in the training recordings, so that they can be put together anew.

A small corpus holds few word sequences, and a recurrent network learns them by heart. Once the
model can align its own training data, recordings are cut between words, and stretches of one
speaker are joined at random (in the manner of Lam et al. 2021, aligned data augmentation).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch

from asr.composition import Item
from asr.ctc.align import align
from asr.cutting import quietest
from asr.dataset import SpeechDataset
from asr.models.acoustic import AcousticModel
from asr.padded import Padded
from asr.tokens import WORD_START, Tokens


def word_starts(
    model: AcousticModel, dataset: SpeechDataset, tokens: Tokens, plan: Iterable[list[Item]]
) -> dict[int, list[float]]:
    """Seconds at which each word of the utterances of a plan begins, by place in the dataset.

    The first word begins with the recording; between two words the cut is at the quietest place
    between the units on either side of it. Aligned with the CTC Viterbi path of the model: of its
    spelling layer if it has one, which must see every sound, where the last layer need not.
    """
    starts = {}
    spells = model.spelling is not None
    for index, spans in _unit_spans(model, dataset, plan):
        samples = dataset.waveform(index)
        words = dataset.references[index].split()
        starts[index] = [0.0]
        last = -1
        for word, following in itertools.pairwise(words):
            last += len(_units(tokens, word, spells))
            units = _units(tokens, following, spells)
            # A spelled word begins with its mark, which fills the silence before it.
            first = last + (2 if tokens.units[units[0]] == WORD_START else 1)
            gap = quietest(samples, spans[last][1], spans[first][0], dataset.sample_rate)
            starts[index].append(gap.second)
    return starts


def _units(tokens: Tokens, word: str, spelled: bool) -> list[int]:
    units = tokens.encode(word)
    return tokens.spell(units) if spelled else units


@torch.inference_mode()
def _unit_spans(
    model: AcousticModel, dataset: SpeechDataset, plan: Iterable[list[Item]]
) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """Places in the dataset with the seconds at which each target unit is first and last heard."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    target = dataset.target if model.spelling is None else dataset.spelled
    for items in plan:
        batch = dataset.batch(items)
        written, spelled = model.forward_and_spell(model.features(batch.waves.to(device)))
        log_probs = written if spelled is None else spelled
        rows = Padded(log_probs.values.cpu(), log_probs.lengths.cpu()).unpad()
        for item, scores, samples in zip(items, rows, batch.waves.lengths.tolist(), strict=True):
            (index,) = item.indices
            if units := target(index):
                step = samples / len(scores) / dataset.sample_rate
                path = align(scores, units)
                yield index, [(a * step, (b + 1) * step) for a, b in path]
    model.train(was_training)
