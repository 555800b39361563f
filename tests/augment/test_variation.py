"""Tempo, codecs and time warping, from the plan of an epoch to the features.

Covers `asr/augment/config.py`, `asr/augment/codecs.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.augment.codecs import CODECS, Codec, through_codec
from asr.augment.config import AugmentConfig
from asr.augment.specaugment import warp_time
from asr.dataset.cuts import Corpus
from asr.dataset.manifest import read_manifest
from asr.dataset.sampler import plan_epoch
from asr.dataset.speech_dataset import SpeechDataset
from asr.padded import Padded
from asr.text.normalise import TextConfig
from asr.training.recipe import read_recipe
from tests.tones import RATE, write_corpus

PLAIN = AugmentConfig(speeds=[1.0], concatenate_prob=0)


def speech(seconds: float, rate: int) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * 300 * time) * (time % 0.5 < 0.3)).astype(np.int16)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_a_codec_changes_a_recording_and_not_its_length(codec: Codec, rate: int) -> None:
    samples = speech(1.0, rate)
    heard = through_codec(samples, rate, codec)
    assert (len(heard), heard.dtype) == (len(samples), np.int16)
    assert not np.array_equal(heard, samples)
    # The same sound: most of its power lies where it lay.
    spectrum = np.abs(np.fft.rfft(heard.astype(float)))
    assert abs(int(spectrum.argmax()) - 300) < 5
    assert len(through_codec(samples[:0], rate, codec)) == 0


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_clips_what_it_makes_too_loud(codec: Codec) -> None:
    wave = np.sign(np.sin(2 * np.pi * 200 * np.arange(32000) / 16000))
    samples = (0.98 * 32767 * wave).astype(np.int16)
    coded = through_codec(samples, 16000, codec).astype(np.int32)
    # A value that wraps around jumps by twice the range between two samples of one half wave.
    same = wave[1:] == wave[:-1]
    assert np.abs(np.diff(coded))[same].max() < 50000


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_takes_a_word_of_any_length(codec: Codec) -> None:
    samples = (1000 * np.random.default_rng(0).standard_normal(17000)).astype(np.int16)
    for length in (1, 160, 845, 3377, 9074, 15826, 17000):
        assert len(through_codec(samples[:length], 16000, codec)) == length


def test_a_plan_draws_what_is_asked_for() -> None:
    corpus = Corpus(durations=[2.0] * 400, fastest=[1.2] * 400)
    augment = AugmentConfig(
        speeds=[1.0, 1.1],
        tempos=[0.8, 1.25],
        codec_prob=0.25,
        codecs=["mp3", "vorbis"],
        trim_prob=0.3,
        concatenate_prob=0,
    )
    items = [item for batch in plan_epoch(corpus, augment, 20, 1, 1) for item in batch]
    # Never faster than its transcript can be written.
    assert {round(item.tempo, 4) for item in items} == {0.8, 1.2, round(1.2 / 1.1, 4)}
    assert max(item.speed * item.tempo for item in items) <= 1.2 + 1e-9
    coded = [item.codec for item in items if item.codec]
    assert set(coded) == {"mp3", "vorbis"}
    assert 0.15 < len(coded) / len(items) < 0.35
    cut = [item.trim_db for item in items if item.trim_db is not None]
    assert 0.2 < len(cut) / len(items) < 0.4
    assert 15 <= min(cut) < 17
    assert 33 < max(cut) <= 35
    assert items[0].seconds(corpus.durations) == pytest.approx(
        2.0 / (items[0].speed * items[0].tempo)
    )
    again = [item for batch in plan_epoch(corpus, augment, 20, 1, 1) for item in batch]
    assert items == again


def test_nothing_is_drawn_for_what_is_not_asked_for() -> None:
    corpus = Corpus(durations=[2.0] * 50)
    items = [item for batch in plan_epoch(corpus, PLAIN, 20, 1, 1) for item in batch]
    assert {(item.tempo, item.codec, item.trim_db) for item in items} == {(1.0, None, None)}


def test_a_batch_comes_out_of_its_codec(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, {"train": 2})["train"]
    data = SpeechDataset(read_manifest(manifest), None, TextConfig(), RATE)
    (items,) = plan_epoch(Corpus(data.durations), PLAIN, 100, 1, 1)
    coded = [type(item)(item.stretches, codec="mp3") for item in items]
    plain, heard = data.batch(items), data.batch(coded)
    assert torch.equal(plain.waves.lengths, heard.waves.lengths)
    assert not torch.equal(plain.waves.values, heard.waves.values)
    assert heard.tempos == [1.0, 1.0]


def test_warping_moves_frames_in_order_and_keeps_the_ends() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(50.0)[None, :, None].repeat(3, 1, 2)
    values = ramp.clone()
    values[2, 5:] = torch.nan
    features = Padded(values, torch.tensor([50, 40, 5]))
    warped = warp_time(features, 8)
    for row, length in ((0, 50), (1, 40)):
        frames = warped.values[row, :length, 0]
        assert (frames.diff() > 0).all()
        assert frames[0] == 0
        assert frames[-1] == length - 1
        moved = (frames - ramp[0, :length, 0]).abs().max()
        assert 0.5 < moved <= 8.01
    # Too short to be warped.
    assert torch.equal(warped.values[2, :5], values[2, :5])
    assert warp_time(features, 0) is features


def test_folders_of_a_recipe_are_relative_to_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {train: a.jsonl, dev: b.jsonl}\nout: out\n"
        "augment: {noise: {folder: sounds, prob: 0.2}, reverb: {folder: rooms}}\n"
    )
    augment = read_recipe(recipe).augment
    assert (augment.noise.folder, augment.noise.prob) == (tmp_path / "sounds", 0.2)
    assert augment.reverb.folder == tmp_path / "rooms"
