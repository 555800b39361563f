"""Word starts in the training recordings, for splicing new sentences.

A small corpus has few word sequences, to which a recurrent network overfits. As soon as the model
can align its own training data, recordings are cut between words, and stretches of one speaker are
joined at random (similar to Lam et al. 2021, aligned data augmentation).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from asr.audio.silence import quietest
from asr.ctc.align import align
from asr.ctc.loss import required_frames
from asr.dataset.cuts import Item
from asr.dataset.remote import batches_on_disk
from asr.dataset.sampler import plan_all
from asr.dataset.speech_dataset import SpeechDataset
from asr.inference.decode import batch_seconds, evaluation_mode
from asr.io.files import digest, read_json, write_json
from asr.models.acoustic import AcousticModel
from asr.padded import Padded
from asr.text.tokens import WORD_START, Tokens
from asr.training import distributed
from asr.training.run import Run

ALIGN_EVERY = 0.1  # of the training


def update_word_starts(run: Run) -> None:
    """From the epoch in which splicing begins, provide the corpus with word starts.

    The alignment is repeated at intervals, since the model improves: on AN4, one word in eleven was
    cut 100 ms or more from its start with the model at the beginning of splicing. Every alignment
    has a separate file, to which the checkpoints of its epochs refer: a resumed run plans an epoch
    with the word starts with which the epoch began.
    """
    epochs, progress = run.recipe.train.epochs, run.progress
    since = progress.epoch - math.ceil(run.recipe.augment.splice_from * epochs)
    if not run.recipe.augment.splice_prob or since < 0:
        return
    due = progress.batch == 0 and since % math.ceil(ALIGN_EVERY * epochs) == 0
    if run.corpus.word_starts and not due:
        return
    if due or not progress.word_starts:
        _align(run)
    starts = distributed.broadcast(_read(run))
    if starts is None:
        run.display.say(
            f"expected {progress.word_starts.split()[0]} as it was saved, got something else: "
            "aligned again, with the present model"
        )
        _align(run)
        starts = distributed.broadcast(_read(run))
        assert starts is not None
    run.corpus = replace(run.corpus, word_starts=starts)


def _align(run: Run) -> None:
    run.display.say("aligning the training data for splicing")
    plan = plan_all(run.corpus, batch_seconds(run.model))
    batches = batches_on_disk(distributed.own(plan), run.shards, run.display.say)
    own = _answering(run, batches, len(plan) // distributed.world_size())
    parts = distributed.all_gather(word_starts(run.model, run.train, run.bundle.tokens, own))
    if distributed.is_first():
        starts = {index: seconds for part in parts for index, seconds in part.items()}
        order = (index for batch in plan for item in batch for index in item.indices)
        path = run.recipe.out / f"word_starts-{run.progress.epoch + 1:04d}.json"
        write_json(path, {index: starts[index] for index in order if index in starts})
        run.progress.word_starts = f"{path.name} {digest(path)}"
    run.progress.word_starts = distributed.broadcast(run.progress.word_starts)


def _answering(run: Run, batches: Iterable[list[Item]], common: int) -> Iterator[list[Item]]:
    """The batches, with an answer to a stop request before each that every process has."""
    for number, batch in enumerate(batches):
        if number < common:
            run.loop.place.answer_stop()
        yield batch


def _read(run: Run) -> dict[int, list[float]] | None:
    """The word starts of the current epoch; None if the file differs from its digest."""
    if not distributed.is_first():
        return None
    name, expected = run.progress.word_starts.split()
    path = run.recipe.out / name
    with contextlib.suppress(OSError):
        if digest(path) == expected:
            return {int(index): seconds for index, seconds in read_json(path).items()}
    return None


def word_starts(
    model: AcousticModel, dataset: SpeechDataset, tokens: Tokens, plan: Iterable[list[Item]]
) -> dict[int, list[float]]:
    """Start in seconds of each word of the utterances of a plan, by index in the dataset.

    The first word begins with the recording; between two words, the cut is at the quietest moment
    between the tokens on either side. Aligned with the CTC Viterbi path of the model: of its
    hierarchical CTC layer if it has one, which must emit every character.
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
    """Indices in the dataset, with the first and last second of each target token."""
    device = next(model.parameters()).device
    target = dataset.target if model.spelling is None else dataset.spelled
    with evaluation_mode(model):
        for items in plan:
            batch = dataset.batch(items)
            written, spelled = model.forward_and_spell(model.features(batch.waves.to(device)))
            log_probs = written if spelled is None else spelled
            rows = Padded(log_probs.values.cpu(), log_probs.lengths.cpu()).unpad()
            lengths = batch.waves.lengths.tolist()
            for item, scores, samples in zip(items, rows, lengths, strict=True):
                (index,) = item.indices
                units = target(index)
                # One that fits only when it is played slowly has no alignment at its own speed.
                if units and required_frames(units) <= len(scores):
                    step = samples / len(scores) / dataset.sample_rate
                    path = align(scores, units)
                    yield index, [(a * step, (b + 1) * step) for a, b in path]
