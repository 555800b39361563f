"""Covers `asr/models/weights.py` and `asr/io/tensors.py`."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, load_neural, save_neural
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.config import ModelConfig
from asr.padded import Padded
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from tests.contracts import ragged

FILES = ["config.json", "info.json", "model.safetensors", "tokens.json"]


def make_bundle(seed: int = 0) -> Bundle:
    """A small model far from every default, with statistics of its own."""
    torch.manual_seed(seed)
    tokens = build_tokens(["abc é"], TokenConfig())
    features = FeatureConfig(sample_rate=8000, bands=12, shift_ms=12.5, cmvn="global", deltas=1)
    config = ModelConfig(channels=(2,), strides=(3,), layers=1, hidden=4, dropout=0.1)
    model = AcousticModel(features, config, len(tokens))
    model.features.observe(ragged([3000]))
    model(model.features(ragged([3000, 1000])))  # moves the running statistics
    return Bundle(model.eval(), tokens, TextConfig(case="upper"), {"corpus": "toy", "wer": 0.5})


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    save_bundle(tmp_path / "model", bundle)
    return tmp_path / "model"


def outputs(bundle: Bundle) -> Padded:
    with torch.no_grad():
        scores: Padded = bundle.model(bundle.model.features(ragged([2500, 900], seed=2)))
    return scores


def test_what_was_saved_comes_back(bundle: Bundle, folder: Path) -> None:
    loaded = load_bundle(folder)
    assert (loaded.tokens, loaded.text, loaded.info) == (bundle.tokens, bundle.text, bundle.info)
    assert loaded.model.config == bundle.model.config
    assert loaded.model.features.config == bundle.model.features.config
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == bundle.model.state_dict().keys()
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
        assert loaded.model.state_dict()[name].dtype == value.dtype
    assert torch.equal(outputs(loaded).values, outputs(bundle).values)
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_half_precision_is_half_the_size_and_loads_as_float32(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "half", bundle, half=True)
    loaded = load_bundle(tmp_path / "half")
    for name, value in bundle.model.state_dict().items():
        got = loaded.model.state_dict()[name]
        expected = value.half().float() if value.dtype == torch.float32 else value
        assert torch.equal(got, expected), name
        assert got.dtype == value.dtype
    torch.testing.assert_close(outputs(loaded).values, outputs(bundle).values, rtol=0, atol=0.02)
    stored = [load_file(path / "model.safetensors") for path in (tmp_path / "half", folder)]
    weights = [sum(t.nbytes for t in s.values() if t.dtype != torch.float64) for s in stored]
    assert 2 * weights[0] == weights[1]
    # The model in memory is untouched.
    assert all(p.dtype == torch.float32 for p in bundle.model.parameters())


def test_saving_replaces_the_whole_folder(bundle: Bundle, folder: Path) -> None:
    (folder / "stray.txt").write_text("old")
    other = make_bundle(seed=1)
    save_bundle(folder, other)
    assert torch.equal(outputs(load_bundle(folder)).values, outputs(other).values)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_model(bundle: Bundle, folder: Path) -> None:
    broken = Bundle(make_bundle(seed=1).model, bundle.tokens, bundle.text, {"wer": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_bundle(folder, broken)
    assert torch.equal(outputs(load_bundle(folder)).values, outputs(bundle).values)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_what_users_of_a_model_need_to_know(bundle: Bundle) -> None:
    assert bundle.sample_rate == 8000
    assert bundle.normalise(" ab  é") == "AB É"
    for seconds in (0.0, 0.02, 0.5, 1.0):
        samples = int(seconds * 8000)
        frames = bundle.model(bundle.model.features(ragged([samples, 9000]))).lengths[0]
        assert bundle.output_frames(seconds) == int(frames)


def refuses(folder: Path, *expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refuses(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_named(name: str, share: float, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * (len(content) - 2))])
    refuses(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES)
def test_other_bytes_are_named(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"\xff\x00\xfe" * 1000)
    refuses(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    refuses(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES[:2] + FILES[3:])
@pytest.mark.parametrize("content", ["null", "3", '"model"', "[[]]"])
def test_json_of_another_kind_is_named(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    refuses(folder, str(folder / name))


def test_no_folder_and_a_file_in_its_place_are_named(tmp_path: Path) -> None:
    refuses(tmp_path / "nothing", str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    refuses(tmp_path / "file", str(tmp_path / "file"))


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.update(format=99), "format 1"),
        (lambda c: c.pop("format"), "format 1"),
        (lambda c: c["features"].update(band=3), "did you mean 'bands'?"),
        (lambda c: c["model"].update(hiden=3), "did you mean 'hidden'?"),
        (lambda c: c["model"].update(spelling_layer=0), "now model.hierarchical_ctc_layer"),
        (lambda c: c["text"].update(case="odd"), "case"),
        (lambda c: c["model"].update(layers="two"), "layers"),
        (lambda c: c.update(model=[1]), "valid dictionary"),
        (lambda c: c.pop("features"), "features"),
        (lambda c: c.pop("model"), "model"),
        (lambda c: c.pop("text"), "text"),
    ],
    ids=range(11),
)
def test_a_configuration_that_does_not_fit_is_named(
    change: Callable[[Any], Any], expected: str, folder: Path
) -> None:
    change_json(folder / "config.json", lambda c: change(c) and None)
    refuses(folder, str(folder / "config.json"), expected)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda units: units[1:], id="no blank"),
        pytest.param(lambda units: [*units, units[-1]], id="one twice"),
        pytest.param(lambda units: [*units, 5], id="a number"),
        pytest.param(lambda units: {"units": units}, id="a mapping"),
    ],
)
def test_units_that_are_none_are_named(change: Callable[[Any], Any], folder: Path) -> None:
    change_json(folder / "tokens.json", change)
    refuses(folder, str(folder / "tokens.json"))


def test_units_of_another_model_do_not_fit_the_weights(folder: Path) -> None:
    change_json(folder / "tokens.json", lambda units: [*units, "ü"])
    refuses(folder, str(folder), "output.bias of shape (7,), got (6,)")


def test_weights_of_another_model_do_not_fit(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    kept = weights.pop("output.bias")
    save_file(weights, path)
    refuses(folder, str(folder), "output.bias of shape (6,), got nothing")
    save_file({**weights, "output.bias": kept, "extra": kept.clone()}, path)
    refuses(folder, str(folder), "extra of shape nothing, got (6,)")
    save_file({**weights, "output.bias": torch.zeros(6, 1)}, path)
    refuses(folder, str(folder), "output.bias of shape (6,), got (6, 1)")
    change_json(folder / "config.json", lambda c: c["model"].update(hidden=5))
    refuses(folder, str(folder))


def rebuilt(change: Callable[[dict[str, torch.Tensor]], Any], folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@pytest.mark.parametrize(
    "size",
    [
        {"hidden": 8192, "layers": 32},
        {"channels": [8192] * 8, "strides": [1] * 8},
        {"dense": 8192, "hidden": 8192},
        {"conv_lstm": 512, "hidden": 8192},
        {"attention_heads": 64, "hidden": 8192},
        {"cell": "projected", "projection": 8191, "hidden": 8192},
    ],
    ids=lambda size: next(iter(size)),
)
def test_a_configuration_takes_no_memory_before_it_is_compared(
    size: dict[str, Any], folder: Path
) -> None:
    change_json(folder / "config.json", lambda c: c["model"].update(size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuses(folder, str(folder), "of different models")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize(
    "size",
    [{"channels": [1 << 40], "strides": [3]}, {"channels": [1] * 9, "strides": [1] * 9}],
    ids=["wide", "deep"],
)
def test_a_network_larger_than_any_is_refused(size: dict[str, Any], folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c["model"].update(size))
    refuses(folder, str(folder / "config.json"), "channels")


def test_a_header_that_promises_more_than_the_file_holds_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    header = json.dumps(
        {"output.bias": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
    )
    for size in (len(header), 1 << 40):
        path.write_bytes(struct.pack("<Q", size) + header.encode() + bytes(4))
        refuses(folder, str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, folder: Path) -> None:
    rebuilt(lambda weights: weights["output.bias"].fill_(value), folder)
    refuses(folder, str(folder / "model.safetensors"), "finite weights, got output.bias")


def test_scores_that_are_no_numbers_are_an_error(folder: Path) -> None:
    def enlarge(weights: dict[str, torch.Tensor]) -> None:
        weights["output.bias"].fill_(3.4e38)
        weights["output.weight"][0].fill_(3e38)
        weights["output.weight"][1].fill_(-3e38)

    rebuilt(enlarge, folder)
    with pytest.raises(CheckpointError, match="finite scores"):
        outputs(load_bundle(folder))


@pytest.mark.parametrize("kind", [torch.int8, torch.float64, torch.complex64, torch.bool])
def test_weights_of_another_type_are_named(kind: torch.dtype, folder: Path) -> None:
    rebuilt(lambda weights: weights.update({"output.bias": torch.ones(6).to(kind)}), folder)
    refuses(folder, str(folder), "output.bias of type F32 or F16")


@pytest.mark.parametrize(
    "features", [{}, {"kind": "mfcc"}, {"cmvn": "none", "deltas": 2}], ids=["mel", "mfcc", "deltas"]
)
def test_constants_that_are_not_saved_are_made_anew(
    features: dict[str, Any], tmp_path: Path
) -> None:
    tokens = build_tokens(["abc"], TokenConfig())
    config = ModelConfig(channels=(2,), strides=(3,), layers=1, hidden=4)
    model = AcousticModel(FeatureConfig(bands=20, **features), config, len(tokens)).eval()
    save_bundle(tmp_path / "model", Bundle(model, tokens, TextConfig()))
    loaded = load_bundle(tmp_path / "model").model
    for (name, kept), (_, made) in zip(model.named_buffers(), loaded.named_buffers(), strict=True):
        assert torch.equal(kept, made), name
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_keeps_its_weights_when_its_file_is_overwritten(
    bundle: Bundle, folder: Path
) -> None:
    loaded = load_bundle(folder)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(outputs(loaded).values, outputs(bundle).values)


def test_loading_does_not_need_the_compiler_of_torch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NeuralModel(NeuralConfig(hidden=4), 6)
    save_neural(tmp_path / "lstm", NeuralLm(model, load_bundle(folder).tokens))
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it takes seconds
    load_bundle(folder)
    load_neural(tmp_path / "lstm")


def test_any_damaged_byte_is_an_error_or_another_number(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i, name in enumerate(FILES * 25):
        damaged = tmp_path / str(i)
        shutil.copytree(folder, damaged)
        content = bytearray((damaged / name).read_bytes())
        # The first bytes of a safetensors file describe the rest.
        place = int(random.integers(min(len(content), 400)))
        content[place] ^= 1 << int(random.integers(8))
        (damaged / name).write_bytes(content)
        try:
            load_bundle(damaged)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
            assert str(damaged) in str(error)  # noqa: PT017


def test_what_overflows_half_precision_is_kept_whole(tmp_path: Path) -> None:
    bundle = make_bundle()
    name = "encoder.norms.0.running_variance"
    variance = bundle.model.state_dict()[name]
    variance.fill_(1e5)  # above 65504
    variance[0] = 1.5
    save_bundle(tmp_path / "half", bundle, half=True)
    loaded = load_bundle(tmp_path / "half")
    assert torch.equal(loaded.model.state_dict()[name], variance)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert stored["output.weight"].dtype == torch.float16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    bundle = make_bundle()
    with torch.no_grad():
        bundle.model.output.bias[1] = value
    with pytest.raises(CheckpointError, match=r"output\.bias with NaN or infinity"):
        save_bundle(tmp_path / "model", bundle)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_room_is_an_oserror(bundle: Bundle, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_bundle(tmp_path / "model", bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
