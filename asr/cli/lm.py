"""The commands `asr lm ...`: language models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.console import show_settings
from asr.errors import LanguageModelError
from asr.io.printable import printable_json
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.lm.neural import NeuralLm
    from asr.lm.ngram import NgramModel

app = typer.Typer(
    help="Estimate, train, evaluate and sample language models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Units(StrEnum):
    characters = "characters"
    words = "words"
    bpe = "bpe"
    unigram = "unigram"


Texts = Annotated[
    list[Path], typer.Argument(help="Text files, one sentence per line, and manifests (.jsonl).")
]
Normaliser = Annotated[Path | None, typer.Option(help="Normalise the text as for this model.")]


@app.command(
    epilog="Example: asr lm estimate train.jsonl books.txt.gz --order 4 --cutoff 0 --cutoff 1"
    " --out exp/lm.arpa.gz"
)
def estimate(
    texts: Texts,
    out: Annotated[
        Path, typer.Option(help="NAME.arpa or NAME.arpa.gz, or a folder, which loads faster.")
    ],
    order: Annotated[int, typer.Option(min=1, max=32, help="Words in the longest n-gram.")] = 3,
    model: Normaliser = None,
    characters: Annotated[bool, typer.Option(help="Characters instead of words.")] = False,
    cutoff: Annotated[
        list[int] | None,
        typer.Option(help="Omit n-grams with at most this count; one per length from 2."),
    ] = None,
    min_count: Annotated[int, typer.Option(min=1, help="Rarer words count as unknown.")] = 1,
    closed: Annotated[bool, typer.Option(help="Give unknown words no probability.")] = False,
) -> None:
    """Estimate an n-gram model: interpolated, modified Kneser-Ney."""
    from asr.io.files import check_replaceable
    from asr.lm.estimate import estimate as estimate_model
    from asr.lm.storage import ARPA_ENDINGS, save_ngram

    if not str(out).endswith(ARPA_ENDINGS):
        check_replaceable(out, "ngram.json")
    with progress_bar("counting") as progress:
        result = estimate_model(
            _sentences(texts, _normaliser(model), characters),
            order,
            cutoff or [],
            closed,
            min_count,
            progress,
        )
    with progress_bar("writing") as progress:
        save_ngram(out, result, progress)
    counts = ", ".join(f"{count} of {n}" for n, count in enumerate(result.counts, start=1))
    tell(f"language model: {out} (n-grams by words: {counts})")


@app.command(epilog="Example: asr lm perplexity exp/lm.arpa.gz dev.jsonl --words")
def perplexity(
    lm: Annotated[Path, typer.Argument(help="ARPA file, or folder of either kind of model.")],
    texts: Texts,
    model: Normaliser = None,
    words: Annotated[bool, typer.Option(help="Also print the score of every word.")] = False,
) -> None:
    """Perplexity of a text under a language model, and the score of every word."""
    from asr.lm.encoding import is_neural
    from asr.lm.ngram import measure_perplexity
    from asr.lm.storage import load_ngram

    loaded: NgramModel | NeuralLm
    if is_neural(lm):
        from asr.lm.neural import load_neural

        loaded, characters = load_neural(lm), False
    else:
        with progress_bar("reading the language model") as progress:
            loaded = load_ngram(lm, progress)
        characters = _of_characters(loaded)
    sentences = [s.split() for s in _sentences(texts, _normaliser(model), characters) if s]
    if not sentences:
        raise LanguageModelError("expected sentences, got an empty text: give lines of words")
    if words:
        for sentence in sentences:
            for score in loaded.score_sentence(sentence):
                log10 = score.log10 if math.isfinite(score.log10) else None
                row = {"word": score.word, "log10": log10, "words_used": score.length}
                show(printable_json(row | ({"unknown": True} if score.unknown else {})))
    found = measure_perplexity(loaded, sentences)
    show(
        f"perplexity {found.perplexity:.2f}, of known words {found.known_perplexity:.2f} "
        f"({found.sentences} sentences, {found.words} words including sentence ends, "
        f"{found.unknown} of them unknown)"
    )


def _training_settings(wanted: bool) -> None:
    if wanted:
        from asr.training.train_lm import LanguageTraining

        show_settings(LanguageTraining)


@app.command(epilog="Example: asr lm train train.jsonl --dev dev.jsonl --out exp/lstm")
def train(
    texts: Texts,
    dev: Annotated[Path, typer.Option(help="Text or manifest that selects the best epoch.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    model: Annotated[
        Path | None, typer.Option(help="Use this recogniser's tokens and normalisation.")
    ] = None,
    units: Annotated[Units, typer.Option(help="Tokens without --model.")] = (Units.characters),
    size: Annotated[int, typer.Option(min=3, help="Number of bpe or unigram tokens.")] = 500,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as epochs=40, model.hidden=512."),
    ] = None,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=_training_settings,
            is_eager=True,
            help="List every key of --set, and exit.",
        ),
    ] = False,
) -> None:
    """Train a recurrent language model for n-best rescoring."""
    from asr.config import parse, with_overrides
    from asr.dataset.manifest import read_manifest
    from asr.dataset.splits import refuse_test_set
    from asr.lm.text import plain
    from asr.models.bundle import load_bundle
    from asr.text.tokens import TokenConfig, build_tokens
    from asr.training.train_lm import LanguageTraining, train_language_model

    config = parse(LanguageTraining, with_overrides({}, set_ or []), "--set")
    if dev.suffix == ".jsonl":
        refuse_test_set(model, dev, read_manifest(dev))
    bundle = None if model is None else load_bundle(model)
    normalise = plain if bundle is None else bundle.normalise
    learnt, held = (
        [s for s in _sentences(source, normalise, False) if s] for source in (texts, [dev])
    )
    if bundle is not None:
        tokens = bundle.tokens
    else:
        tokens = build_tokens(learnt, TokenConfig(kind=units.value, size=size))
    text = None if bundle is None else bundle.text
    train_language_model(learnt, held, tokens, config, out, text=text)
    tell(f"language model: {out}")


@app.command(epilog="Example: asr lm sample exp/lstm --prompt 'turn on' --temperature 0.7")
def sample(
    lm: Annotated[Path, typer.Argument(help="Folder of a recurrent language model.")],
    prompt: Annotated[str, typer.Option(help="Start of each sentence.")] = "",
    temperature: Annotated[
        float,
        typer.Option(min=0.01, max=10, help="Below 1: likelier; above 1: more random."),
    ] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Number of sentences.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same sentences.")] = 1,
) -> None:
    """Print random sentences from a recurrent language model."""
    import torch

    from asr.lm.neural import load_neural

    loaded, random = load_neural(lm), torch.Generator().manual_seed(seed)
    for _ in range(count):
        show(loaded.sample(prompt, temperature, random))


def _normaliser(model: Path | None) -> Callable[[str], str]:
    from asr.lm.text import plain
    from asr.models.bundle import load_bundle

    return plain if model is None else load_bundle(model).normalise


def _sentences(
    texts: list[Path], normalise: Callable[[str], str], characters: bool
) -> Iterator[str]:
    from asr.lm.text import in_characters, read_sentences

    sentences = read_sentences(texts, normalise)
    return map(in_characters, sentences) if characters else sentences


def _of_characters(model: NgramModel) -> bool:
    from asr.text.tokens import WORD_START

    return WORD_START in model.ids
