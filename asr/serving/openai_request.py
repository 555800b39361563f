"""The fields of a transcription request in OpenAI's form, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asr.inference.recognizer import Recognizer
from asr.serving.engine import Engine, Options
from asr.serving.errors import ApiError
from asr.serving.hot_words import phrases_of
from asr.serving.upload import Form

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED = ("json", "text", "verbose_json")
"""Of these, the last event of verbose_json has the segments and words, which OpenAI's has not."""
GRANULARITIES = ("word", "segment")

REPEATED = ("timestamp_granularities", "include", "keywords")
"""Fields that may come several times, with or without brackets."""

FIELDS = frozenset(
    {
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "stream",
        "chunking_strategy",
        *REPEATED,
        *(f"{name}[]" for name in REPEATED),
    }
)

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Wanted:
    """What a client asks for."""

    model: str
    audio: bytes
    format: str
    granularities: tuple[str, ...]
    stream: bool
    log_probs: bool
    language: str
    """As a tag such as "en"; that of the model if the client names none, "" if neither does."""
    options: Options


def read_request(form: Form, engine: Engine) -> Wanted:
    """What a form asks for. Raises ApiError and UnknownModel for what cannot be done."""
    # An object comes as a field for each of its members.
    names = {name for name in form.names if not name.startswith("chunking_strategy[")}
    if unknown := sorted(names - FIELDS):
        raise ApiError(
            400,
            f"expected the fields file, {', '.join(sorted(FIELDS))}, got {unknown[0][:100]!r}",
            unknown[0][:100],
        )
    name = form.one("model") or _only(engine)
    recognizer = engine.model(name)
    audio = form.files.get("file")
    if not audio:
        got = "an empty one" if "file" in form.files else "none"
        raise ApiError(400, f"expected a recording in the field file, got {got}", "file")
    format = _choice("response_format", form.one("response_format") or "json", FORMATS)
    granularities = tuple(form.all("timestamp_granularities"))
    for value in granularities:
        _choice("timestamp_granularities", value, GRANULARITIES)
    if granularities and format != "verbose_json":
        raise ApiError(
            400,
            f"expected response_format verbose_json with timestamp_granularities, got {format}",
            "timestamp_granularities",
        )
    stream = _choice("stream", form.one("stream") or "false", ("true", "false")) == "true"
    if stream and format in ("srt", "vtt"):
        raise ApiError(
            400,
            f"expected response_format {_listed(STREAMED)} with stream, got {format}",
            "stream",
        )
    include = form.all("include")
    for value in include:
        _choice("include", value, ("logprobs",))
    _check_unused(form)
    words = bool(include) or format in ("srt", "vtt", "verbose_json")
    hot = _hot_words(form, recognizer, engine.limits.keywords)
    return Wanted(
        name,
        audio,
        format,
        granularities or ("segment",),
        stream,
        bool(include),
        _language(form.one("language"), recognizer),
        Options(words, hot),
    )


def _only(engine: Engine) -> str:
    if len(engine.models) > 1:
        names = ", ".join(engine.models)
        raise ApiError(400, f"expected one of the models {names}, got none", "model")
    return next(iter(engine.models))


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ApiError(400, f"expected {name} {_listed(choices)}, got {value[:100]!r}", name)
    return value


def _listed(choices: tuple[str, ...]) -> str:
    """
    >>> _listed(("json", "text", "srt"))
    'json, text or srt'
    """
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _check_unused(form: Form) -> None:
    """Fields that change nothing here, but must not be nonsense."""
    temperature = form.one("temperature") or "0"
    try:
        fits = 0 <= float(temperature) <= 1
    except ValueError:
        fits = False
    if not fits:
        raise ApiError(
            400,
            f"expected a temperature from 0 to 1, got {temperature[:100]!r}",
            "temperature",
        )


def _hot_words(form: Form, recognizer: Recognizer, most: int) -> tuple[str, ...]:
    keywords = form.all("keywords")
    if len(keywords) > most:
        raise ApiError(400, f"expected at most {most} keywords, got {len(keywords)}", "keywords")
    prompt = phrases_of(form.one("prompt") or "", recognizer, keywords)
    return (*dict.fromkeys(keywords), *prompt)


def languages_of(recognizer: Recognizer) -> tuple[str, ...]:
    """The languages that a model states, as tags such as "en-US"."""
    about = recognizer.bundle.info.get("about")
    languages = about.get("languages") if isinstance(about, dict) else None
    return tuple(map(str, languages)) if isinstance(languages, list) else ()


def _language(given: str | None, recognizer: Recognizer) -> str:
    known = [_main_part(language) for language in languages_of(recognizer)]
    if given is None:
        return known[0] if known else ""
    if not _LANGUAGE.fullmatch(given):
        raise ApiError(
            400, f"expected a language as a code such as en, got {given[:100]!r}", "language"
        )
    if known and _main_part(given) not in known:
        raise ApiError(
            400, f"expected a language of the model ({', '.join(known)}), got {given}", "language"
        )
    return _main_part(given)


def _main_part(tag: str) -> str:
    """
    >>> _main_part("en-US")
    'en'
    """
    return re.split("[-_]", tag)[0].lower()
