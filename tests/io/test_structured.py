from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from asr.config import Config, parse, read_yaml, with_overrides
from asr.errors import ConfigError
from asr.io.files import read_json
from asr.io.structured import DEEPEST, parse_json, parse_record, parse_yaml

HOSTILE: dict[str, str | bytes] = {
    "deep lists": "[" * 200_000,
    "deep and whole": "[" * 900 + "]" * 900,
    "just too deep": "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "deep objects": '{"a":' * 50_000,
    "deep in a key": '{"a":' + '{"b":' * 100 + "1" + "}" * 101,
    "digits": "1" * 100_000,
    "digits below Python's limit": "[" + "9" * 400 + "]",
    "twenty digits": '{"seed": 99999999999999999999}',
    "exponent": '{"rate": 1e999}',
    "long exponent": '{"rate": -1e+99999999}',
    "huge float": '{"rate": ' + "9" * 400 + ".0}",
    "nan": '{"rate": NaN}',
    "infinity": "[-Infinity]",
    "twice": '{"a": 1, "a": 2}',
    "twice within": '[{"b": {"a": 1, "\\u0061": 2}}]',
    "half a character": '{"a": "\\ud800"}',
    "half a key": '{"\\udfff": 1}',
    "two halves that are none": '["\\udc00\\ud800"]',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "cut short": b'{"a": "\xc3',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "nothing": "",
    "two": "{} {}",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused_in_one_line(content: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$"):
        parse_json(content)
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$"):
        read_json(path)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, None, True, "é 😀"]},
        [[]] * 1000,
        2**63,
        1e308,
        -(2**64) + 1,
        "1e999 NaN Infinity 99999999999999999999",
        "\\ud800",
        json.loads("[" * DEEPEST + "]" * DEEPEST),
    ],
    ids=range(8),
)
def test_other_json_is_read(value: Any) -> None:
    whole = json.loads(json.dumps(value))
    assert parse_json(json.dumps(value, ensure_ascii=False)) == whole
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == whole


def test_records_hold_any_number_and_are_whole() -> None:
    digits = "9" * 400
    found = parse_record('{"a": 1e999, "b": ' + digits + "}")
    assert found == {"a": float("inf"), "b": int(digits)}
    for name in ("deep lists", "deep and whole", "digits", "twice", "half a character", "utf-16"):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_record(HOSTILE[name])


def laughs(first: str, wrap: Callable[[str], str], levels: int = 12) -> str:
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} " + wrap(f"*a{i - 1}") for i in range(1, levels)]
    return "\n".join(lines) + "\n"


YAML = {
    "laughs in lists": laughs("[1]", lambda a: "[" + ", ".join([a] * 9) + "]"),
    "laughs in maps": laughs(
        "{x: 1}", lambda a: "{" + ", ".join(f"k{i}: {a}" for i in range(9)) + "}"
    ),
    "laughs in merges": laughs("{x: 1}", lambda a: "{<<: [" + ", ".join([a] * 9) + "]}"),
    "itself": "a: &a {b: *a}\n",
    "itself in a list": "a: &a [*a]\n",
    "deep": "a: " + "[" * 100_000,
    "deep and whole": "a: " + "{b: " * 100 + "1" + "}" * 100,
    "digits": "seed: " + "9" * 5000,
    "binary digits": "seed: 0b" + "1" * 5000,
    "sexagesimal": "seed: 1" + ":59" * 400,
    "twenty digits": "seed: 99999999999999999999",
    "not a number": "rate: .nan",
    "infinite": "rate: -.inf",
    "overflowing": "rate: 1.0e+999",
    "twice": "a: 1\nb: 2\na: 3\n",
    "half a character": 'a: "\\ud800"',
    "nul": 'a: "\\0"',
    "control": "a: \x1b[2J",
    "tag": "a: !!python/object/apply:os.system [true]",
    "bad int": "a: !!int ''",
    "bad float": "a: !!float x",
    "bad time": "a: !!timestamp x",
    "bad binary": "a: !!binary é",
    "date": "a: 2025-13-45",
    "list as key": "? [1]\n: 2\n",
    "long": "a: " + "b" * (1 << 20),
    "two documents": "a: 1\n---\nb: 2\n",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_hostile_yaml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        parse_yaml(text)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml[^\n]*$") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_other_yaml_is_read(tmp_path: Path) -> None:
    text = "base: &b {x: 1, y: [1.5, é]}\nmine: {<<: *b, x: 2}\nagain: *b\nnone:\n"
    base: dict[str, Any] = {"x": 1, "y": [1.5, "é"]}
    expected = {"base": base, "mine": base | {"x": 2}, "again": base, "none": None}
    assert parse_yaml(text) == expected
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8-sig")
    assert read_yaml(tmp_path / "a.yaml") == expected
    assert parse_yaml("") is None


class Numbers(Config):
    seed: int = 1
    rate: float = 1.0


@pytest.mark.parametrize(
    "values",
    [{"seed": "9" * 400}, {"seed": 2**70}, {"rate": "1e999"}, {"rate": "nan"}, {"rate": 10**400},
     {"seed": "9" * 5000}, {"seed": [0] * 10_000}, {1: 2}],
)  # fmt: skip
def test_no_setting_is_beyond_64_bits_or_not_finite(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Numbers, values, "recipe.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["[" * 100_000, ".nan", "9" * 30, '"\\ud800"', "&a [*a]"])
def test_hostile_overrides_are_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides({}, [f"seed={value}"])
    assert len(str(caught.value)) < 300


def test_a_repeated_key_among_many_is_found() -> None:
    names = [*map(str, range(100_000)), "99999"]
    with pytest.raises(ValueError, match="99999"):
        parse_json("{" + ", ".join(f'"{name}": 0' for name in names) + "}")
