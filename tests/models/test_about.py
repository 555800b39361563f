"""What the makers of a model say about it."""

from __future__ import annotations

import pytest

from asr.config import parse
from asr.errors import ConfigError
from asr.models.about import AboutConfig


def test_what_is_said_is_kept() -> None:
    said = {"languages": ["en", "pt-BR", "zh-Hant-TW"], "licence": "CC-BY-4.0", "datasets": ["AN4"]}
    about = parse(AboutConfig, said, "recipe")
    assert about.model_dump(mode="json", exclude_defaults=True) == said
    assert AboutConfig().model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "languages",
            ["English"],
            "at languages: expected language codes such as en or de-at, got .'English'.",
        ),
        ("languages", ["en\nlicense: mit"], "expected language codes"),
        ("licence", "free for all", "expected an identifier such as apache-2.0"),
        ("datasets", [" "], "expected names of corpora"),
        ("license", "mit", "licence"),
    ],
)
def test_mistakes_name_the_key(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(AboutConfig, {key: value}, "recipe")
    assert "\n" not in str(error.value)
