"""Long recordings become short utterances: nothing said is lost, doubled or cut through.

Covers `asr/audio/silence.py` and `asr/dataset/segments.py`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.load import write_wav
from asr.audio.silence import Gap, cuts
from asr.cli.recipes import shorten_recordings
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.segments import WordPart, segments
from asr.errors import ConfigError
from asr.inference.segment import Cut, cut_all, write_cuts
from asr.models.bundle import load_bundle
from asr.text.normalise import TextConfig, normalise
from asr.text.phones import Phones
from tests.commands import Command
from tests.tones import GAP_SECONDS, RATE, TONE_SECONDS, speak, tone_recipe, write_corpus

Tones = tuple[dict[str, Path], Path]
WORD_SECONDS = 2 * TONE_SECONDS + GAP_SECONDS


def long_recording(folder: Path, words: int, lead_seconds: float = 0.0) -> Utterance:
    """A recording of many words, after so much silence that the utterance does not begin with."""
    random = np.random.default_rng(1)
    text = " ".join(random.choice(["low", "high", "up", "down"], words))
    spoken = speak(text, seed=2)
    samples = np.concatenate([np.zeros(int(lead_seconds * RATE), np.float32), spoken])
    write_wav(folder / "long.wav", samples, RATE)
    end = len(samples) / RATE if lead_seconds else None
    return Utterance(
        "long", folder / "long.wav", text, len(spoken) / RATE, "ann", lead_seconds, end
    )


@pytest.mark.parametrize("lead", [0.0, 1.5])
def test_pieces_hold_every_word_once(tones: Tones, tmp_path: Path, lead: float) -> None:
    whole = long_recording(tmp_path, 60, lead)
    (cut,) = cut_all(load_bundle(tones[1]), [whole], seconds=1.0)
    assert cut.error is None
    assert len(cut.segments) > 5
    assert " ".join(segment.text for segment in cut.segments) == whole.text
    assert [segment.id for segment in cut.segments[:2]] == ["long-1", "long-2"]
    assert cut.segments[0].start == lead
    assert cut.segments[-1].end == whole.end
    said = 0
    for segment, following in itertools.pairwise(cut.segments):
        assert segment.end == following.start
        assert 0.5 <= segment.duration <= 1.5
        said += len(segment.text.split())
        # The recording begins with a gap; each word is followed by one.
        gap_ends = lead + GAP_SECONDS + said * WORD_SECONDS
        assert gap_ends - GAP_SECONDS <= following.start <= gap_ends
    assert sum(segment.duration for segment in cut.segments) == pytest.approx(
        whole.duration, abs=0.01
    )
    assert {segment.speaker for segment in cut.segments} == {"ann"}


def cut_text(text: str, spoken: str, after: int, *, glued: bool = False) -> list[str]:
    """The texts of two segments, divided after so many normalised words."""
    words = list(spoken) if glued else spoken.split()
    parts = [WordPart(word, glued and i > 0) for i, word in enumerate(words)]
    gaps = [Gap(i + 1.0, 0.0 if i + 1 == after else 9.0) for i in range(len(words) - 1)]
    u = Utterance("a", Path("/a.wav"), text, float(len(words)))

    def plain(written: str) -> str:
        return normalise(written, TextConfig(punctuation="remove"))

    found = list(segments(u, parts, gaps, u.duration, u.duration / 1.6, plain))
    assert "".join(plain(part.text) for part in found).replace(" ", "") == spoken.replace(" ", "")
    return [part.text for part in found]


def test_words_are_written_where_they_are_said() -> None:
    text, spoken = "Well – the well-known story ends here", "well the well known story ends here"
    assert len(text.split()) == len(spoken.split())
    assert cut_text(text, spoken, 4) == ["Well – the well-known", "story ends here"]
    # Nobody knows where a written word of two spoken ones divides.
    assert "well-known" in cut_text(text, spoken, 3)[0]
    assert cut_text("– No, no!", "no no", 1) == ["– No,", "no!"]
    # A normalised text of other words than those that are written.
    assert cut_text("three four", "three four", 1) == ["three", "four"]


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    assert cut_text("你好世界", "你好世界", 2, glued=True) == ["你好", "世界"]
    assert cut_text("你好，世界。", "你好世界", 2, glued=True) == ["你好", "世界"]
    assert cut_text("abracadabra", "abracadabra", 5, glued=True) == ["abracadabra"]
    # What is not divided stays as it is written.
    assert cut_text("Das VW車， sagte Er", "das vw車 sagte er", 2) == ["Das VW車，", "sagte Er"]
    # A name in Latin letters, and a vowel with the consonant after it, stay whole.
    assert cut_text("我在用iphone", "我在用iphone", 5, glued=True) == ["我在用", "iphone"]
    assert cut_text("ดีเมา", "ดีเมา", 3, glued=True) == ["ดี", "เมา"]


def test_a_model_of_phones_does_not_know_where_words_end(tones: Tones, tmp_path: Path) -> None:
    bundle = load_bundle(tones[1])
    text = bundle.text.model_copy(update={"phones": Phones(words={"low": "L OW"})})
    with pytest.raises(ConfigError, match="got one of phones"):
        list(cut_all(replace(bundle, text=text), [long_recording(tmp_path, 5)], 1.0))


def test_no_id_is_given_twice(tmp_path: Path) -> None:
    whole = Utterance("a-1", tmp_path / "a-1.wav", "low", 1.0)
    parts = tuple(Utterance(f"a-{i}", tmp_path / "a.wav", "low", 1.0) for i in (1, 2))
    write_cuts(tmp_path / "out.jsonl", [Cut(parts), Cut((whole,))], 2)
    written = read_manifest(tmp_path / "out.jsonl")
    assert [(u.id, u.audio.name) for u in written] == [
        ("a-1x", "a.wav"), ("a-2", "a.wav"), ("a-1", "a-1.wav"),
    ]  # fmt: skip


def test_what_is_short_stays_as_it_is(tones: Tones, tmp_path: Path) -> None:
    whole = long_recording(tmp_path, 5)
    (cut,) = cut_all(load_bundle(tones[1]), [whole], seconds=1.0)
    assert cut.segments == (whole,)


@given(
    st.lists(st.tuples(st.floats(0.05, 3.0), st.floats(0, 10)), max_size=40),
    st.floats(0.5, 5.0),
)
def test_no_piece_is_too_short(steps: list[tuple[float, float]], seconds: float) -> None:
    places = np.cumsum([step for step, _ in steps]).tolist()
    gaps = [Gap(place, energy) for place, (_, energy) in zip(places, steps, strict=True)]
    duration = (places[-1] if places else 0.0) + 0.3
    chosen = cuts(gaps, duration, seconds)
    assert chosen == sorted(set(chosen))
    bounds = [0.0, *(places[i] for i in chosen)]
    lengths = [b - a for a, b in itertools.pairwise(bounds)]
    assert all(length >= seconds / 2 for length in lengths)
    # A segment is longer than wanted only where nobody could have cut it.
    for (start, end), length in zip(itertools.pairwise(bounds), lengths, strict=True):
        if length > 1.5 * seconds:
            assert not [p for p in places if start + seconds / 2 <= p <= start + 1.5 * seconds]
            assert end in places


def test_the_quietest_place_is_cut() -> None:
    gaps = [Gap(2.0, 5.0), Gap(3.0, 1.0), Gap(4.0, 5.0), Gap(6.0, 0.0), Gap(7.0, 5.0)]
    assert cuts(gaps, 10.0, 4.0) == [3]  # within 6 seconds
    assert cuts(gaps, 10.0, 3.0) == [1, 3]


def test_the_command_writes_a_manifest_and_names_what_it_left(
    tones: Tones, tmp_path: Path, run: Command
) -> None:
    whole = long_recording(tmp_path, 30)
    odd = Utterance("odd", whole.audio, "qqq", whole.duration, "ann")
    write_manifest(tmp_path / "all.jsonl", [whole, odd])
    out = tmp_path / "short.jsonl"
    ended = run("cut", tones[1], tmp_path / "all.jsonl", "--out", out, "--seconds", "1")
    assert ended.status == 1
    (error,) = ended.errors
    assert error.startswith("error: left whole: odd: expected characters of the model's tokens")
    segments = read_manifest(out)
    assert segments[-1].id == "odd"
    assert " ".join(segment.text for segment in segments[:-1]) == whole.text
    assert f"2 utterances in {len(segments)} segments" in ended.err


def test_a_recipe_trains_on_pieces_of_what_its_first_model_aligns(
    tmp_path: Path, run: Command
) -> None:
    manifests = write_corpus(tmp_path / "data", {"train": 4, "dev": 2})
    long = long_recording(tmp_path, 60)
    write_manifest(manifests["train"], [*read_manifest(manifests["train"]), long])
    recipe = tone_recipe(manifests, tmp_path / "aligner", epochs=1)
    (tmp_path / "aligner.yaml").write_text(recipe.model_dump_json())
    ended = run(function=lambda: shorten_recordings(tmp_path / "aligner.yaml", manifests["train"]))
    assert ended.status == 0, ended.err
    segments = read_manifest(tmp_path / "data" / "short.jsonl")
    assert len(segments) > 5
    assert " ".join(u.text for u in segments if u.id.startswith("long")) == long.text
