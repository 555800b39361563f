"""The decoder in a model folder: saved, loaded and removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asr.config import parse, with_overrides
from asr.decoding.config import RescoreConfig
from asr.decoding.decoder import GREEDY, Decoder, DecoderConfig
from asr.errors import AsrError, CheckpointError, ConfigError, LanguageModelError, reason
from asr.io.files import atomic_path, read_json, write_json
from asr.lm.encoding import is_neural
from asr.lm.onnx_lm import OnnxLm, is_onnx_lm, load_onnx_lm
from asr.lm.words import check_phrase, check_word, read_word_list
from asr.text.tokens import Tokens

if TYPE_CHECKING:
    from asr.lm.neural import NeuralLm
    from asr.lm.ngram import NgramModel


def load_decoder(
    folder: Path,
    tokens: Tokens,
    kind: Literal["greedy", "beam"] | None = None,
    *,
    lm: Path | None = None,
    rescore: Path | None = None,
    lexicon: Path | None = None,
    hot_words: Mapping[str, float] | None = None,
    overrides: Sequence[str] = (),
    normalise: Callable[[str], str] = str,
) -> Decoder:
    """The decoder of a model folder, changed by the arguments.

    Options that need a beam select one, unless `kind` is greedy. `normalise` is the normalisation
    of the model, applied to hot words and lexicon.

    Raises CheckpointError, LanguageModelError or ConfigError naming the file or the setting.
    """
    stored = folder / "decoder.json"
    config = _stored(stored) if stored.is_file() else GREEDY
    changes: dict[str, object] = {"hot_words": config.hot_words | dict(hot_words or {})}
    if kind is not None or lm or lexicon or hot_words or overrides or rescore:
        changes["kind"] = kind or "beam"
    values = with_overrides(config.model_dump() | changes, overrides)
    config = parse(DecoderConfig, values, "decoder settings")
    if config.kind == "greedy" and (lm or lexicon or hot_words or rescore):
        raise ConfigError(
            "expected a beam for a language model, lexicon or hot words, got a greedy decoder, "
            "which uses none: leave out one or the other"
        )
    alphabet = {c for unit in tokens.units[1:] for c in unit}
    config, as_given = _with_spelled(config, hot_words or {}, normalise, alphabet)
    if config.kind == "greedy":
        return Decoder(tokens, config, given=as_given)
    _check_parts(folder, config, {"lm": lm, "lstm": rescore, "lexicon.txt": lexicon})
    if not config.rescore.every_step:
        lm = lm or _there(folder / "lm")
        lexicon = lexicon or _there(folder / "lexicon.txt")
    rescore = rescore or _used(folder / "lstm", config.rescore)
    _check_kinds(lm, rescore)

    def spell(word: str) -> str:
        text = normalise(word)
        check_word(text, alphabet)
        if text != word:
            as_given[text] = word
        return text

    return Decoder(
        tokens,
        config,
        None if lm is None else _load_ngram(lm),
        None if lexicon is None else read_word_list(lexicon, spell),
        None if rescore is None else _load_recurrent(rescore),
        as_given,
    )


def with_hot_words(
    decoder: Decoder, hot_words: Mapping[str, float], normalise: Callable[[str], str] = str
) -> Decoder:
    """A decoder with more hot words and phrases; a greedy one becomes a beam.

    `normalise` is the normalisation of the model. Raises LanguageModelError for a phrase that its
    tokens cannot encode, ConfigError for a decoder that takes none.
    """
    alphabet = {c for unit in decoder.tokens.units[1:] for c in unit}
    spelled = _spelled(hot_words, hot_words, normalise, alphabet)
    boosts = {text: hot_words[phrase] for text, phrase in spelled.items()}
    changes = {"kind": "beam", "hot_words": decoder.config.hot_words | boosts}
    config = decoder.config.model_copy(update=changes)
    return replace(decoder, config=config, given={**decoder.given, **spelled})


def _load_ngram(path: Path) -> NgramModel:
    from asr.lm.storage import load_ngram  # loads numba

    return load_ngram(path)


def _load_recurrent(folder: Path) -> NeuralLm | OnnxLm:
    """A recurrent language model, by torch or by onnxruntime, according to its files."""
    if is_onnx_lm(folder):
        return load_onnx_lm(folder)
    from asr.lm.neural import load_neural

    return load_neural(folder)


def _check_parts(folder: Path, config: DecoderConfig, given: Mapping[str, Path | None]) -> None:
    """Raise CheckpointError for a file of the decoder that is neither in the folder nor given."""
    for part in config.parts:
        if given[part] is None and not (folder / part).exists():
            raise CheckpointError(
                f"expected {folder / part}, got no such file: copy the model's folder whole"
            )


def _with_spelled(
    config: DecoderConfig,
    given: Mapping[str, float],
    normalise: Callable[[str], str],
    alphabet: Collection[str],
) -> tuple[DecoderConfig, dict[str, str]]:
    """The settings with the hot words as the model spells them, and by their spelling those that
    were given otherwise. A greedy decoder uses none and may have some that cannot be spelled."""
    try:
        spelled = _spelled(config.hot_words, given, normalise, alphabet)
    except LanguageModelError:
        if config.kind == "greedy":
            return config, {}
        raise
    boosts = {text: config.hot_words[phrase] for text, phrase in spelled.items()}
    as_given = {text: phrase for text, phrase in spelled.items() if text != phrase}
    return config.model_copy(update={"hot_words": boosts}), as_given


def _spelled(
    phrases: Mapping[str, float],
    given: Mapping[str, float],
    normalise: Callable[[str], str],
    alphabet: Collection[str],
) -> dict[str, str]:
    """The hot words and phrases by their spelling with the model's tokens. Those in `given` replace
    others that are spelled alike."""
    written: dict[str, str] = {}
    for phrase in sorted(phrases, key=lambda phrase: phrase in given):
        try:
            text = normalise(phrase)
            check_phrase(text, alphabet)
        except AsrError as error:
            raise LanguageModelError(f"hot word {phrase!r}: {error}") from None
        if text in written and (phrase in given) == (written[text] in given):
            raise LanguageModelError(
                f"expected each hot word or phrase once, got {written[text]!r} and {phrase!r}, "
                f"which the model writes alike ({text!r}): leave one out"
            )
        written[text] = phrase
    return written


def _check_kinds(lm: Path | None, rescore: Path | None) -> None:
    if lm is not None and is_neural(lm):
        raise LanguageModelError(
            f"expected an n-gram model, got {lm}, which is recurrent: give it as --rescore"
        )
    from asr.lm.storage import is_ngram

    if rescore is not None and is_ngram(rescore):
        raise LanguageModelError(
            f"expected a recurrent language model, got {rescore}, which holds n-grams: "
            "give it as --lm"
        )


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _used(neural: Path, config: RescoreConfig) -> Path | None:
    changes = config.every_step or config.weight > 0 or config.word_bonus != 0
    return _there(neural) if changes else None


def save_decoder(folder: Path, decoder: Decoder) -> None:
    """Store a decoder in a model folder, replacing the present one. A recurrent language model that
    the new decoder does not use stays, since its training took hours."""
    parts = []
    if decoder.ngram is not None:
        from asr.lm.storage import save_ngram

        save_ngram(folder / "lm", decoder.ngram)
        parts.append("lm")
    if decoder.neural is not None:
        _save_recurrent(folder / "lstm", decoder.neural)
        parts.append("lstm")
    if decoder.lexicon is not None:
        with atomic_path(folder / "lexicon.txt") as temporary:
            words = (decoder.given.get(word, word) for word in decoder.lexicon)
            text = "".join(f"{word}\n" for word in words)
            temporary.write_text(text, encoding="utf-8")
        parts.append("lexicon.txt")
    hot = {decoder.given.get(p, p): boost for p, boost in decoder.config.hot_words.items()}
    changes = {"parts": parts, "hot_words": hot}
    write_json(folder / "decoder.json", decoder.config.model_dump() | changes)
    _remove(folder, {"lm", "lexicon.txt"} - set(parts))


def _save_recurrent(folder: Path, lm: NeuralLm | OnnxLm) -> None:
    from asr.lm.neural import NeuralLm, save_neural

    if not isinstance(lm, NeuralLm):
        raise LanguageModelError(
            f"expected a language model of torch to store in {folder.parent}, got an exported one: "
            "give the folder that asr lm train wrote"
        )
    save_neural(folder, lm)


def remove_decoder(folder: Path) -> None:
    """Make a model decode greedily, as before a decoder was stored."""
    # First the settings: without them nothing else is read if this is interrupted.
    (folder / "decoder.json").unlink(missing_ok=True)
    _remove(folder, {"lm", "lstm", "lexicon.txt"})


def _remove(folder: Path, parts: Collection[str]) -> None:
    for part in parts:
        path = folder / part
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # mapped files stay on network drives
        else:
            path.unlink(missing_ok=True)


def _stored(path: Path) -> DecoderConfig:
    try:
        return parse(DecoderConfig, read_json(path), "wrong ones")
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: expected settings of a decoder, got {reason(error)}; tune the model again"
        ) from None
