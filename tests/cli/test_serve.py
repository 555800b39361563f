"""`asr serve`: its arguments, its start, and its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from asr.cli.serve import LOOPBACK, AccessOptions, _load, _warn, name_models
from asr.errors import ConfigError
from asr.inference.recognizer import load_recognizer
from asr.models.bundle import Bundle, save_bundle
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from tests.commands import Command
from tests.inference.test_text_stream import ranged_bundle, streaming_bundle
from tests.serving.conftest import LIMITS, exported  # noqa: F401


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert name_models([]) == {"an4": None}
    assert list(name_models(["exp/an4/model/", "x/digits", "whisper-1=y"])) == [
        "an4",
        "digits",
        "whisper-1",
    ]
    assert name_models(["c=a=b"]) == {"c": Path("a=b")}
    for arguments, said in (
        (["a/x", "b/x"], "got 'x' twice"),
        (["a b=x"], "got 'a b'"),
        (["=x"], "got ''"),
        (["a=b"], "got 'a=b'"),
    ):
        with pytest.raises(ConfigError, match=said):
            name_models(arguments)


def test_wrong_options(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("two words\n")
    for arguments, said in (
        (["--token-file", token], "a token of 1 to 1000 ASCII characters"),
        (["--token-file", tmp_path / "none"], "got no such file"),
        (["--allow-origin", "example.org"], "like https://example.org"),
        ([tmp_path / "none", "--port", 0], "expected a model folder"),
    ):
        ended = run("serve", *arguments)
        assert said in ended.error()
    for blank_or_odd in ("é", " ", "two words"):
        monkeypatch.setenv("ASR_TOKEN", blank_or_odd)
        assert "$ASR_TOKEN: expected a token" in run("serve").error()


def test_who_can_use_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASR_TOKEN", raising=False)
    assert AccessOptions().config() == ServeConfig(None, (), LOOPBACK)
    # Other names of this machine are let in by a token only, or if all addresses are listened at.
    assert AccessOptions(host="127.0.0.5").config().hosts == LOOPBACK | {"127.0.0.5"}
    assert AccessOptions(host="0.0.0.0").config().hosts is None
    origins = ["https://Example.org/", "http://localhost:3000"]
    found = AccessOptions(allow_origin=origins).config().origins
    assert found == ("https://example.org", "http://localhost:3000")
    monkeypatch.setenv("ASR_TOKEN", "of the environment".replace(" ", "-"))
    assert AccessOptions().config() == ServeConfig("of-the-environment", (), None)
    (tmp_path / "token").write_text("of-the-file\n")
    assert AccessOptions(token_file=tmp_path / "token").config().token == "of-the-file"


def test_what_lets_everyone_in_is_warned_of(
    exported: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = Engine({"tones": load_recognizer(exported)}, LIMITS, "energy")

    def warned(host: str, **options: Any) -> list[str]:
        _warn(host, ServeConfig(**options), engine)
        return capsys.readouterr().err.splitlines()

    with socket.socket() as wyoming:
        assert warned("127.0.0.1") == []
        (line,) = warned("0.0.0.0")
        assert "everyone who reaches this machine can use the server" in line
        assert warned("0.0.0.0", token="x") == []
        first, second = warned("0.0.0.0", token="x", wyoming=wyoming)
        assert "can use --wyoming, which has no token" in first
        assert "expected the languages of tones, got none" in second


def test_a_delay_is_for_the_models_with_a_choice(run: Command, tmp_path: Path) -> None:
    fixed, ranged = tmp_path / "fixed", tmp_path / "ranged"
    save_bundle(fixed, streaming_bundle())
    save_bundle(ranged, ranged_bundle())
    models = _load({"fixed": fixed, "ranged": ranged}, 1.0)
    chunks = [m.bundle.chunk for m in models.values() if isinstance(m.bundle, Bundle)]
    assert chunks[0] is None
    assert isinstance(chunks[1], int)
    error = run("serve", fixed, "--port", 0, "--delay", 1).error()
    assert "expected a model whose model.chunk is a range with --delay, got none" in error
    error = run("serve", ranged, "--port", 0, "--delay", 0.01).error()
    assert "expected a delay of at least" in error


def test_a_port_in_use(run: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("serve", "--port", taken.getsockname()[1])
    assert "another --host or --port" in ended.error()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_it_says_where_it_is_and_stops_as_asked(exported: Path) -> None:  # noqa: F811
    command = [sys.executable, "-m", "asr", "serve", f"own={exported}", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        line = it.stdout.readline()
        assert line.startswith("serving own at http://127.0.0.1:")
        address = line.split()[-1]
        (row,) = httpx.get(f"{address}v1/models").json()["data"]
        assert row["id"] == "own"
        it.send_signal(signal.SIGTERM)
        output, errors = it.communicate(timeout=20)
    assert (it.returncode, output, errors) == (0, "", "")
