"""Cards of models: read back by the hub's own client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from asr.models.about import AboutConfig
from asr.sharing.card import LICENCES, features_text, network_text, readme, rows
from asr.sharing.facts import ModelFacts, read_facts
from tests.sharing.models import INFO, make_model, make_report


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    run = tmp_path_factory.mktemp("card") / "tones"
    model = make_model(run)
    make_report(run / "dev", model, "dev.jsonl", date="2026-11-20T00:00:00", decoder="greedy | x")
    return read_facts(model)


def test_the_client_of_the_hub_reads_it(facts: ModelFacts) -> None:
    data: Any = ModelCard(readme(facts, "ann/tones")).data
    assert (data.language, data.license, data.datasets) == (["en"], "cc-by-4.0", ["Tones"])
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.metrics == ["wer"]
    results = data.eval_results
    assert results is not None
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in results] == [
        ("test.jsonl", "wer", 6.67),
        ("dev.jsonl", "wer", 6.67),
    ]
    assert data.model_name == "tones"


def test_people_read_it(facts: ModelFacts) -> None:
    text = readme(facts, "ann/tones")
    assert "# ann/tones\n\nFour tones.\n" in text
    low, high = facts.evaluations[0].interval or (0, 0)
    bounds = f"{100 * low:.1f} to {100 * high:.1f}"
    assert f"| corpus/test.jsonl | WER 6.67 | {bounds} | 4/60 words |" in text
    assert "greedy \\| x" in text
    assert "asr models pull ann/tones tones" in text
    assert "- speech: 1.5 hours, 40 utterances, 7 speakers" in text
    assert "somebody" not in text  # the folders of users
    assert "asr models pull" not in readme(facts, "tones")  # in a package


def test_a_card_without_facts(tmp_path: Path) -> None:
    facts = read_facts(make_model(tmp_path / "run", {}, report=None, lm=False))
    card = ModelCard(readme(facts, "ann/x"))
    data: Any = card.data
    assert (data.license, data.eval_results) == (None, None)
    assert "unknown" not in card.text
    shown = rows(facts)
    assert [shown[name] for name in ("languages", "licence", "data", "speech")] == ["unknown"] * 4
    assert shown["decoder"] == "greedy"


def test_a_licence_that_the_hub_does_not_know(facts: ModelFacts) -> None:
    assert "cc-by-4.0" in LICENCES
    about = AboutConfig(licence="CERN-OHL-P-2.0")
    data: Any = ModelCard(readme(replace(facts, about=about), "ann/x")).data
    assert (data.license, data.to_dict()["license_name"]) == ("other", "cern-ohl-p-2.0")


def test_texts_from_outside_stay_texts(facts: ModelFacts) -> None:
    said = "Tones\x1b[2J.\n---\nlicense: mit"
    about = AboutConfig(description=said, datasets=("a: b\n- c", "[x](y)"))
    text = readme(replace(facts, about=about), "ann/x")
    assert "\x1b" not in text
    data: Any = ModelCard(text).data
    assert data.datasets == ["a: b\n- c", "[x](y)"]
    assert data.license is None
    assert "data: a: b - c, \\[x\\](y)" in text


def test_networks_and_features_in_words(facts: ModelFacts) -> None:
    network = facts.network.model_copy(
        update={
            "chunk": 20,
            "pyramid": 2,
            "conv_lstm": 16,
            "attention_heads": 4,
            "attention_decoder": 96,
        }
    )
    text = network_text(network)
    for words in (
        "chunks of 20 frames",
        "ConvLSTM of 16",
        "attention of 4 heads",
        "decoder of 96 cells",
    ):
        assert words in text
    network = network.model_copy(update={"chunk": (8, 64)})
    assert "chunks of 8 to 64 frames" in network_text(network)
    other = facts.features.model_copy(update={"kind": "mfcc", "coefficients": 13, "cmvn": "global"})
    assert features_text(replace(facts, features=other)).startswith("13 mfcc every 10 ms")
    assert "normalised globally" in features_text(replace(facts, features=other))
    assert rows(facts)["trained"] == f"{INFO['date']}, 3 epochs in 2 minutes"
    data = facts.info.training_data.model_copy(update={"hours": 0.7, "speakers": None})
    info = facts.info.model_copy(update={"training_data": data})
    assert rows(replace(facts, info=info))["speech"] == "42 minutes, 40 utterances"
