"""What the makers of a model say about it; `asr models` shows and publishes it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from asr.config import Config

LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{1,63}")
LONGEST_NAME = 200  # characters


class AboutConfig(Config):
    """For the card of the model; training does not use it."""

    languages: tuple[str, ...] = Field((), max_length=200)
    """Codes of the languages (BCP 47), such as en or pt-BR."""
    licence: str = ""
    """Identifier of the licence of the model (SPDX), such as apache-2.0 or cc-by-4.0."""
    datasets: tuple[str, ...] = Field((), max_length=200)
    """Names of the corpora that the model was trained on."""
    description: str = Field("", max_length=10_000)
    """What the model is for, in a few sentences."""

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(LANGUAGE.fullmatch, languages)):
            raise ValueError("expected language codes such as en or de-at")
        return languages

    @field_validator("licence")
    @classmethod
    def _identifier(cls, licence: str) -> str:
        if licence and not LICENCE.fullmatch(licence):
            raise ValueError("expected an identifier such as apache-2.0 or cc-by-4.0")
        return licence

    @field_validator("datasets")
    @classmethod
    def _names(cls, datasets: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() and len(name) <= LONGEST_NAME for name in datasets):
            raise ValueError("expected names of corpora")
        return datasets
