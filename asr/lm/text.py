"""Sentences to estimate a language model from: text files, and the transcripts of manifests."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError, LanguageModelError, reason
from asr.io.foreign import kind_of
from asr.lm.arpa import open_text
from asr.text.characters import canonical
from asr.text.tokens import WORD_START


def read_sentences(paths: Sequence[Path], normalise: Callable[[str], str]) -> Iterator[str]:
    """Lines of text files (.gz too) and transcripts of manifests (.jsonl), normalised.

    Raises LanguageModelError for a file that is missing or not text, ManifestError for a bad
    manifest, AsrError for words without phones if the recogniser emits phones.
    """
    for path in paths:
        if path.suffix == ".jsonl":
            for utterance in read_manifest(path):
                yield _named(f"utterance {utterance.id}", normalise, utterance.text)
            continue
        try:
            with open_text(path, "rt", path.suffix == ".gz") as file:
                for number, line in enumerate(file, start=1):
                    yield _named(f"{path}:{number}", normalise, line)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            got = kind_of(path) if isinstance(error, UnicodeDecodeError) else ""
            raise LanguageModelError(
                f"{path}: expected text, got {got or reason(error)}: correct the path or the file"
            ) from None


def plain(text: str) -> str:
    """A sentence in canonical Unicode, without invisible characters. Transcripts are normalised in
    the same way, so that both spell words alike."""
    return canonical(text).strip()


def _named(where: str, normalise: Callable[[str], str], text: str) -> str:
    try:
        return normalise(text)
    except AsrError as error:
        raise AsrError(f"{where}: {error}") from None


def in_characters(sentence: str) -> str:
    """The sentence with every character as a word, and with word-start marks.

    >>> in_characters("no on")
    '▁ n o ▁ o n'
    """
    return " ".join(f"{WORD_START} {' '.join(word)}" for word in sentence.split())
