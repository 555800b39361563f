"""Covers `asr/errors.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from asr.config import Config, parse, read_yaml, with_overrides
from asr.errors import ConfigError


class Train(Config):
    epochs: int = Field(3, ge=1)
    learning_rate: float = 1e-3
    speeds: list[float] = Field([1.0], min_length=1)


class Recipe(Config):
    out: Path = Path("exp")
    train: Train = Train()


def test_parse_nested_values() -> None:
    recipe = parse(Recipe, {"out": "a", "train": {"epochs": 5, "learning_rate": "1e-2"}}, "r.yaml")
    assert recipe == Recipe(out=Path("a"), train=Train(epochs=5, learning_rate=0.01))
    assert parse(Recipe, {}, "r.yaml") == Recipe()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Recipe().train.epochs = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"trian": {}}, "unknown key 'trian': did you mean 'train'?"),
        ({"train": {"epoch": 5}}, "unknown key 'train.epoch': did you mean 'epochs'?"),
        ({"model": {"train": 5}}, "unknown key 'model': did you mean 'train'?"),
        ({"train": {"lerning_rate": 1}}, "unknown key 'train.lerning_rate': did you mean 'learni"),
        ({"train": {"zzz": 5}}, "unknown key 'train.zzz': known keys: epochs, learning_rate, sp"),
        ({"train": {"epochs": 0}}, "at train.epochs: input should be greater than or equal to 1"),
        ({"train": {"epochs": "many"}}, "at train.epochs: input should be a valid integer"),
        ({"train": {"speeds": [1, "fast"]}}, "at train.speeds.1: input should be a valid number"),
        ({"train": 5}, "at train: input should be"),
        ({"train": None}, "at train: input should be"),
        ({1: 2}, "at 1: keys should be strings"),
    ],
)
def test_mistakes_name_source_key_and_remedy(values: dict[Any, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, values, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {expected}")
    assert "\n" not in str(caught.value)


def test_overrides_are_yaml_and_leave_the_original() -> None:
    values: dict[str, Any] = {"train": {"epochs": 3}, "out": "exp"}
    changed = with_overrides(
        values,
        ["train.epochs=5", "train.speeds=[0.9, 1.1]", "new.section.key=a=b", "out=", "train.on=no"],
    )
    assert changed == {
        "train": {"epochs": 5, "speeds": [0.9, 1.1], "on": False},
        "new": {"section": {"key": "a=b"}},
        "out": None,
    }
    assert values == {"train": {"epochs": 3}, "out": "exp"}
    assert with_overrides({}, ["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize(
    "override",
    ["train", "=5", "train..epochs=5", ".epochs=5", "train.=5", "a=[1", "a={", "out.sub=1", "a=!x"],
)
def test_a_bad_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides({"out": "exp"}, [override])
    assert override in str(caught.value)


@pytest.mark.parametrize("value", ["2024-13-45", "2024-01-01 99:00:00", "0x_", "0b_"])
def test_what_yaml_takes_for_a_date_or_number_but_cannot_convert(
    value: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        with_overrides({}, [f"out={value}"])
    (tmp_path / "r.yaml").write_text(f"out: {value}\n")
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        read_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"train:\n  epochs: 3\n bad", "line 3"),
        (b"a: 1\nb: [1, 2\n", "line 3"),
        (b"a: 1\n\tb: 2\n", "line 2"),
        (b"a: !!python/object/apply:os.getcwd []\n", "line 1"),
        (b"", "key: value"),
        (b"- 1\n- 2\n", "key: value"),
        (b"just words", "key: value"),
        (b"\xff\xfe\x00", "readable YAML"),
        (b"a: \x00", "expected YAML"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_in_one_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a list of key\.sub=value, got the text"):
        with_overrides({}, "train.epochs=1")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_yaml(path)


def test_a_file_reads_back(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("out: été\ntrain: {epochs: 7}\n", encoding="utf-8")
    values = read_yaml(tmp_path / "r.yaml")
    assert values == {"out": "été", "train": {"epochs": 7}}


@settings(max_examples=100)
@given(st.text(alphabet="abc.=:-[]{}'\"#&*!|>%@,?0123 \n\t", max_size=20))
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    try:
        parse(Recipe, with_overrides({}, [text]), "r.yaml")
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
