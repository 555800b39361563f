"""Proposed settings for texts and hours of a corpus: tokens, size of the network, recipe."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from asr.dataset.manifest import Utterance
from asr.dataset.splits import VOICE
from asr.evaluation.scoring import guess_units
from asr.text.normalise import TextConfig, normalise

_IN_WORDS = frozenset("'’-\u200c\u200d")  # punctuation in Unicode, but part of the spelling
_COMMANDS = 60  # words; a vocabulary of at most this size uses words as tokens
_OFTEN = 20  # mean occurrences of each of them
_LITTLE = 0.2  # hours; four layers hardly begin to learn from less


@dataclass(frozen=True)
class Texts:
    """The characters and words of transcripts, after normalisation."""

    characters: Counter[str]
    words: Counter[str]
    unspaced: bool
    """Whether there are no spaces between words, so that characters are scored."""
    capitals: Counter[str] = field(default_factory=Counter)
    """Letters of the original texts that normalisation changes to lower case."""
    dotless: bool = False
    """Whether the ı or the İ of Turkish occur."""

    @property
    def digits(self) -> Counter[str]:
        return self._of("N")

    @property
    def punctuation(self) -> Counter[str]:
        return self._of("PS")

    def _of(self, categories: str) -> Counter[str]:
        return Counter(
            {
                c: count
                for c, count in self.characters.items()
                if unicodedata.category(c)[0] in categories and c not in _IN_WORDS
            }
        )


@dataclass(frozen=True)
class Proposal:
    """The settings of a recipe that depend on the data."""

    units: Literal["characters", "words"]
    hidden: int
    layers: int
    strides: tuple[int, int]
    dropout: float
    speeds: tuple[float, ...]
    vtlp: float
    concatenate_prob: float
    time_masks: int
    epochs: int
    batch_seconds: int
    learning_rate: float
    cr_ctc_weight: float
    weight_decay: float


def examine(texts: Sequence[str], config: TextConfig) -> Texts:
    """The characters and words of texts after the normalisation of training.

    >>> found = examine(["Room 12!", "room"], TextConfig())
    >>> found.words["room"], dict(found.digits), dict(found.punctuation)
    (2, {'1': 1, '2': 1}, {'!': 1})
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    spellings = [normalise(text, config) for text in texts]
    for spelled in spellings:
        characters.update(spelled)
        words.update(spelled.split())
    written = "".join(texts)
    return Texts(
        characters,
        words,
        guess_units(spellings) == "characters",
        Counter(
            {c: n for c, n in Counter(written).items() if config.case == "lower" and c.isupper()}
        ),
        not {"İ", "ı"}.isdisjoint(unicodedata.normalize("NFC", written)),
    )


def propose(utterances: Sequence[Utterance], texts: Texts) -> Proposal:
    """Settings for a training set, from the recipes of corpora of similar size."""
    hours = sum(u.duration for u in utterances) / 3600
    seconds = 3600 * hours / len(utterances)
    hidden, layers, epochs, batch_seconds = _size(hours)
    little = hours < _LITTLE
    few = len(texts.words) <= _COMMANDS
    few = few and sum(texts.words.values()) >= _OFTEN * len(texts.words)
    concatenate_prob = 0.5 if seconds < 4 else 0.2 if seconds < 6 else 0.0
    alone = len({u.extra.get(VOICE, u.speaker) for u in utterances} - {""}) == 1
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    if alone:
        speeds = (0.95, 1.0, 1.05)
    elif hours < 10:
        speeds = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
    return Proposal(
        units="words" if few and not texts.unspaced else "characters",
        hidden=hidden,
        layers=layers,
        strides=(2, 2) if texts.unspaced else (3, 1),
        dropout=0.2 if little or 10 <= hours < 100 else 0.3,
        speeds=speeds,
        vtlp=0.05 if alone else 0.1,
        # Concatenated texts have a space between them, which single ones never have.
        concatenate_prob=0.0 if texts.unspaced else concatenate_prob,
        time_masks=1 if little else min(max(round(seconds / 2), 2), 8),
        epochs=epochs,
        batch_seconds=batch_seconds,
        learning_rate=0.002 if little else 0.001,
        cr_ctc_weight=0.0 if little else 0.2,
        weight_decay=0.03 if hours < 10 else 0.01,
    )


def _size(hours: float) -> tuple[int, int, int, int]:
    """Cells per direction, layers, epochs, and seconds of a batch."""
    if hours < _LITTLE:
        return 128, 2, 60, 8
    if hours < 1:
        return 192, 4, 80, 24
    if hours < 10:
        return 256, 4, 50, 64
    if hours < 100:
        return 320, 4, 40, 96
    return 512, 5, 30, 240


# Sections of recipes.
TEXT = """\
text:
  case: lower               # keep: the model also learns capitals
  punctuation: keep         # remove: punctuation is not spoken
"""


def tokens_text(proposal: Proposal) -> str:
    return f"""\
# The tokens that the model emits: characters can spell any word; words (for a few dozen
# frequent commands) cannot be misspelt.
tokens:
  kind: {proposal.units}
"""


def network_text(proposal: Proposal) -> str:
    """Features, tokens and network of a training from random weights."""
    p = proposal
    strides, frame = list(p.strides), 10 * p.strides[0] * p.strides[1]
    return f"""\
features:
  kind: mel                 # kaldi, nemo: as sherpa-onnx computes them on phones

{tokens_text(p)}
# The network. More hours allow a larger one; too large a one overfits to few recordings.
model:
  hidden: {p.hidden:<18}# 128 for minutes, 192 up to an hour, 256 up to 10, 320 up to 100, then 512
  layers: {p.layers}
  strides: {strides!s:<17}# one token per {frame} ms at most
  dropout: {p.dropout:<17}# raise it if dev gets worse while training gets better
"""


def recipe_text(
    source: str, hours: float, proposal: Proposal, text: str = TEXT, network: str = ""
) -> str:
    """A recipe with an explanation beside every setting. `text` and `network` are its sections on
    these; `network` is that of a training from random weights by default."""
    p = proposal
    return f"""\
# What `asr train` does with the recordings of
# {source}
# Paths are relative to this file; recordings stay where they are. Every other setting has a
# default: `asr train --settings` lists them. Change a number here, or try it on the command line:
#     asr train recipe.yaml train.epochs=100 out=longer

data:
  train: train.jsonl        # training set: {hours:.2f} hours
  dev: dev.jsonl            # selects the best epochs; test.jsonl is never used
out: run                    # folder of the training; the model will be in run/model

{text}
{network or network_text(p)}
# Random changes of the recordings in training imitate more voices.
# `asr augment recipe.yaml` writes examples to listen to.
augment:
  speeds: [{", ".join(map(str, p.speeds))}]
  vtlp: {p.vtlp:<20}# vocal tract length perturbation: other voices
  concatenate_prob: {p.concatenate_prob:<8}# short recordings are joined in pairs; 0 is off
  time_masks: {p.time_masks:<14}# masked time spans

train:
  epochs: {p.epochs:<18}# passes over the recordings: fewer are faster, more may be better
  batch_seconds: {p.batch_seconds:<11}# halve it if memory runs out; auto: as many as a GPU holds
  learning_rate: {p.learning_rate:<11}# halve it if the loss jumps up and stays there
  cr_ctc_weight: {p.cr_ctc_weight:<11}# agreement of two masked views; 0 is off and halves the time
  weight_decay: {p.weight_decay}
  patience: 100             # the best epochs are usually the last ones

# For the card of the model (`asr models show`). Remove the # in front.
# about:
#   languages: [en]
#   licence: cc-by-4.0
#   datasets: [My recordings]
#   description: Commands for a lift.
"""
