"""The commands `asr lm ...`: language models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.console import errors, progress_bar
from asr.errors import LanguageModelError

if TYPE_CHECKING:
    from asr.lm.ngram import NgramModel

app = typer.Typer(
    help="Language models: estimate them from text, and measure them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Texts = Annotated[
    list[Path], typer.Argument(help="Text files, a sentence a line, and manifests (.jsonl).")
]
Normaliser = Annotated[
    Path | None, typer.Option(help="Spell the text as this model writes it, such as in lower case.")
]


@app.command(
    epilog="Example: asr lm estimate train.jsonl books.txt.gz --order 4 --cutoff 0 --cutoff 1"
    " --out exp/lm.arpa.gz"
)
def estimate(
    texts: Texts,
    out: Annotated[
        Path, typer.Option(help="NAME.arpa or NAME.arpa.gz, or a folder that opens at once.")
    ],
    order: Annotated[int, typer.Option(min=1, max=32, help="Words in the longest n-gram.")] = 3,
    model: Normaliser = None,
    characters: Annotated[bool, typer.Option(help="Of characters in place of words.")] = False,
    cutoff: Annotated[
        list[int] | None,
        typer.Option(help="Leave out n-grams seen so often or less; once for each length from 2."),
    ] = None,
    min_count: Annotated[
        int, typer.Option(min=1, help="Words seen less often count as unknown.")
    ] = 1,
    closed: Annotated[bool, typer.Option(help="Give unknown words no probability.")] = False,
) -> None:
    """Estimate an n-gram model: interpolated, modified Kneser-Ney."""
    from asr.lm.estimate import estimate as estimate_model
    from asr.lm.storage import save_ngram

    with progress_bar("counting") as progress:
        result = estimate_model(
            _sentences(texts, model, characters),
            order,
            cutoff or [],
            closed,
            min_count,
            progress,
        )
    with progress_bar("writing") as progress:
        save_ngram(out, result, progress)
    counts = ", ".join(f"{count} of {n}" for n, count in enumerate(result.counts, start=1))
    errors.print(f"language model: {out} (n-grams by words: {counts})")


@app.command(epilog="Example: asr lm perplexity exp/lm.arpa.gz dev.jsonl --words")
def perplexity(
    lm: Annotated[Path, typer.Argument(help="ARPA file or folder.")],
    texts: Texts,
    model: Normaliser = None,
    words: Annotated[bool, typer.Option(help="Also print the score of every word.")] = False,
) -> None:
    """How well a language model foretells a text, and every word of it."""
    from asr.lm.ngram import measure_perplexity
    from asr.lm.storage import load_ngram

    with progress_bar("reading the language model") as progress:
        loaded = load_ngram(lm, progress)
    sentences = [s.split() for s in _sentences(texts, model, _of_characters(loaded)) if s]
    if not sentences:
        raise LanguageModelError("expected sentences, got an empty text: give lines of words")
    if words:
        for sentence in sentences:
            for score in loaded.score_sentence(sentence):
                row = {"word": score.word, "log10": score.log10, "words_used": score.length}
                print(json.dumps(row | ({"unknown": True} if score.unknown else {})))
    found = measure_perplexity(loaded, sentences)
    print(
        f"perplexity {found.perplexity:.2f}, of known words {found.known_perplexity:.2f} "
        f"({found.sentences} sentences, {found.words} words with their ends, "
        f"{found.unknown} of them unknown)"
    )


def _sentences(texts: list[Path], model: Path | None, characters: bool) -> Iterator[str]:
    from asr.lm.text import in_characters, read_sentences
    from asr.models.bundle import load_bundle

    normalise = str.strip if model is None else load_bundle(model).normalise
    sentences = read_sentences(texts, normalise)
    return map(in_characters, sentences) if characters else sentences


def _of_characters(model: NgramModel) -> bool:
    from asr.tokens import WORD_START

    return WORD_START in model.ids
