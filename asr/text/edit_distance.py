"""The alignment of two word sequences with the fewest edits (Levenshtein)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jiwer

from asr.text.characters import canonical

Operation = Literal["C", "S", "D", "I"]  # correct, substituted, deleted, inserted
OPERATIONS: dict[str, Operation] = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}
WORDS = jiwer.ReduceToListOfListOfWords()


class AlignedWord(NamedTuple):
    """One column of an alignment; a missing word is None."""

    operation: Operation
    reference: str | None
    hypothesis: str | None

    @property
    def unsaid(self) -> bool:
        """Whether this is an optional reference word, correctly omitted."""
        return self.operation == "C" and self.hypothesis is None


def align_words(
    references: Sequence[str], hypotheses: Sequence[str]
) -> list[tuple[AlignedWord, ...]]:
    """Hypothesis and reference aligned word by word, with the fewest errors.

    >>> [tuple(column) for column in align_words(["a b"], ["a c"])[0]]
    [('C', 'a', 'a'), ('S', 'b', 'c')]
    """
    references = [comparable(text) for text in references]
    hypotheses = [comparable(text) for text in hypotheses]
    chunks = align_chunks(references, hypotheses, WORDS)
    return [
        columns(reference.split(), hypothesis.split(), found)
        for reference, hypothesis, found in zip(references, hypotheses, chunks, strict=True)
    ]


def comparable(text: str) -> str:
    return " ".join(canonical(text).split())


def align_chunks(
    references: Sequence[str], hypotheses: Sequence[str], split: jiwer.AbstractTransform
) -> list[list[jiwer.AlignmentChunk]]:
    """The matching, substituted, deleted and inserted spans of each pair, in one call."""
    # jiwer documents no result for an empty side, and its splitter none for an empty list.
    both = [pair for pair in zip(references, hypotheses, strict=True) if all(pair)]
    aligned = iter(
        jiwer.process_words([r for r, _ in both], [h for _, h in both], split, split).alignments
        if both
        else ()
    )
    return [
        next(aligned) if reference and hypothesis else _one_sided(reference, hypothesis, split)
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]


def _one_sided(
    reference: str, hypothesis: str, split: jiwer.AbstractTransform
) -> list[jiwer.AlignmentChunk]:
    """The alignment if a side is empty: all deleted, all inserted, or nothing."""
    length = len(split([reference or hypothesis])[0])
    if reference:
        return [jiwer.AlignmentChunk("delete", 0, length, 0, 0)]
    if hypothesis:
        return [jiwer.AlignmentChunk("insert", 0, 0, 0, length)]
    return []


def columns(
    reference: Sequence[str], hypothesis: Sequence[str], chunks: Sequence[jiwer.AlignmentChunk]
) -> tuple[AlignedWord, ...]:
    columns: list[AlignedWord] = []
    for chunk in chunks:
        operation = OPERATIONS[chunk.type]
        left: Sequence[str | None] = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        right: Sequence[str | None] = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if operation == "D":
            right = [None] * len(left)
        elif operation == "I":
            left = [None] * len(right)
        columns += [AlignedWord(operation, r, h) for r, h in zip(left, right, strict=True)]
    return tuple(columns)
