"""Sentences to estimate a language model from: text files, and the transcripts of manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asr.errors import LanguageModelError, reason
from asr.lm.arpa import open_text
from asr.manifest import read_manifest
from asr.tokens import WORD_START


def read_sentences(paths: Sequence[Path], normalise: Callable[[str], str]) -> Iterator[str]:
    """Lines of text files (.gz too) and transcripts of manifests (.jsonl), normalised.

    Raises LanguageModelError for a file that is missing or not text, ManifestError as reading does.
    """
    for path in paths:
        if path.suffix == ".jsonl":
            yield from (normalise(utterance.text) for utterance in read_manifest(path))
            continue
        try:
            with open_text(path, "rt", path.suffix == ".gz") as file:
                yield from map(normalise, file)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise LanguageModelError(
                f"{path}: expected text, got {reason(error)}: correct the path or the file"
            ) from None


def in_characters(sentence: str) -> str:
    """The sentence with every character as a word of its own, and where words begin.

    >>> in_characters("no on")
    '▁ n o ▁ o n'
    """
    return " ".join(f"{WORD_START} {' '.join(word)}" for word in sentence.split())
