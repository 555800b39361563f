"""Exported folders: the texts of the model they were made of, without torch.

Covers `asr/export/quantise.py`, `asr/inference/onnx_model.py`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from asr.audio.load import load_audio
from asr.dataset.manifest import Utterance, read_manifest
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import load_decoder, save_decoder
from asr.errors import AsrError, CheckpointError, ConfigError
from asr.export import onnx_folder
from asr.export.onnx_folder import (
    TOLERANCE,
    build_graph,
    check_parity,
    export_onnx,
    metadata,
    torch_scores,
)
from asr.features.extractor import FeatureConfig
from asr.inference.onnx_model import GRAPH, OnnxModel, load_onnx
from asr.io.onnx_session import open_graph
from asr.models.acoustic import AcousticModel
from asr.models.bundle import load_bundle, save_bundle
from asr.sharing.facts import read_facts
from tests.export.test_network import bundle
from tests.tones import trained_tones


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Utterance]]:
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    return model, list(read_manifest(manifests["test"]))


@pytest.fixture(scope="module")
def exported(
    tones: tuple[Path, list[Utterance]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("exported")
    export_onnx(tones[0], out / "float")
    export_onnx(tones[0], out / "int8", int8=True)
    return {"float": out / "float", "int8": out / "int8"}


def greedy(model: OnnxModel, waves: list[np.ndarray]) -> list[str]:
    texts = []
    for row in model.score(waves)[0]:
        best = row.argmax(axis=1)
        kept = best[np.insert(best[1:] != best[:-1], 0, True)]
        texts.append(model.tokens.decode([int(i) for i in kept if i]))
    return texts


def test_a_range_of_chunks_is_exported_whole(tmp_path: Path) -> None:
    source = bundle(FeatureConfig(bands=12, cmvn="none"), chunk=(3, 9), right_context=2)
    save_bundle(tmp_path / "model", source)
    export_onnx(tmp_path / "model", tmp_path / "out")  # compared with torch
    network = json.loads((tmp_path / "out" / "config.json").read_text())["model"]
    assert (network["chunk"], network["right_context"]) == (0, 0)
    load_onnx(tmp_path / "out")


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_texts_are_those_of_torch(
    tones: tuple[Path, list[Utterance]], exported: dict[str, Path], kind: str
) -> None:
    model = load_onnx(exported[kind])
    source = load_bundle(tones[0])
    waves = [load_audio(u.audio, model.sample_rate) for u in tones[1][:12]]
    scores = torch_scores(source.model, waves, waveform=True)
    found, spelled = model.score(waves)
    assert spelled is None
    if kind == "float":
        for a, b in zip(scores, found, strict=True):
            np.testing.assert_allclose(a.log_probs, b, atol=1e-3)
    texts = greedy(model, waves)
    assert sum(a == u.text for a, u in zip(texts, tones[1], strict=False)) >= 8
    # One at a time as well: the other utterances of a batch change nothing.
    assert [greedy(model, [wave])[0] for wave in waves] == texts


@pytest.mark.parametrize("kind", ["kaldi", "nemo"])
def test_a_graph_with_the_features_of_devices(kind: str) -> None:
    # Among the compared recordings are two that are too short for a frame.
    other = bundle(hierarchical_ctc_layer=2, pyramid=1)
    features = FeatureConfig(kind=kind, bands=12)
    model = AcousticModel(features, other.model.config, len(other.tokens)).eval()
    made = replace(other, model=model)
    assert check_parity(model, build_graph(made), waveform=True) < TOLERANCE


def test_a_window_of_an_odd_number_of_samples() -> None:
    other = bundle()
    features = FeatureConfig(bands=12, sample_rate=8000, window_ms=25.125)
    model = AcousticModel(features, other.model.config, len(other.tokens)).eval()
    made = replace(other, model=model)
    assert check_parity(model, build_graph(made), waveform=True) < TOLERANCE


def test_frames_of_stacked_features_are_as_long_as_stated() -> None:
    made = bundle(FeatureConfig(bands=12, cmvn="none", stack=3, stride=3))
    stated = float(metadata(made)["frame_shift_ms"])
    assert made.output_frames(10.0) * stated == pytest.approx(10_000, rel=0.05)


def test_a_graph_with_other_outputs_is_named(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["float"], tmp_path / "out")
    graph = onnx.load(tmp_path / "out" / GRAPH)
    for node in graph.graph.node:
        node.output[:] = ["y" if name == "log_probs" else name for name in node.output]
        node.input[:] = ["y" if name == "log_probs" else name for name in node.input]
    graph.graph.output[0].name = "y"
    onnx.save(graph, tmp_path / "out" / GRAPH)
    with pytest.raises(CheckpointError, match="expected the outputs log_probs and frames, got y,"):
        load_onnx(tmp_path / "out")


def test_a_quantised_graph_takes_one_utterance(exported: dict[str, Path]) -> None:
    shapes = {k: open_graph(exported[k] / GRAPH).get_inputs()[0].shape for k in ("int8", "float")}
    assert shapes == {"int8": [1, "S"], "float": ["N", "S"]}
    sizes = [(exported[kind] / "model.onnx").stat().st_size for kind in ("int8", "float")]
    assert sizes[0] < sizes[1]


def test_the_graph_states_what_a_program_needs(
    tones: tuple[Path, list[Utterance]], exported: dict[str, Path]
) -> None:
    known = {p.key: p.value for p in onnx.load(exported["float"] / "model.onnx").metadata_props}
    source = load_bundle(tones[0])
    assert int(known["sample_rate"]) == source.sample_rate
    assert json.loads(known["tokens"]) == source.tokens.to_json()
    frames = source.output_frames(10.0)
    assert frames * float(known["frame_shift_ms"]) == pytest.approx(10_000, rel=0.02)


def test_a_graph_that_differs_is_not_written(
    tones: tuple[Path, list[Utterance]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_folder, "TOLERANCE", -1.0)
    with pytest.raises(AsrError, match="differs by"):
        export_onnx(tones[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_model_changes_nothing(tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", bundle(cell="layer_norm"))
    with pytest.raises(ConfigError, match=r"model\.cell layer_norm"):
        export_onnx(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(AsrError, match=r"model\.onnx"):
        export_onnx(tmp_path / "model", tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_an_attention_decoder_is_left_out(tmp_path: Path) -> None:
    own = bundle(attention_decoder=8)
    save_bundle(tmp_path / "model", own)
    facts = read_facts(tmp_path / "model")
    assert facts.parameters == own.model.parameter_count()
    assert not export_onnx(tmp_path / "model", tmp_path / "greedy").rescored
    decoder = Decoder(own.tokens, DecoderConfig(kind="beam", attention_weight=0.5))
    save_decoder(tmp_path / "model", decoder)
    assert "attention decoder, weight 0.5" in read_facts(tmp_path / "model").decoder
    assert export_onnx(tmp_path / "model", tmp_path / "out").rescored
    model = load_onnx(tmp_path / "out")
    again = load_decoder(tmp_path / "out", model.tokens)
    assert again.config == decoder.config.model_copy(update={"attention_weight": 0.0})
    waves = [np.random.default_rng(0).normal(size=8000).astype(np.float32)]
    plain = replace(decoder, config=again.config)
    assert again.texts(model.score(waves)[0]) == plain.texts(
        load_bundle(tmp_path / "model").score(waves)[0]
    )
    nodes = {node.op_type for node in build_graph(own).graph.node}
    assert nodes == {node.op_type for node in build_graph(bundle()).graph.node}


def test_a_damaged_folder_is_named(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_onnx(tmp_path)
    for name in ("config.json", "tokens.json", "info.json"):
        (tmp_path / name).write_bytes((exported["float"] / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.onnx, got no such file"):
        load_onnx(tmp_path)
    content = (exported["float"] / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="ONNX graph"):
        load_onnx(tmp_path)
    (tmp_path / "model.onnx").write_bytes(content)
    (tmp_path / "tokens.json").write_text('["<blank>", "▁", "x"]')
    with pytest.raises(CheckpointError, match="outputs for the tokens"):
        load_onnx(tmp_path)
