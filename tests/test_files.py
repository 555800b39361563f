from __future__ import annotations

from pathlib import Path

import pytest

from asr.files import atomic_path, read_json, restore_folders, write_json


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


def test_what_a_kill_left_behind_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".whole.12.old").mkdir()  # killed after the new one came, before the old one went
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "new").touch()
    (tmp_path / ".moved.away.12.old").mkdir()  # killed between the two renames
    (tmp_path / ".moved.away.12.old" / "kept").touch()
    (tmp_path / ".moved.away.12.tmp").mkdir()
    (tmp_path / ".half.json.12.tmp").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / ".notes.tmp").touch()  # somebody else's
    restore_folders(tmp_path)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert left == [".hidden", ".notes.tmp", "moved.away", "moved.away/kept", "whole", "whole/new"]
    restore_folders(tmp_path / "missing")
