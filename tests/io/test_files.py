from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io import files
from asr.io.files import (
    atomic_path,
    check_replaceable,
    locked,
    read_json,
    refuse_taken,
    remove_leftovers,
    restore_folders,
    write_json,
)
from tests.processes import NOBODY, left_by


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})

    def fail() -> None:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert names(tmp_path) == ["a.json"]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["folder", "folder/new"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "disk" / "big").mkdir(parents=True)
    (tmp_path / "disk" / "big" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "big")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert not (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "link").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "disk" / "big").iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


def test_the_folder_before_can_be_kept(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        with atomic_path(tmp_path / "now", before=tmp_path / "before") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["before", "before/second", "now", "now/third"]


def test_a_name_as_long_as_file_systems_allow_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120 + ".json")
    write_json(path, 1)
    assert read_json(path) == 1


def test_temporary_names_cannot_be_guessed(tmp_path: Path) -> None:
    seen = set()
    for _ in range(5):
        with atomic_path(tmp_path / "x") as temporary:
            temporary.touch()
            seen.add(temporary.name)
    assert len(seen) == 5


def test_what_is_written_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix[1:] or 'folder'}")
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a.txt").touch()
    assert done == ["sync txt", "sync tmp", "rename", "sync folder"]


def test_what_a_kill_left_behind_is_undone(tmp_path: Path) -> None:
    dead = left_by(NOBODY)
    (tmp_path / f".whole.{dead}.old").mkdir()  # killed after the new one came
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "new").touch()
    (tmp_path / f".moved.away.{dead}.old").mkdir()  # killed between the two renames
    (tmp_path / f".moved.away.{dead}.old" / "kept").touch()
    (tmp_path / f".moved.away.{dead}.tmp").mkdir()
    (tmp_path / f".half.json.{dead}.tmp").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / ".notes.12.tmp").touch()  # somebody else's
    restore_folders(tmp_path)
    assert names(tmp_path) == [
        ".hidden",
        ".notes.12.tmp",
        "moved.away",
        "moved.away/kept",
        "whole",
        "whole/new",
    ]
    restore_folders(tmp_path / "missing")


def test_a_process_that_has_ended_and_was_not_reaped_is_dead(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    (tmp_path / f".a.{left_by(child)}.tmp").touch()
    remove_leftovers(tmp_path / "a")
    os.waitpid(child, 0)
    assert names(tmp_path) == []


def test_odd_leftovers_of_another_machine_harm_nothing(tmp_path: Path) -> None:
    link = tmp_path / f".a.{left_by(NOBODY, '111111')}.tmp"
    link.symlink_to("nothing")
    restore_folders(tmp_path)
    assert link.is_symlink()


def test_what_the_living_write_is_left_alone(tmp_path: Path) -> None:
    own = f".a.{left_by(os.getpid())}.tmp"
    elsewhere = f".a.{left_by(NOBODY, '000000')}.tmp"  # on another machine, and new
    before = f".a.{left_by(NOBODY, '111111')}.tmp"  # on another machine, two days ago
    for name in (own, elsewhere, before):
        (tmp_path / name).touch()
    os.utime(tmp_path / before, (time.time() - 2 * files.DAY_S,) * 2)
    restore_folders(tmp_path)
    remove_leftovers(tmp_path / "a")
    assert names(tmp_path) == sorted([own, elsewhere])


HOLDER = """
import sys, time
from asr.io.files import locked
with locked(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_holds_until_its_process_ends(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(
                AsrError, match=rf"no other training to run, got process {holder.pid} on"
            ),
            locked(lock, "training"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(lock, "training") as held:
        assert held
        with pytest.raises(AsrError, match="no other training"), locked(lock, "training"):
            pass
    assert names(tmp_path) == []


def test_a_lock_file_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(OSError, match="ymbolic link"), locked(tmp_path / ".lock", "training"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_devices_pipes_and_mounts_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AsrError, match="a device or a pipe"), atomic_path(tmp_path / "pipe"):
        pytest.fail("nothing is written")
    assert names(tmp_path) == ["pipe"]
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    for check in (refuse_taken, lambda path: check_replaceable(path, "model.json")):
        with pytest.raises(AsrError, match="where a disk is mounted"):
            check(tmp_path / "disk")


def test_a_link_to_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.mkdir()
    assert (tmp_path / "link").is_dir()


def test_files_that_cannot_be_removed_yet_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network drive, a file that is in use keeps its folder."""
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    for before in (None, tmp_path / "before"):
        for content in ("first", "second", "third"):
            with atomic_path(tmp_path / "now", before=before) as temporary:
                temporary.mkdir()
                (temporary / content).touch()
            assert [path.name for path in (tmp_path / "now").iterdir()] == [content]


def test_leftovers_of_long_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 60)
    with atomic_path(path) as temporary:
        temporary.touch()
    assert len(os.fsencode(temporary.name)) < 100
    left = f"{temporary.name.partition('.')[2].partition('.')[0]}"
    (tmp_path / f".{left}.{left_by(NOBODY)}.tmp").touch()
    remove_leftovers(path)
    assert names(tmp_path) == [path.name]


def test_a_process_that_another_user_hides_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", hidden)
    (tmp_path / f".a.{left_by(NOBODY)}.tmp").touch()
    remove_leftovers(tmp_path / "a")
    assert len(names(tmp_path)) == 1
