"""The options of the decoder, for all commands that recognise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from asr.cli.console import show_settings
from asr.cli.loading import loading_fast
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr.decoding.decoder import Decoder
    from asr.inference.acoustics import Acoustics
    from asr.inference.recognizer import Recognizer


class DecoderKind(StrEnum):
    greedy = "greedy"
    beam = "beam"


LanguageModel = Annotated[
    Path | None, typer.Option(help="N-gram model from asr lm estimate, or ARPA file.")
]
Rescore = Annotated[
    Path | None, typer.Option(help="Recurrent language model for n-best rescoring.")
]
Lexicon = Annotated[Path | None, typer.Option(help="Allowed words, one per line.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Such as beam.size=64, language.weight=0.4."),
]


def _decoder_settings(wanted: bool) -> None:
    if wanted:
        from asr.decoding.decoder import DecoderConfig

        show_settings(DecoderConfig, ("parts", "tuned"))  # filled in by commands, not by users


Settings = Annotated[
    bool,
    typer.Option(
        "--settings",
        callback=_decoder_settings,
        is_eager=True,
        help="List every key of --set, and exit.",
    ),
]


@dataclass(frozen=True)
class DecoderOptions:
    """The decoder options of the command line; others come from the model folder."""

    SECTION: ClassVar[str] = "Decoding"

    decoder: Annotated[
        DecoderKind | None,
        typer.Option(help="Default: the model's own, or beam if an option needs it."),
    ] = None
    lm: LanguageModel = None
    rescore: Rescore = None
    lexicon: Lexicon = None
    hot_word: Annotated[
        list[str] | None,
        typer.Option(metavar="PHRASE[=BOOST]", help="An expected word or phrase; repeatable."),
    ] = None
    hot_words: Annotated[
        Path | None,
        typer.Option(help="File of hot words: a word or phrase per line, optionally its boost."),
    ] = None
    set_: Set = None

    def recognizer(self, model: Path | None) -> Recognizer:
        """A model folder, by default the included model, with its decoder changed by the
        options."""
        with loading_fast():
            from asr.inference.recognizer import Recognizer, load_model
            from asr.inference.transcribe import default_model

            folder = model or default_model()
            bundle = load_model(folder)
            return Recognizer(bundle, self.load(folder, bundle))

    def load(self, model: Path, bundle: Acoustics) -> Decoder:
        """The decoder of a model folder, changed by the options."""
        from asr.decoding.folder import load_decoder
        from asr.lm.words import parse_hot_words, read_hot_words

        hot = {} if self.hot_words is None else read_hot_words(self.hot_words)
        further = parse_hot_words(self.hot_word or [], "--hot-word")
        replaced = {_spelling(phrase, bundle) for phrase in further}
        hot = {p: boost for p, boost in hot.items() if _spelling(p, bundle) not in replaced}
        hot |= further
        kind: Literal["greedy", "beam"] | None = (
            None if self.decoder is None else self.decoder.value
        )
        return load_decoder(
            model,
            bundle.tokens,
            kind,
            lm=self.lm,
            rescore=self.rescore,
            lexicon=self.lexicon,
            hot_words=hot,
            overrides=self.set_ or [],
            normalise=bundle.normalise,
        )


def _spelling(phrase: str, bundle: Acoustics) -> str:
    """The phrase as the model writes it, if it can."""
    try:
        return bundle.normalise(phrase)
    except AsrError:
        return phrase
