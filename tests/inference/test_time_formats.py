"""A word goes through JSON unchanged, with every field that it has."""

from __future__ import annotations

import json
from dataclasses import fields

from pydantic import TypeAdapter

from asr.inference.time_formats import TokenTime, Word, to_ctm, to_json, to_textgrid

WORDS = (
    Word("yes", 0.5, 0.75, 0.9, (TokenTime("▁y", 0.5, 0.6), TokenTime("es", 0.6, 0.75))),
    Word("no", 0.75, 1.0),
)


def test_every_field_comes_back_from_json() -> None:
    text = json.dumps(to_json(WORDS))
    assert TypeAdapter(tuple[Word, ...]).validate_json(text) == WORDS
    named = {"word" if field.name == "text" else field.name for field in fields(Word)}
    assert set(to_json(WORDS)[0]) == named
    assert list(to_json(WORDS)[1]) == ["word", "start", "end", "units"]
    assert "units" not in to_json(WORDS, units=False)[0]


def test_one_word_is_in_every_format() -> None:
    assert to_ctm("talk", WORDS) == "talk 1 0.500 0.250 yes 0.9000\ntalk 1 0.750 0.250 no\n"
    grid = to_textgrid({"": WORDS}, 1.0)
    assert all(f'text = "{label}"' in grid for label in ("yes", "no", "▁y", "es"))
