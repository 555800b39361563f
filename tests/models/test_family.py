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

# Not every shape bears the larger steps.
OPTIMISATION = {
    "slowly": {"epochs": 15, "learning_rate": 0.01},
    "quickly": {"epochs": 12, "learning_rate": 0.02, "batch_seconds": 3.0},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 40, "dev": 10})


def recipe_of(
    manifests: dict[str, Path], out: Path, settings: dict[str, Any], optimisation: str
) -> Recipe:
    """With the settings of a model; what streams is normalised by the training set."""
    recipe = tone_recipe(manifests, out, **OPTIMISATION[optimisation])
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
    ("settings", "optimisation"),
    [
        # Without the residual: 23 of 30 wrong.
        ({"layers": 10, "hidden": 16, "residual": True}, "quickly"),
        ({"cell": "layer_norm", "conv_lstm": 2}, "slowly"),
        ({"cell": "coupled", "attention_heads": 2}, "quickly"),
        (
            {"strides": (1,), "layers": 3, "cell": "gru", "pyramid": 1}
            | {"hierarchical_ctc_layer": 1},
            "quickly",
        ),
        ({"chunk": 4, "right_context": 3, "cell": "peephole"}, "quickly"),
        ({"bidirectional": False, "lookahead": 4, "cell": "projected", "projection": 12}, "slowly"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_networks_of_every_shape_learn(
    corpus: dict[str, Path],
    tmp_path: Path,
    settings: dict[str, Any],
    optimisation: str,
) -> None:
    model, _ = run_quietly(recipe_of(corpus, tmp_path, settings, optimisation))
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
