from __future__ import annotations

from pathlib import Path

import pytest

from asr.files import atomic_path, read_json, write_json


def test_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})

    def fail() -> None:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
