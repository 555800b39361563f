"""Subwords: learnt from text by sentencepiece, and the segmentation of words into them.

Learning needs sentencepiece; segmentation needs only the subwords. A model folder therefore holds
plain JSON, and loading it runs no foreign code. `tests/text/test_subwords.py` compares the
segmentation with sentencepiece's.

Sennrich et al. 2016, "Neural machine translation of rare words with subword units"; Kudo 2018,
"Subword regularization".
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Literal

from asr.errors import AsrError

UNKNOWN = "\u2585"  # a token that sentencepiece requires; it skips text with it
RESERVED = (UNKNOWN, "\0", "<blank>")  # words with these are spelled: CTC's blank is not a subword
LONGEST = 1 << 30  # bytes of a sentence; sentencepiece would skip longer ones


def learn_pieces(
    texts: Iterable[str], kind: Literal["bpe", "unigram"], size: int
) -> list[tuple[str, float]]:
    """The best `size` - 1 subwords of normalised texts, including all characters, with scores.

    A subword that begins a word begins with the mark `▁`; none spans two words. The order of the
    texts does not matter. Raises AsrError if the text yields fewer subwords, or has more
    characters.
    """
    # Imported here: only training needs it.
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    texts = list(texts)
    words = [word for text in texts for word in text.split()]
    characters = {"▁", *(c for word in words for c in word)}
    learnt = sorted(" ".join(w for w in text.split() if not _reserved(w)) for text in texts)
    learnt = [text for text in learnt if text]
    if not learnt:
        raise AsrError(f"expected transcripts for tokens.kind {kind}, got none: give some")
    if size < len(characters) + 1:
        raise AsrError(
            f"expected tokens.size of {len(characters) + 1} or more for the characters of the "
            f"transcripts, got {size}: raise it"
        )
    apart = characters - {"▁", *(c for text in learnt for c in text)}
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(learnt),
        model_writer=model,
        model_type=kind,
        vocab_size=size - len(apart),
        hard_vocab_limit=False,  # a shortfall is reported below, for both kinds
        normalization_rule_name="identity",
        character_coverage=1.0,
        split_by_unicode_script=False,  # combining marks have another script than their base
        split_by_number=False,
        max_sentence_length=LONGEST,
        unk_piece=UNKNOWN,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,  # the same subwords on every machine
        minloglevel=3,
    )
    found = SentencePieceProcessor(model_proto=model.getvalue())
    count = found.get_piece_size()
    pieces = [(found.id_to_piece(i), float(found.get_score(i))) for i in range(1, count)]
    lowest = min(score for _, score in pieces)
    pieces += [(character, lowest - 1) for character in sorted(apart)]
    if len(pieces) + 1 < size:
        raise AsrError(
            f"expected tokens.size of at most {len(pieces) + 1}, which is all that the transcripts "
            f"give for tokens.kind {kind}, got {size}: lower it"
        )
    return pieces


def _reserved(word: str) -> bool:
    return any(part in word for part in RESERVED)


def merge(word: str, ranks: Mapping[str, int]) -> list[int]:
    """The ids of a word's subwords (bpe). Of all neighbours that form a subword, the one learnt
    first is joined, the leftmost of equals, until none is left. `ranks` are the ids, in that order.

    >>> merge("abab", {"a": 0, "b": 1, "ab": 2, "abab": 3, "ba": 4})
    [3]
    """
    parts = list(word)
    pairs = [ranks.get(a + b, math.inf) for a, b in itertools.pairwise(parts)]
    while (best := min(pairs, default=math.inf)) < math.inf:
        place = pairs.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        del pairs[place]
        for i in (place - 1, place):
            if 0 <= i < len(pairs):
                pairs[i] = ranks.get(parts[i] + parts[i + 1], math.inf)
    return [ranks[part] for part in parts]


def likeliest(word: str, ids: Mapping[str, int], scores: Mapping[str, float]) -> list[int]:
    """The ids of the subwords whose scores have the highest sum (Viterbi).

    >>> likeliest("aab", {"a": 0, "b": 1, "ab": 2}, {"a": -1.0, "b": -1.0, "ab": -1.5})
    [0, 2]
    """
    longest = max(map(len, scores))
    best = [0.0] + [-math.inf] * len(word)
    came = [0] * (len(word) + 1)
    for start in range(len(word)):
        for end in range(start + 1, min(start + longest, len(word)) + 1):
            score = scores.get(word[start:end])
            if score is not None and best[start] + score > best[end]:
                best[end], came[end] = best[start] + score, start
    found, end = [], len(word)
    while end:
        found.append(ids[word[came[end] : end]])
        end = came[end]
    return found[::-1]
