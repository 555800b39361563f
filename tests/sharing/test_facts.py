"""The facts of a model folder, and the evaluations that belong to it.

Covers `asr/sharing/evaluations.py`, `asr/models/files.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr.errors import CheckpointError
from asr.inference.transcribe import trained_model
from asr.models.bundle import load_bundle
from asr.sharing.evaluations import evaluations_of
from asr.sharing.facts import find_models, read_facts
from tests.sharing.models import INFO, make_model, make_report


def test_all_facts_of_a_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tones")
    facts = read_facts(model)
    bundle = load_bundle(model)
    assert facts.parameters == bundle.model.parameter_count()
    assert facts.precision == "float16"
    assert facts.bytes == sum(p.stat().st_size for p in model.rglob("*") if p.is_file())
    (model / "README.md").write_text("a card")
    assert read_facts(model).bytes == facts.bytes
    assert facts.name == "tones"
    words = sum(unit.startswith("▁") for unit in bundle.tokens.units[2:])
    assert facts.token_kind == "words"
    assert facts.tokens == f"{words} words, {len(bundle.tokens) - 2 - words} characters"
    assert facts.about.licence == "cc-by-4.0"
    assert facts.info.training_data.hours == 1.5
    assert facts.decoder == (
        "beam 32, n-gram model, weight 0.5 (tuned on dev.jsonl: 4 errors in 50 words)"
    )
    (one,) = facts.evaluations
    assert (one.manifest, one.errors, one.length, one.measure) == (
        "corpus/test.jsonl",
        4,
        60,
        "WER",
    )
    assert one.interval is not None
    assert one.interval[0] < one.rate < one.interval[1]
    assert (one.day, one.real_time_factor) == ("2026-11-21", 0.02)


def test_the_included_model() -> None:
    facts = read_facts(trained_model())
    assert facts.parameters == load_bundle(trained_model()).model.parameter_count()
    assert facts.token_kind == "words"
    assert facts.about.licence
    assert facts.main is not None
    assert (facts.main.errors, facts.main.length) == (17, 773)  # recipes/an4/README.md


def test_an_exported_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", INFO | {"parameters": 123, "export": {"int8": True}})
    (model / "model.safetensors").rename(model / "model.onnx")
    facts = read_facts(model)
    assert (facts.parameters, facts.precision) == (123, "int8")


def test_reports_of_other_weights_do_not_count(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run")
    assert len(evaluations_of(model)) == 1
    make_report(tmp_path / "run" / "other", model, weights_sha256="ab" * 32)
    make_report(tmp_path / "beside-the-run", model, "dev.jsonl", date="2026-11-22T00:00:00")
    assert [one.manifest for one in evaluations_of(model)] == [
        "corpus/dev.jsonl",
        "corpus/test.jsonl",
    ]
    facts = read_facts(model)
    assert facts.main is not None
    assert facts.main.manifest == "corpus/test.jsonl"
    save = make_model(tmp_path / "run", INFO | {"epochs": 4}, report=None)  # other weights
    assert evaluations_of(save) == ()


def test_reports_of_earlier_versions_count_by_path_and_date(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", report=None)
    old = {"weights_sha256": "", "date": "2026-11-21T10:00:00"}
    make_report(tmp_path / "run" / "a", model, "a.jsonl", **old | {"path": "x/run/model"})
    make_report(tmp_path / "run" / "b", model, "b.jsonl", **old | {"path": "x/other/model"})
    assert [one.manifest for one in evaluations_of(model)] == ["corpus/a.jsonl"]
    assert evaluations_of(model, "2026-11-22") == ()
    (tmp_path / "run" / "a" / "report.json").write_text('{"run": 3}')
    assert evaluations_of(model) == ()


def test_models_are_found_once_without_those_of_epochs(tmp_path: Path) -> None:
    for name in ("b", "a", "b/epochs/epoch-001", ".hidden"):
        make_model(tmp_path / name, report=None, lm=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "exp").symlink_to(tmp_path)
    models = [Path("a", "model"), Path("b", "model")]
    found = find_models([tmp_path, tmp_path / "a", tmp_path / "again"])
    assert list(found) == [tmp_path / model for model in models]
    exp = tmp_path / "linked" / "exp"
    assert list(find_models([tmp_path / "linked"])) == [exp / model for model in models]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "expected JSON, got .*config.json"),
        ("config.json", '{"format": 2}', "config.json: format: input should be 1"),
        ("tokens.json", "[1]", "tokens.json: expected a list of tokens"),
        ("info.json", "[]", "info.json: expected a JSON object"),
        (
            "info.json",
            '{"about": {"licence": "no licence"}}',
            "about: at licence: expected an ident",
        ),
        ("info.json", '{"training_data": {"hours": "many"}}', "training_data.hours: input should"),
        ("decoder.json", '{"beam": 3}', "decoder.json: beam: input should be"),
        ("evaluations.json", '[{"errors": -1}]', "evaluations.json: .*; delete or copy it again"),
        ("model.safetensors", "weights", "expected weights in safetensors"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    model = make_model(tmp_path / "run", report=None)
    (model / name).write_text(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_facts(model)
    assert "\n" not in str(error.value)


def test_another_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a model folder"):
        read_facts(tmp_path)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from asr.sharing import facts, package, card, hub; "
        "from asr.inference.transcribe import trained_model; "
        "facts.read_facts(trained_model()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
