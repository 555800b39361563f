"""Where caches lie: in a folder that no other user can write to, or nowhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.io.caches import private_folder, set_cache_folders

VARIABLES = ["MPLCONFIGDIR", "TRITON_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home; other folders for temporary files than the usual ones."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in VARIABLES:
        # Set first, so that what the code sets is taken back at the end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for function in (private_folder, set_cache_folders):
        function.cache_clear()
    yield folder
    for function in (private_folder, set_cache_folders):
        function.cache_clear()


def found() -> Path | None:
    private_folder.cache_clear()
    return private_folder()


def test_the_user_s_cache_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() == home / ".cache" / "asr"
    assert (home / ".cache" / "asr").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    assert found() == home / "elsewhere" / "asr"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert found() == home / ".cache" / "asr"


def test_folders_above_it_are_the_user_s_too(home: Path) -> None:
    before = os.umask(0o002)
    try:
        assert found() == home / ".cache" / "asr"
    finally:
        os.umask(before)


@pytest.mark.parametrize("value", ["/proc/no-home", "", "relative", None], ids=str)
def test_without_a_home_it_is_among_the_temporary_files(
    home: Path, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", unknown_user)
    else:
        monkeypatch.setenv("HOME", value)
    monkeypatch.chdir(home)
    assert found() == home.parent / "tmp" / f"asr-{os.geteuid()}"
    assert not list(home.iterdir())  # no folder "~" where the command is run


def unknown_user(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_what_others_could_write_to_is_not_used(home: Path) -> None:
    temporary = home.parent / "tmp" / f"asr-{os.geteuid()}"
    cache = home / ".cache" / "asr"
    cache.mkdir(parents=True)
    cache.chmod(0o770)
    assert found() == temporary
    cache.chmod(0o700)
    (home / ".cache").chmod(0o777)  # it could be renamed, and another put in its place
    assert found() == temporary
    (home / ".cache").chmod(0o755)
    assert found() == cache
    home.chmod(0o777)
    temporary.parent.chmod(0o777)  # not sticky
    assert found() is None


def test_a_link_is_not_followed(home: Path) -> None:
    (home / "theirs").mkdir(mode=0o700)
    (home / ".cache").mkdir()
    (home / ".cache" / "asr").symlink_to(home / "theirs")
    assert found() == home.parent / "tmp" / f"asr-{os.geteuid()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_not_used(home: Path) -> None:
    cache = home / ".cache" / "asr"
    cache.mkdir(mode=0o700, parents=True)
    os.chown(cache, 12345, 12345)
    theirs = home.parent / "tmp" / f"asr-{os.geteuid()}"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    assert found() is None
    os.chown(cache, os.geteuid(), 0)
    assert found() == cache
    os.chown(home, 12345, 12345)  # as with sudo, which may keep HOME
    assert found() is None


def test_a_usable_home_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody")
    set_cache_folders()
    assert not [name for name in VARIABLES if name in os.environ]
    assert not list(home.iterdir())


def test_nowhere_to_write_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/no-home")
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no-temporary-files")
    monkeypatch.setenv("TRITON_HOME", "/chosen")
    monkeypatch.chdir(home)
    set_cache_folders(home / "corpus")
    assert private_folder() is None
    assert os.environ["TRITON_HOME"] == "/chosen"
    assert os.environ["HF_HOME"] == str(home / "corpus" / "huggingface")
    Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).mkdir(parents=True, exist_ok=True)  # as torch does
    assert not list(home.iterdir())


def test_a_user_without_a_name_can_train(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown_user)
    set_cache_folders()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(home / ".cache" / "asr")
