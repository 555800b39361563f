from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.ctc.align import align
from asr.dataset.cuts import Corpus, Item, spliced, whole
from asr.dataset.manifest import Utterance
from asr.dataset.speech_dataset import SpeechDataset
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from tests.ctc.reference import collapse

SPEAKERS = ["ann", "bob", "ann", "", "bob"]
DURATIONS = [2.0, 3.0, 1.0, 2.0, 4.0]
WORD_STARTS = {
    0: [0.0, 0.5, 1.5],
    1: [0.0, 2.0],
    2: [0.0],
    3: [0.0, 1.0],
    4: [0.0, 0.5, 1.0, 2.0, 3.0],
}
CORPUS = Corpus(DURATIONS, SPEAKERS, word_starts=WORD_STARTS)


def plan(prob: float, seed: int) -> list[Item]:
    items = [whole(i, speed=0.9) for i in range(5)]
    random = np.random.default_rng(seed)
    return spliced(items, CORPUS, prob, random, np.arange(len(DURATIONS)))


def new_sentences() -> Iterator[tuple[int, Item]]:
    """A hundred times every utterance of a named speaker, with what replaces it."""
    for seed in range(100):
        for index, item in enumerate(plan(1.0, seed)):
            if SPEAKERS[index]:
                yield index, item
            else:
                assert item == whole(index, speed=0.9)


def test_new_sentences_are_whole_words_of_one_speaker() -> None:
    for index, item in new_sentences():
        for stretch in item.stretches:
            assert SPEAKERS[stretch.index] == SPEAKERS[index]
            assert stretch.last is not None
            bounds = [*WORD_STARTS[stretch.index], DURATIONS[stretch.index]]
            assert 1 <= stretch.last - stretch.first <= 3
            assert (stretch.start, stretch.end) == (bounds[stretch.first], bounds[stretch.last])


def test_new_sentences_are_about_as_long_as_the_old() -> None:
    for index, item in new_sentences():
        longest = max(stretch.seconds(DURATIONS) for stretch in item.stretches)
        assert abs(item.seconds(DURATIONS) * 0.9 - DURATIONS[index]) <= longest / 2 + 4.0 / 2
    means = [plan(1.0, seed)[4].seconds(DURATIONS) * 0.9 for seed in range(200)]
    assert np.mean(means) == pytest.approx(DURATIONS[4], rel=0.25)


def test_short_sentences_are_one_stretch() -> None:
    items = [whole(1)] * 200
    random = np.random.default_rng(1)
    drawn = spliced(items, CORPUS, 1.0, random, np.arange(len(DURATIONS)), short_prob=0.4)
    counts = [len(item.stretches) for item in drawn]
    assert set(spliced(items, CORPUS, 0.0, random, np.arange(5), short_prob=1.0)) == {whole(1)}
    alone = spliced(items, CORPUS, 1.0, random, np.arange(5), short_prob=1.0)
    assert {len(item.stretches) for item in alone} == {1}
    # Others have one stretch only if it is as long as the sentence.
    usual = spliced(items, CORPUS, 1.0, random, np.arange(len(DURATIONS)))
    assert np.mean(np.equal(counts, 1)) > np.mean([len(i.stretches) == 1 for i in usual]) + 0.15


def test_share_and_repeatability() -> None:
    assert plan(0.0, 1) == [whole(i, speed=0.9) for i in range(5)]
    replaced = [
        item != whole(i, speed=0.9)
        for seed in range(200)
        for i, item in enumerate(plan(0.5, seed)[:3])
    ]
    assert 0.4 < np.mean(replaced) < 0.6
    assert plan(0.5, 7) == plan(0.5, 7)


def test_a_dataset_plays_the_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b c", "d e"]
    tokens = build_tokens(texts, TokenConfig())
    utterances = [
        Utterance(f"u{i}", None, text, 1.0, "ann")  # type: ignore[arg-type]
        for i, text in enumerate(texts)
    ]
    data = SpeechDataset(utterances, tokens, TextConfig(), 1000)
    ramp = np.arange(1000, dtype=np.int16)
    monkeypatch.setattr(data, "waveform", lambda index: ramp + 10_000 * index)
    corpus = Corpus([1.0], ["ann"], word_starts={0: [0.0, 0.25, 0.5]})
    (item,) = spliced([whole(0)], corpus, 1.0, np.random.default_rng(3), np.arange(1))
    batch = data.batch([item])
    assert batch.ids == ["+".join(["u0"] * len(item.stretches))]
    said = " ".join(" ".join("abc"[s.first : s.last]) for s in item.stretches)
    assert tokens.decode(batch.targets.values[0].tolist()) == said
    expected = np.concatenate(
        [ramp[int(s.start * 1000) : int((s.end or 0) * 1000)] for s in item.stretches]
    )
    played = batch.waves.values[0].numpy() * 32768
    assert len(played) == len(expected)
    # Equal but for soft edges.
    assert np.mean(np.isclose(played, expected, atol=0.01)) > 0.9


def test_a_dataset_cuts_tightly(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = build_tokens(["a"], TokenConfig())
    utterance = Utterance("u", None, "a", 1.0, "ann")  # type: ignore[arg-type]
    data = SpeechDataset([utterance], tokens, TextConfig(), 1000)
    hiss, voice = np.tile([3.0, -3.0], 500), np.tile([1000.0, -1000.0], 500)
    speech = np.where((np.arange(1000) >= 200) & (np.arange(1000) < 700), voice, hiss)
    monkeypatch.setattr(data, "waveform", lambda index: speech.astype(np.float32))
    plain, tight = data.batch([whole(0)]), data.batch([replace(whole(0), trim_db=30.0)])
    assert plain.samples == [1000]
    assert tight.samples == [500]
    assert torch.equal(tight.waves.values[0], plain.waves.values[0, 200:700])
    # Nothing is cut from what is nowhere so quiet.
    assert data.batch([replace(whole(0), trim_db=60.0)]).samples == [1000]


def test_alignment_spells_the_target_on_the_best_path() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.log_softmax(torch.randn(7, 4, generator=generator), dim=1)
        target = [1, 1, 3]
        spans = align(scores, target)
        path = np.zeros(7, int)
        for unit, (first, last) in zip(target, spans, strict=True):
            path[first : last + 1] = unit
        assert collapse(path.tolist()) == target
        best = max(
            sum(float(scores[t, u]) for t, u in enumerate(p))
            for p in itertools.product(range(4), repeat=7)
            if collapse(p) == target
        )
        got = sum(float(scores[t, u]) for t, u in enumerate(path))
        assert got == pytest.approx(best, abs=1e-4)


def test_words_without_sound_are_not_taken() -> None:
    starts = {0: [0.0, 0.515, 0.505, 1.0], 1: [0.0, 0.5, 0.5]}
    corpus = Corpus([2.0, 1.0], ["ann", "ann"], word_starts=starts)
    items = [whole(0)] * 200
    for item in spliced(items, corpus, 1.0, np.random.default_rng(0), np.arange(2)):
        for stretch in item.stretches:
            assert stretch.seconds(corpus.durations) > 0.015
