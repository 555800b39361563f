"""Typed configuration: YAML plus dotted overrides into frozen pydantic models.

Each part of the package defines its own small model beside the code that it configures. This module
parses text into those models, and reports mistakes as one-line errors that name the nearest key.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from asr.errors import CheckpointError, ConfigError
from asr.io.structured import DEEPEST, LARGEST, parse_yaml

LONGEST_SHOWN = 120  # characters of a value in an error


class Config(BaseModel):
    """Base of every configuration: immutable; an unknown key is an error.

    The text under a field documents it, and `settings` returns it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _of_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= LARGEST // 2:
            raise ValueError("expected a number of at most 64 bits")
        return value


C = TypeVar("C", bound=Config)

# Former names of settings, and their present names.
RENAMED = {
    "augment.codec_share": "augment.codec_prob",
    "augment.join": "augment.concatenate_prob",
    "augment.splice": "augment.splice_prob",
    "augment.surroundings": "augment.noise, augment.reverb and augment.telephone_prob",
    "augment.surroundings.noise": "augment.noise.folder",
    "augment.surroundings.noise_share": "augment.noise.prob",
    "augment.surroundings.noise_snr_db": "augment.noise.snr_db",
    "augment.surroundings.reverb_seconds": "augment.reverb.rt60",
    "augment.surroundings.reverb_share": "augment.reverb.prob",
    "augment.surroundings.rooms": "augment.reverb.folder",
    "augment.surroundings.telephone_share": "augment.telephone_prob",
    "augment.warp": "augment.vtlp",
    "model.spelling_layer": "model.hierarchical_ctc_layer",
    "start": "init",
    "start.frozen_layers": "init.freeze_layers",
    "start.lower_rate": "init.lower_lr_factor",
    "start.model": "init.model",
    "start.share": "init.interpolation",
    "train.consistency": "train.cr_ctc_weight",
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming file and line."""
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"expected a recipe file, got none at {path}: check the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"expected a readable YAML file, got {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"expected YAML, got {path}{line}: {problem}; fix that line") from None
    if not isinstance(values, dict):
        raise ConfigError(f"expected `key: value` lines, got {path}: write at least one")
    return values


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `key.sub=value` applied; values are read as YAML.

    >>> with_overrides({"train": {"epochs": 3}}, ["train.epochs=5", "seed=1"])
    {'train': {'epochs': 5}, 'seed': 1}
    """
    if isinstance(overrides, str):  # whose characters would be taken for overrides
        raise ConfigError(f"expected a list of key.sub=value, got the text {_shown(overrides)}")
    result = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(
                f"expected key.sub=value, got {_shown(override)}: for example train.epochs=5"
            )
        *parents, last = key.split(".", DEEPEST)
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"expected a section at {parent!r} of {override!r}, got a value")
        try:
            place[last] = parse_yaml(text)
        except (yaml.YAMLError, ValueError):  # ValueError: an invalid date, for example
            raise ConfigError(
                f"expected a YAML value after =, got {_shown(override)}: quote it"
            ) from None
    return result


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def parse(model: type[C], values: Mapping[str, Any], source: str) -> C:
    """Validate `values` against `model`. Raises ConfigError: one line naming `source` and key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{source}: {_explain(model, first)}") from None


def parse_saved(model: type[C], values: Mapping[str, Any], source: str) -> C:
    """`parse` for a file that was saved with a model. Raises CheckpointError."""
    try:
        return parse(model, values, source)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


@dataclass(frozen=True)
class Setting:
    """A key as in a recipe or on the command line; without a default it is required."""

    key: str
    default: str
    meaning: str


def settings(model: type[BaseModel], prefix: str = "") -> list[Setting]:
    """Every key of a configuration, in the order in which it is declared."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += settings(field.annotation, f"{prefix}{name}.")
        else:
            default = "" if field.is_required() else json.dumps(field.default)
            meaning = " ".join((field.description or "").split())
            if get_origin(field.annotation) is Literal:
                meaning += f" One of: {', '.join(get_args(field.annotation))}."
            found.append(Setting(prefix + name, default, meaning))
    return found


def _explain(model: type[Config], error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] != "extra_forbidden":
        # Settings that do not fit together are named; the whole section would hide them.
        got = "" if isinstance(error["input"], dict) else f", got {_shown(error['input'])}"
        return f"at {key or 'the top'}: {error['msg'].removeprefix('Value error, ').lower()}{got}"
    given = error["input"] if isinstance(error["input"], dict) else {}
    for former in (*(f"{key}.{name}" for name in given), key):
        if former in RENAMED:
            return f"unknown key {former!r}: it is now {RENAMED[former]}; rename it"
    known = list(_section(model, path[:-1]).model_fields)
    inside = [name for name in given if name in known]  # of a section that is none here
    nearest = inside or difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key {key!r}: {hint}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number with more digits than Python prints
        text = "a too large number"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _section(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return model
