"""Which slot of sherpa-onnx a model fits, and the refusal of models that fit none.

Covers `asr/export/sherpa.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from asr.errors import ConfigError
from asr.export.sherpa import choose_slot
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from tests.export.test_network import bundle


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"cmvn": "global"}, "features.kind"),
        ({"cmvn": "none"}, "changes the level"),
        ({"sample_rate": 22050}, "16000 or 8000 Hz, got 22050"),
        ({"kind": "kaldi", "bands": 64}, "80 bands at 16000 Hz"),
        ({"kind": "nemo", "shift_ms": 20.0}, "features.shift_ms 10 .* got 25 and 20"),
    ],
    ids=str,
)
def test_features_that_sherpa_cannot_give_are_refused(
    settings: dict[str, Any], advice: str
) -> None:
    source = bundle()
    features = FeatureConfig(**settings)
    model = AcousticModel(features, source.model.config, len(source.tokens))
    with pytest.raises(ConfigError, match=advice):
        choose_slot(Bundle(model, source.tokens, source.text))


@pytest.mark.parametrize("features", [{}, {"kind": "kaldi"}, {"kind": "nemo"}], ids=str)
def test_chunks_need_features_that_stream(features: dict[str, Any]) -> None:
    source = bundle(chunk=4)
    model = AcousticModel(FeatureConfig(**features), source.model.config, len(source.tokens))
    with pytest.raises(ConfigError, match=r"features.kind nemo, and cmvn none or global"):
        choose_slot(Bundle(model, source.tokens, source.text))
