"""The spoken toy corpus: repeatable to the bit, disjoint, varied, and readable.

Covers `asr/text/espeak.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.load import SAMPLE_RATE, load_audio
from asr.dataset.manifest import read_manifest
from asr.demo.synthesis import (
    UTTERANCES_PER_VOICE,
    VOICES,
    make_corpus,
    sentences,
    synthesise,
    synthesise_with_times,
)
from asr.errors import AsrError
from asr.text.espeak import phones_of

espeakng_loader = pytest.importorskip("espeakng_loader")

ALL_VOICES = [voice for voices in VOICES.values() for voice in voices]
SMALL = {"train": 2, "dev": 1, "test": 1}
TEXT = "set a timer for twenty five minutes"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_corpus(tmp_path_factory.mktemp("synthesis") / "corpus", 7, SMALL)


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def in_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_was_spoken_before_leaves_no_trace() -> None:
    # f5 breathes (noise), m4 flutters, f4 echoes: each keeps a state inside the synthesiser.
    for voice in ("en-us+f5", "en+m4", "en-gb-scotland+f4"):
        first = synthesise(TEXT, voice)
        synthesise("lock the garden door", "en-029+m7", words_per_minute=150)
        np.testing.assert_array_equal(synthesise(TEXT, voice), first)


def test_two_processes_make_the_same_corpus(corpus: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "from asr.demo.synthesis import make_corpus, synthesise; synthesise('a different history');"
        f"make_corpus({str(tmp_path / 'again')!r}, 7, {SMALL!r})"
    )
    in_new_process(code)
    assert fingerprint(tmp_path / "again") == fingerprint(corpus["train"].parent)


def test_another_seed_makes_another_corpus(corpus: dict[str, Path], tmp_path: Path) -> None:
    tiny = dict.fromkeys(VOICES, 1)
    a, b = (fingerprint(make_corpus(tmp_path / str(s), s, tiny)["dev"].parent) for s in (1, 2))
    assert a.keys() == b.keys()
    assert not set(a.values()) & set(b.values())


def test_voices_and_sentences_are_disjoint(corpus: dict[str, Path]) -> None:
    splits = {split: list(read_manifest(path)) for split, path in corpus.items()}
    for a, b in itertools.combinations(splits.values(), 2):
        assert not {u.speaker for u in a} & {u.speaker for u in b}
        assert not {u.text for u in a} & {u.text for u in b}
    # Nor does one speaker return under another accent.
    variants = {split: {v.split("+")[1] for v in voices} for split, voices in VOICES.items()}
    for one, other in itertools.combinations(variants.values(), 2):
        assert not one & other


def test_corpus_is_readable_and_as_the_manifest_says(corpus: dict[str, Path]) -> None:
    for split, path in corpus.items():
        utterances = read_manifest(path)
        assert len(utterances) == len(VOICES[split]) * SMALL[split]
        assert len({u.speaker for u in utterances}) == len(VOICES[split])
        for u in utterances:
            samples = load_audio(u.audio)
            assert len(samples) == round(u.duration * SAMPLE_RATE)
            assert 0.8 < u.duration < 6.0
            rate = u.duration / len(u.text)  # seconds a letter
            assert 0.03 < rate < 0.2, (u.id, rate)
            assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.2
            assert np.mean(np.abs(samples) > 0.99) < 1e-3  # hardly any clipping
        lines = path.read_text().splitlines()
        assert all(f'"audio": "{split}/' in line for line in lines)  # the folder can be moved


def test_a_whole_corpus_is_used_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    tiny = dict.fromkeys(VOICES, 1)
    calls: list[tuple[int, int]] = []
    paths = make_corpus(tmp_path / "c", 1, tiny, lambda i, n: calls.append((i, n)))
    total = len(ALL_VOICES)
    assert calls == [(i + 1, total) for i in range(total)]
    before = fingerprint(tmp_path / "c")
    assert make_corpus(tmp_path / "c", 1, tiny, lambda i, n: pytest.fail("made again")) == paths

    read_manifest(paths["dev"])[0].audio.unlink()
    make_corpus(tmp_path / "c", 1, tiny)
    assert fingerprint(tmp_path / "c") == before
    with pytest.raises(AsrError, match=r"expected the corpus of seed 2 .* got another"):
        make_corpus(tmp_path / "c", 2, tiny)  # a model was trained on the other
    assert fingerprint(tmp_path / "c") == before


def test_a_folder_behind_a_link_is_as_good(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    paths = make_corpus(tmp_path / "link" / "c", 1, dict.fromkeys(VOICES, 1))
    for path in paths.values():
        assert all(u.audio.is_file() for u in read_manifest(path))


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(spoken: int, total: int) -> None:
        if spoken == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "c", 1, SMALL, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(AsrError, match="expected a new folder"):
        make_corpus(tmp_path, 1, SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "keep me"


def band_levels(voice: str) -> np.ndarray:
    """Long-term spectrum in 32 bands, in dB about its mean: the timbre, whatever the level."""
    samples = synthesise(TEXT, voice)
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    edges = np.geomspace(100, 7500, 33)
    bands = [
        power[(frequencies >= a) & (frequencies < b)].mean() for a, b in itertools.pairwise(edges)
    ]
    levels = 10 * np.log10(np.array(bands))
    return levels - levels.mean()


def test_voices_are_many_and_truly_different() -> None:
    assert len(set(ALL_VOICES)) == len(ALL_VOICES) >= 24
    levels = {voice: band_levels(voice) for voice in ALL_VOICES}
    for a, b in itertools.combinations(ALL_VOICES, 2):
        distance = float(np.sqrt(np.mean((levels[a] - levels[b]) ** 2)))
        assert distance > 2.0, (a, b, distance)


def test_speed_and_pitch_do_what_they_say() -> None:
    slow, fast = (synthesise(TEXT, "en-us+m3", words_per_minute=w) for w in (120, 200))
    assert len(slow) > 1.3 * len(fast)

    def pitch_hz(samples: np.ndarray) -> float:
        middle = samples[SAMPLE_RATE // 5 :][: SAMPLE_RATE // 2]
        correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
        shortest, longest = SAMPLE_RATE // 250, SAMPLE_RATE // 50
        return SAMPLE_RATE / (shortest + int(np.argmax(correlation[shortest:longest])))

    low, high = (pitch_hz(synthesise("aah", "en-us+m3", 80, pitch)) for pitch in (10, 90))
    assert high > 1.3 * low


def test_words_start_where_the_sound_does() -> None:
    samples, times = synthesise_with_times("open the garage door", "en-us+m3")
    assert [word for word, _ in times] == ["open", "the", "garage", "door"]
    starts = [start for _, start in times]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < 0.1
    assert starts[-1] < len(samples) / SAMPLE_RATE
    # The same first word, alone, is about as long as the second word's start says.
    assert len(synthesise("open the", "en-us+m3")) / SAMPLE_RATE > starts[1]


def test_words_that_are_run_together_stay_one_entry() -> None:
    _, times = synthesise_with_times("turn on the lights", "en-us")
    assert " ".join(word for word, _ in times) == "turn on the lights"


@settings(max_examples=20)
@given(count=st.integers(1, 1500), seed=st.integers(0, 2**32))
def test_sentences_are_different_plain_and_repeatable(count: int, seed: int) -> None:
    drawn = sentences(count, seed)
    assert len(set(drawn)) == len(drawn) == count
    assert drawn == sentences(count, seed)
    assert all(set(s) <= set("abcdefghijklmnopqrstuvwxyz ") and s == s.strip() for s in drawn)


def test_the_training_part_holds_every_word_of_the_others() -> None:
    total = sum(len(VOICES[split]) * n for split, n in UTTERANCES_PER_VOICE.items())
    train = len(VOICES["train"]) * UTTERANCES_PER_VOICE["train"]
    for seed in range(5):
        drawn = sentences(total, seed)
        heard = {word for s in drawn[:train] for word in s.split()}
        assert {word for s in drawn[train:] for word in s.split()} <= heard
        assert 100 <= len(heard) <= 200


def test_too_many_sentences_are_refused() -> None:
    with pytest.raises(AsrError, match="ask for fewer"):
        sentences(10**6, 0)


@pytest.mark.parametrize("voice", ["nowhere", "en-us+nobody", "", "en-us+"])
def test_an_unknown_voice_is_named(voice: str) -> None:
    with pytest.raises(AsrError, match="expected a voice"):
        synthesise(TEXT, voice)


@pytest.mark.parametrize("text", ["", " ", "...", "\0"])
def test_a_text_without_words_is_refused(text: str) -> None:
    with pytest.raises(AsrError, match="expected words"):
        synthesise(text)


def test_missing_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(AsrError, match=r"pip install 'lstm-asr\[demo\]'") as caught:
        make_corpus(tmp_path / "c", 1, SMALL)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_deep_installation_folder_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = synthesise(TEXT, "en-us+m3")
    deep = tmp_path / ("deep" * 40)
    deep.mkdir()
    data = deep / "espeak-ng-data"
    data.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(data))
    np.testing.assert_array_equal(synthesise(TEXT, "en-us+m3"), expected)


def test_phones_of_words() -> None:
    found = phones_of(["hello", "chair", "42", "...", ""], "en-us")
    assert found["hello"] == "h ə l oʊ"
    assert found["chair"] == "tʃ ɛɹ"
    assert found["42"] == "f ɔːɹ ɾ i t uː"
    assert found["..."] == found[""] == ""
    assert phones_of(["straße", "computer"], "de")["straße"].startswith("ʃ t")
    assert phones_of(["می\u200cخواهم"], "fa") == {"می\u200cخواهم": "m i x ɑ h a m"}
    with pytest.raises(AsrError, match="expected a voice"):
        phones_of(["a"], "nowhere")
