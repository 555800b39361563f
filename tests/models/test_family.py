"""Networks of every shape learn a corpus of tones, trained and used the ordinary way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.decoding.greedy import greedy_decode
from asr.inference.decode import decode_dataset
from asr.inference.streaming import Stream
from asr.models.bundle import load_bundle
from asr.padded import Padded
from asr.training.recipe import Recipe
from tests.tones import MODEL, RATE, run_quietly, tone_recipe, write_corpus

EPOCHS = 15


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 40, "dev": 10})


def recipe_of(manifests: dict[str, Path], out: Path, settings: dict[str, Any]) -> Recipe:
    """With the settings of a model; what streams is normalised by the training set."""
    recipe = tone_recipe(manifests, out, epochs=EPOCHS, learning_rate=0.01)
    streams = "chunk" in settings or "lookahead" in settings
    cmvn = {"cmvn": "global"} if streams else {}
    return recipe.model_copy(
        update={
            "model": MODEL.model_copy(update=settings),
            "features": recipe.features.model_copy(update=cmvn),
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 10, "hidden": 16, "residual": True},  # without the residual: 20 of 30 wrong
        {"cell": "layer_norm", "conv_lstm": 2},
        {"cell": "coupled", "attention_heads": 2},
        {"strides": (1,), "layers": 3, "cell": "gru", "pyramid": 1, "hierarchical_ctc_layer": 1},
        {"chunk": 4, "right_context": 3, "cell": "peephole"},
        {"bidirectional": False, "lookahead": 4, "cell": "projected", "projection": 12},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_networks_of_every_shape_learn(
    corpus: dict[str, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    model, _ = run_quietly(recipe_of(corpus, tmp_path, settings))
    bundle = load_bundle(model)
    assert bundle.info["dev_words"] == 30
    assert bundle.info["dev_errors"] <= 6
    if bundle.model.config.chunk or not bundle.model.config.bidirectional:
        dev = SpeechDataset(read_manifest(corpus["dev"]), None, bundle.text, RATE)
        whole = decode_dataset(bundle.model, dev, Decoder(bundle.tokens))
        for index, utterance in enumerate(dev.utterances):
            samples = torch.from_numpy(dev.waveform(index)) / 32768
            stream = Stream(bundle.model)
            scores = torch.cat([*map(stream.push, samples.split(1000)), stream.finish()])
            (ids,) = greedy_decode(Padded(scores[None], torch.tensor([len(scores)])))
            assert bundle.tokens.decode(ids) == whole[utterance.id]
