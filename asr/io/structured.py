"""JSON and YAML from outside, as plain values of limited depth and size.

Content that Python's readers accept or fail on is refused here with ValueError: nesting that
exhausts the stack, numbers beyond 64 bits, NaN and infinity, repeated keys, lone surrogates, and
YAML whose aliases expand to billions of values or to themselves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import yaml

DEEPEST = 64
LARGEST = 2**64  # limit of numbers without a fraction
MOST_YAML = 1 << 20  # characters
MOST_VALUES = 1 << 17  # of YAML, with aliases expanded
# What every refused number or character contains; most JSON has none of it.
_SUSPECT = re.compile(r"[0-9]{16}|[0-9][eE]\+?[0-9]{3}|\\u[dD][89a-fA-F]|NaN|Infinity")
_SUSPECT_IN_RECORD = re.compile(r"\\u[dD][89a-fA-F]")

Check = Callable[[Any], None]


class StructureError(ValueError):
    """JSON or YAML that is readable but has content that no file of this project has."""


class HalfCharacterError(StructureError):
    """A lone surrogate, which UTF-8 cannot encode."""


class RepeatedKeyError(StructureError):
    """Two values under one key; neither is chosen."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:60]!a} twice")
        self.key = key


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text; a byte order mark is ignored.

    Raises UnicodeDecodeError, json.JSONDecodeError or StructureError, all of which are ValueError.
    """
    return _parsed(content, _SUSPECT, _check_value)


def parse_record(content: str | bytes) -> Any:
    """As `parse_json`, for users' data: any number and character that Python can hold is accepted.
    The reader of a field checks its value; other fields may belong to other programs."""
    return _parsed(content, _SUSPECT_IN_RECORD, _check_whole)


def _parsed(content: str | bytes, suspect: re.Pattern[str], check: Check) -> Any:
    # Decoded here and not by json, which would guess UTF-16 and UTF-32.
    text = content if isinstance(content, str) else content.decode("utf-8")
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, StructureError):
        raise
    except (ValueError, RecursionError):  # integers with more digits than Python accepts
        raise StructureError("too large numbers or too deep nesting") from None
    if text.count("[") + text.count("{") > DEEPEST or suspect.search(text):
        _check(value, check)
    return value


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, usually with the line, or ValueError."""
    if len(text) > MOST_YAML:
        raise StructureError(f"{len(text)} characters, more than {MOST_YAML}")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 0)
        value = loader.construct_document(node)
    except RecursionError:
        raise StructureError("too deep nesting") from None
    except (TypeError, LookupError, AttributeError, OverflowError) as error:
        # Failures of PyYAML itself, such as for `!!int ""`.
        raise StructureError(f"an invalid value ({type(error).__name__})") from None
    finally:
        loader.dispose()
    _check(value, _check_setting)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedKeyError(name)
            seen.add(name)
    return content


def _check(value: Any, check: Check) -> None:
    """Raise StructureError for too deep nesting, or if `check` raises for a value."""
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth == DEEPEST:
                raise StructureError("too deep nesting")
            inner = value if isinstance(value, list) else [*value, *value.values()]
            waiting += [(each, depth + 1) for each in inner]
        else:
            check(value)


def _check_value(value: Any) -> None:
    _check_whole(value)
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise StructureError("a number beyond 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise StructureError(f"{value}, which is not a number")


def _check_setting(value: Any) -> None:
    _check_value(value)
    if isinstance(value, str) and "\0" in value:  # no path can contain it
        raise StructureError("a NUL character")


def _check_whole(value: Any) -> None:
    try:
        if isinstance(value, str):
            value.encode("utf-8")
    except UnicodeEncodeError:
        raise HalfCharacterError("half of a character") from None


def _measure(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """The number of values of a node, with aliases expanded."""
    size = sizes.get(id(node))
    if size is None:
        if depth == DEEPEST:  # or a node that contains itself
            raise _yaml_error(node, "too deep nesting")
        size = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inner = [part for pair in node.value for part in pair]
        else:
            inner = node.value if isinstance(node, yaml.SequenceNode) else []
        for part in inner:
            size += _measure(part, sizes, depth + 1)
        sizes[id(node)] = size
    if size > MOST_VALUES:
        raise _yaml_error(node, f"more than {MOST_VALUES} values by its aliases")
    return size


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue  # PyYAML itself reports a list as a key
        if (key.tag, key.value) in seen:
            raise _yaml_error(key, f"the key {key.value[:60]!a} twice")
        seen.add((key.tag, key.value))


def _yaml_error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
