"""What all commands do where their output is not read, or a disk takes no more."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asr.errors import disk_trouble
from asr.io.files import atomic_path, write_json
from tests.commands import Command

CLOSED = 141  # 128 + SIGPIPE


def ended(code: str, stdout: int | None = None) -> tuple[int, str]:
    """Exit status and stderr of a command whose output nobody reads, or that goes to `stdout`."""
    reading, writing = os.pipe()
    os.close(reading)
    begun = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    return begun.returncode, begun.stderr


RUN = "from asr.cli.console import run_command\n"
PRINTS = {
    "small": RUN + "run_command(lambda: print('x'))",
    "large": RUN + "run_command(lambda: print('x' * 100_000))",
    "rich": RUN + "from rich.console import Console\nrun_command(lambda: Console().print('x'))",
    "typer": RUN
    + """
import typer
app = typer.Typer()
@app.command()
def work() -> None:
    print('x' * 100_000)
run_command(app)
""",
    "and fails": RUN
    + """
import sys
def work():
    print('x')
    sys.exit(1)
run_command(work)
""",
}


@pytest.mark.parametrize("kind", PRINTS)
def test_a_closed_output_ends_a_command_quietly(kind: str) -> None:
    assert ended(PRINTS[kind]) == (CLOSED, "")


WARNS = (
    RUN
    + """
import warnings
from asr.errors import AudioWarning
def work():
    for name in ("a", "b"):
        warnings.warn(AudioWarning(name, "damaged"))
        print(name)
run_command(work)
"""
)


def test_warnings_that_nobody_reads_take_no_results_with_them() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    begun = subprocess.run(
        [sys.executable, "-c", WARNS],
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (begun.returncode, begun.stdout) == (0, "a\nb\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("kind", ["small", "typer"])
def test_a_full_disk_under_the_output_is_one_line(kind: str) -> None:
    with Path("/dev/full").open("w") as full:
        status, message = ended(PRINTS[kind], full.fileno())
    assert status == 1
    assert message.startswith("error: expected room to write ")
    assert "a full disk: make room" in message
    assert message.count("\n") == 1


def test_a_report_is_written_before_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "ref.trn").write_text("".join(f"a b c (u{n})\n" for n in range(600)))
    (tmp_path / "hyp.trn").write_text("".join(f"a x{n} c (u{n})\n" for n in range(599)))
    code = "import sys\nfrom asr.cli.main import main\nsys.argv = ['asr', 'score', *{!r}]\nmain()"
    files = [str(tmp_path / name) for name in ("ref.trn", "hyp.trn")]
    status, message = ended(code.format([*files, "--out", str(tmp_path / "out")]))
    assert status == CLOSED
    assert "report:" in message
    assert "1 references without hypothesis" in message
    assert (tmp_path / "out" / "report.json").is_file()


# --- the disk ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_an_error_of_the_disk_names_the_file_and_what_to_do(
    run: Command, tmp_path: Path, number: int
) -> None:
    def work() -> None:
        with atomic_path(tmp_path / "report.json"):
            raise OSError(number, os.strerror(number))

    line = run(function=work).error()
    assert line.startswith(f"error: expected room to write {tmp_path / 'report.json'}, got a ")
    assert line.endswith(disk_trouble(OSError(number, "")))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_keep_their_words(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = run(function=lambda: write_json(tmp_path / "file" / "x.json", {})).error()
    assert line == f"error: expected to read or write {tmp_path / 'file'}, got File exists"


@pytest.fixture
def small_files() -> object:
    """Files of more than 4 kB cannot be written: the error of a full disk, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_whatever_is_written_meets_a_full_disk_in_one_line(
    run: Command, tmp_path: Path, small_files: None
) -> None:
    from asr.audio.load import write_wav
    from asr.dataset.manifest import Utterance, write_manifest
    from asr.evaluation.formats import write_texts
    from asr.lm.arpa import write_arpa
    from asr.lm.estimate import estimate
    from asr.lm.storage import save_ngram

    words = " ".join(f"word{n}" for n in range(3000))
    model = estimate([words], 2)
    samples = np.zeros(16000, np.float32)
    for name, work in (
        ("x.json", lambda path: write_json(path, words)),
        ("x.arpa", lambda path: write_arpa(path, model)),
        ("lm", lambda path: save_ngram(path, model)),
        ("x.wav", lambda path: write_wav(path, samples, 16000)),
        ("x.jsonl", lambda path: write_manifest(path, [Utterance("a", path, words, 1.0)])),
        ("x.trn", lambda path: write_texts(path, {"a": words}, "trn")),
    ):
        path = tmp_path / name
        line = run(function=lambda work=work, path=path: work(path)).error()
        assert f"expected room to write {path}, got a file larger than allowed" in line
        assert list(tmp_path.iterdir()) == []


def test_piped_output_is_utf8_in_every_locale() -> None:
    code = RUN + "run_command(lambda: print('žluťoučký 日本語'))"
    piped = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert piped.stdout.decode("utf-8") == "žluťoučký 日本語\n"
