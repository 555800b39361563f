"""Which weights of a model or encoder a training takes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.errors import CheckpointError, ConfigError
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import SpeechEncoder
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from asr.training.finetune import InitConfig, initialise_from, layers_taken
from tests.tones import FEATURES, MODEL, untrained_bundle

Tones = tuple[dict[str, Path], Path]


def test_layers_are_copied_and_shared_units_keep_their_rows(tones: Tones) -> None:
    known = load_bundle(tones[1])
    tokens = build_tokens(["low elsewhere"], TokenConfig(kind="words", word_count=1))
    model = type(known.model)(FEATURES, MODEL, len(tokens))
    before = model.output.weight.clone()
    said = initialise_from(model, tokens, tones[1])
    shared = [unit for unit in tokens.units if unit in known.tokens.units]
    assert f"{len(shared)} of {len(tokens)} tokens" in said
    for name, tensor in known.model.state_dict().items():
        assert name.startswith("output.") or torch.equal(model.state_dict()[name], tensor), name
    for place, unit in enumerate(tokens.units):
        if unit in shared:
            row = known.model.output.weight[known.tokens.units.index(unit)]
            assert torch.equal(model.output.weight[place], row)
        else:
            assert torch.equal(model.output.weight[place], before[place])


def test_an_attention_decoder_is_copied_with_the_rows_of_shared_units(tmp_path: Path) -> None:
    known, other = untrained_bundle().tokens, build_tokens(["low jazz"], TokenConfig())
    config = MODEL.model_copy(update={"attention_decoder": 8})
    theirs = AcousticModel(FEATURES, config, len(known))
    save_bundle(tmp_path / "known", Bundle(theirs, known, TextConfig()))
    given = theirs.state_dict()
    shared = [unit for unit in other.units if unit in known.units]
    assert 1 < len(shared) < len(other)
    for cells in (8, 4, 0):
        config = MODEL.model_copy(update={"attention_decoder": cells})
        model = AcousticModel(FEATURES, config, len(other))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        initialise_from(model, other, tmp_path / "known")
        for name, value in model.state_dict().items():
            if not name.startswith("attention_decoder."):
                continue
            if "output" in name or "embedding" in name:
                same_size = value.shape[1:] == given[name].shape[1:]
                for place, unit in enumerate(other.units):
                    copied = unit in known.units and same_size
                    row = given[name][known.units.index(unit)] if copied else before[name][place]
                    assert torch.equal(value[place], row), (name, unit)
            else:
                same_size = value.shape == given[name].shape
                assert torch.equal(value, given[name] if same_size else before[name]), name


def test_self_conditioning_may_be_new_and_shared_units_keep_their_columns(
    tones: Tones, tmp_path: Path
) -> None:
    settings = {"layers": 2, "intermediate_ctc": (1,), "self_conditioning": True}
    config = MODEL.model_copy(update=settings)
    tokens = build_tokens(["high", "low"], TokenConfig(kind="words", word_count=1))
    known = AcousticModel(FEATURES, config, len(tokens))
    assert known.conditioning is not None
    with torch.no_grad():
        known.conditioning.weight.normal_()
    save_bundle(tmp_path / "known", Bundle(known, tokens, TextConfig()))
    more = build_tokens(["down", "low"], TokenConfig(kind="words", word_count=1))
    model = AcousticModel(FEATURES, config, len(more))
    initialise_from(model, more, tmp_path / "known")
    assert model.conditioning is not None
    for place, unit in enumerate(more.units):
        column = model.conditioning.weight[:, place]
        if unit in tokens.units:
            assert torch.equal(column, known.conditioning.weight[:, tokens.units.index(unit)])
        else:
            assert not column.any()

    unconditioned = config.model_copy(update={"self_conditioning": False})
    plain = AcousticModel(FEATURES, unconditioned, len(tokens))
    with pytest.raises(ConfigError, match=r"model\.self_conditioning=true and .*ctc=.1. as in"):
        initialise_from(plain, tokens, tmp_path / "known")
    save_bundle(tmp_path / "plain", Bundle(plain, tokens, TextConfig()))
    initialise_from(model, more, tmp_path / "plain")


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_a_lookahead_may_be_another(tmp_path: Path, frames: int) -> None:
    features = FEATURES.model_copy(update={"cmvn": "global"})
    one_way = MODEL.model_copy(update={"bidirectional": False})
    tokens = build_tokens(["low"], TokenConfig(kind="words", word_count=1))
    config = one_way.model_copy(update={"lookahead": 2})
    known = AcousticModel(features, config, len(tokens))
    assert known.encoder.lookahead is not None
    with torch.no_grad():
        known.encoder.lookahead.weight.copy_(torch.randn(3, MODEL.hidden))
    save_bundle(tmp_path / "known", Bundle(known, tokens, TextConfig()))
    config = one_way.model_copy(update={"lookahead": frames})
    model = AcousticModel(features, config, len(tokens))
    initialise_from(model, tokens, tmp_path / "known")
    if model.encoder.lookahead is not None:
        shared, own = known.encoder.lookahead.weight[: frames + 1], model.encoder.lookahead.weight
        assert torch.equal(own[: len(shared)], shared)
        assert not own[len(shared) :].any()


def test_half_of_an_encoders_layers_are_taken(tones: Tones, tmp_path: Path) -> None:
    config = MODEL.model_copy(update={"layers": 3})
    encoder = SpeechEncoder(FEATURES, config)
    save_encoder(tmp_path / "encoder", encoder, {})
    tokens = build_tokens(["low"], TokenConfig())
    for given, taken in ((None, 2), (1, 1), (3, 3)):
        init = InitConfig(model=tmp_path / "encoder", layers=given)
        model = AcousticModel(FEATURES, config, len(tokens))
        assert layers_taken(model, init) == taken
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        initialise_from(model, tokens, tmp_path / "encoder", taken)
        for name, weight in model.encoder.layers.named_parameters(prefix="encoder.layers"):
            source = encoder.state_dict() if int(name.split(".")[2]) < taken else before
            torch.testing.assert_close(weight.detach(), source[name], rtol=2e-3, atol=1e-4)
    for wrong in ({"layers": 4}, {"freeze_layers": 3}):
        with pytest.raises(ConfigError, match=rf"expected init\.{next(iter(wrong))} of at most"):
            layers_taken(model, InitConfig(model=tmp_path / "encoder", **wrong))
    with pytest.raises(ConfigError, match=r"expected an encoder of asr pretrain with init\.layers"):
        layers_taken(model, InitConfig(model=tones[1], layers=1))
    gone = InitConfig(model=tmp_path / "gone", layers=1)
    assert layers_taken(model, gone) == 3  # loading it says what is wrong


def test_other_shapes_are_named(tones: Tones, tmp_path: Path) -> None:
    bundle = untrained_bundle()
    other = MODEL.model_copy(update={"hidden": MODEL.hidden + 1, "dropout": 0.4})
    model = AcousticModel(FEATURES, other, len(bundle.tokens))
    with pytest.raises(
        ConfigError,
        match=rf"expected model\.hidden={MODEL.hidden} as in .*, got {MODEL.hidden + 1}:",
    ) as caught:
        initialise_from(model, bundle.tokens, tones[1])
    assert "dropout" not in str(caught.value)
    with pytest.raises(CheckpointError, match="expected a model folder"):
        initialise_from(bundle.model, bundle.tokens, tmp_path / "absent")
