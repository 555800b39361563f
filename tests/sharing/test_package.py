"""Packages: what is packed comes back, and nothing else comes out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.errors import AsrError, CheckpointError
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.sharing.package import facts_of_package, pack, unpack
from tests.sharing.models import INFO, make_model

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; tests change copies of it."""
    place = tmp_path_factory.mktemp("packed")
    pack(make_model(place / "tones"), place / "tones.zip")
    return place / "tones.zip"


def contents(folder: Path) -> Members:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_model_comes_back_with_card_and_evaluations(packed: Path, tmp_path: Path) -> None:
    model = packed.parent / "tones" / "model"
    facts = unpack(packed, tmp_path / "new" / "copy")
    found = contents(tmp_path / "new" / "copy")
    card, evaluations = found.pop("README.md"), json.loads(found.pop("evaluations.json"))
    assert found == contents(model)
    assert b"license: cc-by-4.0" in card
    assert [row["errors"] for row in evaluations] == [4]
    assert b"low high" not in card
    assert b"somebody" not in packed.read_bytes()
    assert facts.main is not None  # though no report is beside it
    assert load_bundle(tmp_path / "new" / "copy").info == load_bundle(model).info
    assert facts_of_package(packed).main == facts.main


def test_the_same_model_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    model = packed.parent / "tones" / "model"
    os.utime(model / "config.json", (0, 0))
    pack(model, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    # Also after one more way: the copy of a package is packed.
    unpack(packed, tmp_path / "tones")
    pack(tmp_path / "tones", tmp_path / "third.zip")
    assert (tmp_path / "third.zip").read_bytes() == packed.read_bytes()


def test_an_exported_model_is_packed_too(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", report=None)
    (model / "model.safetensors").rename(model / "model.onnx")
    (model / "lstm").mkdir()
    (model / "lstm" / "model.onnx").write_bytes(b"graph")
    (model / "lexicon.txt").write_text("low\nhigh\n")
    pack(model, tmp_path / "a.zip")
    unpack(tmp_path / "a.zip", tmp_path / "copy")
    found = contents(tmp_path / "copy")
    del found["README.md"]
    assert found == contents(model)


def test_files_of_others_are_left_out_and_named(tmp_path: Path) -> None:
    model = make_model(tmp_path / "run", report=None)
    (model / "checkpoint.pt").write_bytes(b"\x80\x04")
    (model / ".cache").mkdir()
    (model / ".cache" / "token").write_text("secret")
    _, others = pack(model, tmp_path / "a.zip")
    assert others == [".cache/token", "checkpoint.pt"]
    assert b"secret" not in (tmp_path / "a.zip").read_bytes()


def test_folders_of_this_machine_stay_here(tmp_path: Path) -> None:
    place = "/home/somebody/base/model"
    info = INFO | {"blend": [place, 0.3], "weights": f"epoch 2, and 0.3 of {place}"}
    pack(make_model(tmp_path / "run", info, report=None), tmp_path / "a.zip")
    unpack(tmp_path / "a.zip", tmp_path / "copy")
    weights = "epoch 2, and 0.3 of base/model"
    there = INFO | {"blend": ["base/model", 0.3], "weights": weights}
    assert load_bundle(tmp_path / "copy").info == there


def test_places_that_are_taken(packed: Path, tmp_path: Path) -> None:
    model = packed.parent / "tones" / "model"
    (tmp_path / "thesis.zip").write_bytes(b"mine")
    with pytest.raises(AsrError, match="expected a new file or an earlier package"):
        pack(model, tmp_path / "thesis.zip")
    assert (tmp_path / "thesis.zip").read_bytes() == b"mine"
    with pytest.raises(AsrError, match="expected a new file"):
        pack(model, tmp_path)
    with pytest.raises(AsrError, match=r"expected a new folder, got .*, which exists"):
        unpack(packed, tmp_path)
    pack(model, Path(shutil.copy(packed, tmp_path / "again.zip")))  # an earlier package is replaced
    (tmp_path / "empty").mkdir()
    unpack(packed, tmp_path / "empty")


@pytest.mark.parametrize("name", ["absent.zip", "text.zip", "other.zip"])
def test_other_files_are_no_packages(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "text")
    with pytest.raises(AsrError, match="expected a package of asr models pack") as error:
        unpack(tmp_path / name, tmp_path / "copy")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="expected a model folder"):
        pack(tmp_path, tmp_path / "a.zip")


def rewritten(packed: Path, path: Path, change: Callable[[Members], object]) -> Path:
    """A package with other members."""
    with zipfile.ZipFile(packed) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            kind = stat.S_IFLNK if content.startswith(b"link:") else stat.S_IFREG
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o644) << 16
            archive.writestr(member, content.removeprefix(b"link:"))
    return path


def listed(members: Members, name: str, content: bytes) -> None:
    """Add a file and its entry in the list."""
    members[name] = content
    values = json.loads(members["package.json"])
    sha256 = hashlib.sha256(content).hexdigest()
    values["files"][name] = {"bytes": len(content), "sha256": sha256}
    members["package.json"] = json.dumps(values).encode()


def unlisted(members: Members, name: str) -> None:
    """Remove a file and its entry in the list."""
    del members[name]
    values = json.loads(members["package.json"])
    del values["files"][name]
    members["package.json"] = json.dumps(values).encode()


CHANGES: dict[str, tuple[Callable[[Members], object], str]] = {
    "another byte": (
        lambda m: m.update({"model.safetensors": m["model.safetensors"][:-1] + b"\xff"}),
        "model.safetensors changed or damaged",
    ),
    "a file less": (lambda m: m.pop("lm/words.bin"), "lm/words.bin missing"),
    "a file more": (lambda m: m.update({"lexicon.txt": b"x"}), "lexicon.txt in addition"),
    "a pickle": (lambda m: listed(m, "weights.pkl", b"\x80\x04"), "weights.pkl, which is no part"),
    "code": (lambda m: listed(m, "lm/setup.py", b"import os"), "lm/setup.py, which is no part"),
    "a folder": (lambda m: m.update({"strange/": b""}), "strange, which is no part"),
    "outside": (lambda m: listed(m, "../config.json", b"{}"), "would be outside"),
    "absolute": (lambda m: listed(m, "/tmp/config.json", b"{}"), "would be outside"),
    "a link": (lambda m: m.update({"info.json": b"link:/etc/passwd"}), "neither a file nor a"),
    "no weights": (
        lambda m: unlisted(m, "model.safetensors"),
        "expected a model, got .*a.zip: expected a model folder",
    ),
    "no list": (lambda m: m.update({"package.json": b"[]"}), "expected a list of files"),
    "a later version": (
        lambda m: m.update({"package.json": m["package.json"].replace(b": 1,", b": 9,", 1)}),
        "expected a package of format 1, got .* of format 9: use a newer version",
    ),
    "no model": (lambda m: listed(m, "config.json", b"{}"), "expected a model, got .*config.json"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_package_changes_nothing(packed: Path, tmp_path: Path, change: str) -> None:
    action, message = CHANGES[change]
    path = rewritten(packed, tmp_path / "a.zip", action)
    with pytest.raises(AsrError, match=message) as error:
        unpack(path, tmp_path / "copy")
    assert "\n" not in str(error.value)
    assert ".tmp" not in str(error.value)
    assert [one.name for one in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("share", [0.2, 0.9, 0.9999])
def test_a_package_that_was_cut_short(packed: Path, tmp_path: Path, share: float) -> None:
    content = packed.read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: int(share * len(content))])
    with pytest.raises(AsrError, match=r"expected a package .* got .*, which is a damaged zip"):
        unpack(tmp_path / "a.zip", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_any_damaged_byte_is_found_or_harmless(packed: Path, tmp_path: Path) -> None:
    content = bytearray(packed.read_bytes())
    expected = None
    for place in range(0, len(content), max(1, len(content) // 40)):
        content[place] ^= 0x55
        (tmp_path / "a.zip").write_bytes(content)
        content[place] ^= 0x55
        with contextlib.suppress(AsrError):
            unpack(tmp_path / "a.zip", tmp_path / f"{place}")
            expected = expected or contents(tmp_path / f"{place}")
        assert contents(tmp_path / f"{place}") in ({}, expected)


@pytest.mark.parametrize(
    ("size", "message"), [(2 << 30, "more than 1,073,741,824"), (5, "Bad CRC-32 for file")]
)
def test_a_false_size_is_refused(packed: Path, tmp_path: Path, size: int, message: str) -> None:
    content = bytearray(packed.read_bytes())
    place = content.rindex(b"model.safetensors") - 46  # its entry in the list of the zip
    assert content[place : place + 4] == b"PK\x01\x02"
    content[place + 24 : place + 28] = size.to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(AsrError, match=message):
        unpack(tmp_path / "a.zip", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_the_list_states_every_file(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist()[0] == "package.json"
        archive.extract("package.json", tmp_path)
        names = set(archive.namelist()) - {"package.json"}
    assert read_json(tmp_path / "package.json")["files"].keys() == names


def test_a_linked_part_is_packed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tones")
    whole, _ = pack(model, tmp_path / "whole.zip")
    (model / "lm").rename(tmp_path / "shared-lm")
    (model / "lm").symlink_to(tmp_path / "shared-lm")
    linked, others = pack(model, tmp_path / "linked.zip")
    assert (tmp_path / "linked.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert linked == whole
    assert others == []
