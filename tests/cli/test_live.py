"""`asr transcribe --live`: from a pipe and a microphone, to a pipe and a terminal, until the end or
a signal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asr.inference.live
from asr.audio.vad import SpeechDetector, speech_detector
from asr.inference.recognizer import load_recognizer
from tests.audio.test_microphone import Fake
from tests.commands import Command
from tests.inference.test_live import quiet
from tests.io.test_redraw import Screen
from tests.tones import RATE, speak

TALK = np.concatenate([quiet(1.0), speak("low high up"), quiet(1.2), speak("up down up low")])
PCM = np.rint(TALK * 32767).astype("<i2")


class Input:
    """A pipe in place of standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reading, self._writing = os.pipe()
        monkeypatch.setattr(sys, "stdin", self)
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        return self._reading

    def feed(self, content: bytes, end: bool = True) -> None:
        def write() -> None:
            with os.fdopen(self._writing, "wb", closefd=end) as pipe:
                pipe.write(content)

        self._thread = threading.Thread(target=write)
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        os.close(self._reading)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Input]:
    source = Input(monkeypatch)
    yield source
    source.close()


def send(number: signal.Signals, before: object) -> None:
    """Send this process a signal as soon as the command has a handler for it."""
    while signal.getsignal(number) is before:
        time.sleep(0.01)
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones are no speech for the other detectors."""

    def detector(rate: int) -> SpeechDetector:
        return speech_detector(rate, "energy")

    monkeypatch.setattr(asr.inference.live, "speech_detector", detector)


@pytest.fixture
def model(tones: tuple[dict[str, Path], Path]) -> Path:
    return tones[1]


@pytest.fixture
def expected(model: Path) -> list[str]:
    found = load_recognizer(model).live([PCM], RATE)
    return [event.text for event in found if event.is_final]


def test_a_pipe_gives_a_line_an_utterance(
    run: Command, stdin: Input, model: Path, expected: list[str]
) -> None:
    stdin.feed(PCM.tobytes())
    ended = run("transcribe", "--live", "-", "--rate", RATE, "--model", model, "--stats")
    assert ended.status == 0
    assert ended.out.splitlines() == expected
    assert len(expected) == 2
    counts, words, lasts = ended.err.splitlines()
    said = sum(len(text.split()) for text in expected)
    assert counts.startswith(f"2 utterances, {said} words, {len(PCM) / RATE:.1f} s of audio, real")
    for line in (words, lasts):
        numbers = [float(part.split()[-1]) for part in line.split(": ")[1].split(", ")]
        assert 0 < numbers[0] <= numbers[1] <= numbers[2] + 0.01 < 60


def test_json_is_a_line_an_utterance(
    run: Command, stdin: Input, model: Path, expected: list[str]
) -> None:
    stdin.feed(PCM.tobytes())
    ended = run("transcribe", "--live", "--rate", RATE, "--model", model, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["text"] for row in rows] == expected
    for row in rows:
        assert set(row) == {"start", "end", "text", "words"}
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        for word in row["words"]:
            assert row["start"] <= word["start"] < word["end"] <= row["end"] + 0.01
            assert 0 <= word["confidence"] <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_last_utterance(
    run: Command, stdin: Input, model: Path, expected: list[str], number: signal.Signals
) -> None:
    stdin.feed(PCM.tobytes(), end=False)

    before = signal.getsignal(number)
    thread = threading.Thread(target=send, args=(number, before))
    thread.start()
    ended = run("transcribe", "--live", "--rate", RATE, "--model", model)
    thread.join()
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == expected
    assert signal.getsignal(number) is before


def test_a_microphone_until_ctrl_c(
    run: Command, model: Path, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)

    class Recording(Fake):
        def start(self) -> None:
            (settings,) = self.opened
            status: Any = type("Status", (), {"input_overflow": False})

            def record() -> None:
                size = settings["blocksize"]
                for at in range(0, len(PCM), size):
                    block = PCM[at : at + size]
                    settings["callback"](block.tobytes(), len(block), None, status)
                send(signal.SIGINT, before)

            threading.Thread(target=record).start()

    fake = Recording()
    fake.accepts = {(RATE, 1)}
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    ended = run("transcribe", "--live", "--device", "usb", "--model", model)
    assert ended.status == 0
    assert ended.out.splitlines() == expected
    (line,) = ended.err.splitlines()
    assert line == "listening to USB Microphone: Audio (hw:1,0); stop with Ctrl-C"
    assert fake.closed
    listed = run("transcribe", "--live", "--device", "list")
    assert listed.out.splitlines() == [
        "1 USB Microphone: Audio (hw:1,0)",
        "2 Built-in Microphone (default)",
    ]


def test_a_terminal_keeps_the_final_texts_only(
    run: Command,
    stdin: Input,
    model: Path,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    master, slave = os.openpty()
    monkeypatch.setattr("asr.io.redraw.os.get_terminal_size", lambda _: os.terminal_size((12, 9)))
    written: list[bytes] = []

    def read() -> None:
        while part := os.read(master, 4096):
            written.append(part)
            if b"\x04" in part:
                return

    thread = threading.Thread(target=read)
    thread.start()
    stdin.feed(PCM.tobytes())
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        ended = run("transcribe", "--live", "-", "--rate", RATE, "--model", model)
        os.write(terminal.fileno(), b"\x04")
        thread.join()
    os.close(master)
    assert ended.status == 0
    text = b"".join(written).decode().removesuffix("\x04")
    assert "\x1b[2m" in text  # texts that changed
    assert text.count("\x1b[J") > 2
    screen = Screen(12, 9)
    screen.write(text)
    alone = Screen(12, 9)
    alone.write("\r\n".join([*expected, ""]))
    assert screen.lines == alone.lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected recordings or --live, got neither"),
        (["a.wav", "--rate", "8000"], "expected - or --live with --rate, got neither"),
        (["a.wav", "--stats"], "expected --live with --stats, got none"),
        (["a.wav", "--device", "1"], "expected --live with --device, got none"),
        (["a.wav", "--live"], "expected no file but - with --live, got a.wav"),
        (["--live", "-"], "expected --rate with --live -, got none"),
        (["--live", "-", "--device", "1"], "expected --device or standard input, got both"),
        (["a.wav", "--delay", "1"], "expected --live with --delay, got none"),
        (["a.wav", "--delay", "0"], "expected --live with --delay, got none"),
        (["--live", "--start", "5"], "leave out --start, --end, --channels"),
        (["--live", "--line-width", "30"], "and those of subtitles"),
        (["--live", "--format", "ctm"], "expected --format txt or json with --live, got ctm"),
    ],
)
def test_options_that_do_not_belong_together(
    run: Command, arguments: list[str], message: str
) -> None:
    assert message in run("transcribe", *arguments).error()


def test_a_delay_needs_a_model_with_a_choice(run: Command, stdin: Input, model: Path) -> None:
    arguments = ["--live", "-", "--rate", RATE, "--model", model, "--delay", 1]
    error = run("transcribe", *arguments).error()
    assert "expected a model whose model.chunk is a range for a chosen delay" in error


def test_a_file_in_the_pipe_is_refused(run: Command, stdin: Input, model: Path) -> None:
    stdin.feed(b"RIFF\x24\0\0\0WAVEfmt " + bytes(100))
    error = run("transcribe", "--live", "-", "--rate", RATE, "--model", model).error()
    assert "got an audio file; leave out --live" in error


def test_a_reader_that_closes_the_output_ends_the_command_quietly(
    run: Command, stdin: Input, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    stdin.feed(PCM.tobytes())
    monkeypatch.setattr(sys, "stdout", Closed())
    ended = run("transcribe", "--live", "-", "--rate", RATE, "--model", model)
    assert (ended.status, ended.err) == (141, "")
