"""Decoding graphs: what sherpa-onnx decodes with them is the best path through model and lexicon.

Covers `asr/export/openfst.py`.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.decoding.config import BeamConfig, LanguageConfig
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.errors import ConfigError, LanguageModelError
from asr.export import decoding_graph
from asr.export.decoding_graph import build_decoding_graph
from asr.export.openfst import Fst, write_fst
from asr.lm.estimate import estimate
from asr.padded import pad
from asr.text.tokens import TokenConfig, Tokens, build_tokens

TEXTS = ["on no", "no on on", "on noo", "nn on no", "oon no", "on"]
SPELLED = build_tokens(TEXTS, TokenConfig())
WHOLE = build_tokens(TEXTS, TokenConfig(kind="words", word_count=2))


def decoder(tokens: Tokens = SPELLED, order: int = 2, **settings: Any) -> Decoder:
    language = LanguageConfig(weight=0.8, word_bonus=settings.pop("word_bonus", 0.5))
    beam = BeamConfig(size=500, nats=1000.0, token_nats=1000.0)
    config = DecoderConfig(kind="beam", language=language, beam=beam)
    model = estimate(TEXTS, order) if order else None
    return Decoder(tokens, config, model, **settings)


def random_scores(tokens: Tokens, frames: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(frames, len(tokens))) * 2.5
    return np.asarray(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True), np.float32)


def best_path(fst: Fst, scores: np.ndarray) -> tuple[float, list[int]]:
    """The cost of the cheapest path, and the label of each frame, by dynamic programming."""
    outgoing = defaultdict(list)
    for start, label, cost, end in fst.arcs:
        outgoing[start].append((label, cost, end))

    def relaxed(states: dict[int, tuple[float, list[int]]]) -> dict[int, tuple[float, list[int]]]:
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            for label, cost, end in outgoing[state]:
                total = states[state][0] + cost
                if label == 0 and total < states.get(end, (math.inf, []))[0]:
                    states[end] = (total, states[state][1])
                    waiting.append(end)
        return states

    states = relaxed({0: (0.0, [])})
    for frame in scores:
        after: dict[int, tuple[float, list[int]]] = {}
        for state, (total, path) in states.items():
            for label, cost, end in outgoing[state]:
                new = total + cost - frame[label - 1]
                if label and new < after.get(end, (math.inf, []))[0]:
                    after[end] = (new, [*path, label - 1])
        states = relaxed(after)
    return min(
        (total + fst.finals[state], path)
        for state, (total, path) in states.items()
        if state in fst.finals
    )


def expected_path(decoder: Decoder, scores: np.ndarray) -> float:
    """The cost of the cheapest labelling of all frames, by trying every one."""
    tokens, settings = decoder.tokens, decoder.config.language
    best = math.inf
    for labels in itertools.product(range(len(tokens)), repeat=len(scores)):
        ids = [k for k, _ in itertools.groupby(labels) if k]
        words = tokens.decode(ids).split()
        if [i for word in words for i in tokens.encode(word)] != ids:
            continue  # not how these words are written
        if decoder.lexicon is not None and not set(words) <= set(decoder.lexicon):
            continue
        cost = -float(scores[np.arange(len(scores)), labels].sum())
        cost -= settings.word_bonus * len(words)
        if decoder.ngram is not None:
            for score in decoder.ngram.score_sentence(words):
                cost -= settings.weight * score.log_prob
                cost -= settings.unknown_score * score.unknown
        best = min(best, cost)
    return best


@pytest.mark.parametrize("tokens", [SPELLED, WHOLE], ids=["spelled", "whole"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_cheapest_path_is_that_of_all(tokens: Tokens, order: int) -> None:
    lexicon = ("on", "no", "noo", "o") if order != 3 else None
    made = decoder(tokens, order, lexicon=lexicon)
    graph = build_decoding_graph(made)
    for seed in range(4):
        scores = random_scores(tokens, 5, seed)
        cost, _ = best_path(graph, scores)
        # Backing off where the longer n-gram is known may be cheaper: the graph allows both.
        assert cost <= expected_path(made, scores) + 1e-4
        if order < 2:
            assert cost == pytest.approx(expected_path(made, scores), abs=1e-4)


def test_a_long_token_is_not_several_words() -> None:
    made = decoder(WHOLE, 1, word_bonus=10.0)
    scores = np.full((6, len(WHOLE)), -20.0, np.float32)
    scores[:, WHOLE.units.index("▁on")] = 0.0
    _, labels = best_path(build_decoding_graph(made), scores)
    words = [k for k, _ in itertools.groupby(labels) if k]
    assert WHOLE.decode(words).split() == ["on"]


def test_a_spelled_word_follows_a_long_token_at_once() -> None:
    made = decoder(WHOLE)
    ids = [WHOLE.units.index(unit) for unit in ("▁on", "▁", "o", "n", "o")]
    scores = np.full((len(ids), len(WHOLE)), -20.0, np.float32)
    scores[np.arange(len(ids)), ids] = 0.0
    _, labels = best_path(build_decoding_graph(made), scores)
    (text,) = made.texts(pad([torch.from_numpy(scores)]))
    assert WHOLE.decode(labels) == text == "on ono"


def test_a_closed_model_of_weight_0_forbids_nothing() -> None:
    language = LanguageConfig(weight=0.0)
    config = DecoderConfig(kind="beam", language=language)
    closed = Decoder(SPELLED, config, estimate(TEXTS, 2, closed=True))
    opened = Decoder(SPELLED, config, estimate(TEXTS, 2))
    costs = [
        sorted(cost for *_, cost, _ in build_decoding_graph(made).arcs) for made in (closed, opened)
    ]
    assert costs[0] == costs[1]
    forbids = closed.config.model_copy(update={"language": LanguageConfig(weight=1.0)})
    graph = build_decoding_graph(Decoder(SPELLED, forbids, closed.ngram))
    assert all(math.isfinite(cost) for *_, cost, _ in graph.arcs)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_word_of_probability_0_is_left_out_unless_the_weight_is_0(weight: float) -> None:
    config = DecoderConfig(kind="beam", language=LanguageConfig(weight=weight))
    model = estimate(TEXTS, 2)
    log_probs = model.log_probs.copy()
    log_probs[model.words == model.id("noo")] = -np.inf
    model = replace(model, log_probs=log_probs)
    graph = build_decoding_graph(Decoder(SPELLED, config, model, lexicon=("on", "no", "noo")))
    assert all(math.isfinite(cost) for *_, cost, _ in graph.arcs)
    assert all(math.isfinite(cost) for cost in graph.finals.values())
    ids = [*SPELLED.encode("noo"), 0]
    ids.insert(ids.index(SPELLED.units.index("o")) + 1, 0)
    scores = np.full((len(ids), len(SPELLED)), -20.0, np.float32)
    scores[np.arange(len(ids)), ids] = 0.0
    _, labels = best_path(graph, scores)
    heard = SPELLED.decode([k for k, _ in itertools.groupby(labels) if k])
    assert (heard == "noo") == (weight == 0)


@pytest.mark.parametrize("tokens", [SPELLED, WHOLE], ids=["spelled", "whole"])
def test_sherpa_finds_the_cheapest_path(tmp_path: Path, tokens: Tokens) -> None:
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs sherpa-onnx")
    import onnx
    from sherpa_onnx.lib import _sherpa_onnx as core

    from asr.export.graph import FLOAT, Graph
    from asr.export.sherpa_files import tokens_text

    made = decoder(tokens, 3)
    fst = build_decoding_graph(made)
    write_fst(tmp_path / "graph.fst", fst)
    (tmp_path / "tokens.txt").write_text(tokens_text(tokens), encoding="utf-8")
    texts = set()
    for seed in range(8):
        scores = random_scores(tokens, 30, seed)
        graph = Graph()
        silence = graph.add("Mul", graph.add("ReduceMax", "x", axes=[1]), graph.constant(0.0))
        silence = graph.add("Unsqueeze", silence, graph.ints(2))
        graph.named(graph.add("Add", graph.constant(scores[None]), silence), "y")
        model = graph.model({"x": (FLOAT, ["N", "S"])}, {"y": (FLOAT, ["N", "T", len(tokens)])}, {})
        onnx.save(model, str(tmp_path / "model.onnx"))
        recognizer = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
            model=str(tmp_path / "model.onnx"), tokens=str(tmp_path / "tokens.txt")
        )
        options = core.OfflineCtcFstDecoderConfig(graph=str(tmp_path / "graph.fst"))
        recognizer.config.ctc_fst_decoder_config = options
        recognizer.recognizer = core.OfflineRecognizer(recognizer.config)
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, np.ones(1600, np.float32))
        recognizer.decode_stream(stream)
        _, labels = best_path(fst, scores)
        ids = [k for k, _ in itertools.groupby(labels) if k]
        assert stream.result.text.split() == tokens.decode(ids).split()
        assert stream.result.words == []
        texts.add(stream.result.text)
    assert len(texts) > 4


def test_the_graph_agrees_with_the_beam_where_the_sound_is_clear() -> None:
    made = decoder(SPELLED, 2)
    scores = np.full((20, len(SPELLED)), -9.0, np.float32)
    ids = SPELLED.encode("noo on")
    path = [0, *itertools.chain.from_iterable((i, 0) for i in ids)]
    scores[np.arange(len(path)), path] = 0.0
    scores = scores[: len(path)]
    _, labels = best_path(build_decoding_graph(made), scores)
    (text,) = made.texts(pad([torch.from_numpy(scores)]))
    assert SPELLED.decode([k for k, _ in itertools.groupby(labels) if k]) == text == "noo on"


def test_a_decoder_without_knowledge_has_no_graph() -> None:
    with pytest.raises(ConfigError, match="n-gram model or a lexicon"):
        build_decoding_graph(decoder(order=0))


def test_a_model_of_characters_is_refused() -> None:
    characters = estimate(["▁ o n ▁ n o"], 2)
    made = Decoder(SPELLED, DecoderConfig(kind="beam"), characters)
    with pytest.raises(ConfigError, match="n-gram model of words"):
        build_decoding_graph(made)


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_graph, "MOST_ARCS", 10)
    with pytest.raises(LanguageModelError, match="a smaller model"):
        build_decoding_graph(decoder())
