"""`asr transcribe --live`: text from a microphone or from samples on standard input."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from asr.errors import ConfigError
from asr.io.printable import printable_json
from asr.io.redraw import Redrawn
from asr.io.terminal import IMPATIENT_S, show, tell

if TYPE_CHECKING:
    from asr.inference.live_clock import Clock, Latencies
    from asr.inference.live_utterance import LiveText
    from asr.inference.recognizer import Recognizer

FORMATS = ("txt", "json")
LIST = "list"  # in place of a device


@dataclass(frozen=True)
class LiveOptions:
    """The options of `asr transcribe` that belong to --live."""

    SECTION: ClassVar[str] = "Live"

    live: Annotated[
        bool,
        typer.Option("--live", help="From a microphone, or with - and --rate from standard input."),
    ] = False
    device: Annotated[
        str | None, typer.Option(help="Microphone: number or part of the name; 'list' prints them.")
    ] = None
    rate: Annotated[
        int | None,
        typer.Option(min=1000, max=1_000_000, help="Hz of 16-bit PCM on standard input."),
    ] = None
    delay: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Longest delay of a model whose model.chunk is a range. [default: the shortest]",
        ),
    ] = None
    stats: Annotated[
        bool, typer.Option("--stats", help="Print the speed and latency of --live at its end.")
    ] = False


def run_live(
    load: Callable[[], Recognizer], files: Sequence[Path], format: str, options: LiveOptions
) -> bool:
    """Transcribe live if the options say so; whether they did.

    Raises ConfigError for options that do not belong together, AudioError for missing devices and
    input that is no PCM.
    """
    if not options.live:
        for name in ("device", "delay", "stats"):
            given = getattr(options, name)
            if given is not None and given is not False and given != "":
                raise ConfigError(f"expected --live with --{name}, got none: add it")
        if options.rate is not None and Path("-") not in files:
            raise ConfigError("expected - or --live with --rate, got neither: add one")
        if not files:
            raise ConfigError("expected recordings or --live, got neither: name files or folders")
        return False
    piped = options.rate is not None or list(files) == [Path("-")]
    if files and list(files) != [Path("-")]:
        raise ConfigError(f"expected no file but - with --live, got {files[0]}: leave one out")
    if format not in FORMATS:
        raise ConfigError(f"expected --format txt or json with --live, got {format}: change it")
    if piped and options.device is not None:
        raise ConfigError("expected --device or standard input, got both: leave one out")
    if piped and options.rate is None:
        raise ConfigError("expected --rate with --live -, got none: give the rate of the samples")
    if options.device == LIST:
        from asr.audio.microphone import devices

        for device in devices():
            show(str(device))
    else:
        _transcribe_live(load, format == "json", options)
    return True


def _transcribe_live(load: Callable[[], Recognizer], as_json: bool, options: LiveOptions) -> None:
    """Print the text of each utterance at its end, and on a terminal the text so far below.

    The first SIGINT or SIGTERM ends the last utterance, the second one stops at once.
    """
    display = _Display(as_json)
    if options.rate is not None:
        from asr.audio.pcm_input import PcmInput

        piped = PcmInput(sys.stdin.fileno(), options.rate)
        recognizer = _loaded(load, options.delay)
        with _stopped_by_signals(piped.stop):
            _print_all(recognizer, piped.blocks(), options.rate, display, options.stats)
        return
    from asr.audio.microphone import devices, find_device, microphone

    find_device(devices(), options.device)  # before the model is loaded
    recognizer = _loaded(load, options.delay)
    with (
        microphone(options.device, recognizer.sample_rate, display.tell) as source,
        _stopped_by_signals(source.stop),
    ):
        display.tell(f"listening to {source.name}; stop with Ctrl-C")
        _print_all(recognizer, source.blocks(), source.rate, display, options.stats)


def _loaded(load: Callable[[], Recognizer], delay: float | None) -> Recognizer:
    from asr.inference.live import warm_up

    recognizer = load()
    if delay is not None:
        recognizer = recognizer.with_delay(delay)
    warm_up(recognizer.bundle, recognizer.decoder)
    return recognizer


def _print_all(
    recognizer: Recognizer, blocks: Iterable[Any], rate: int, display: _Display, stats: bool
) -> None:
    from asr.inference.live import live
    from asr.inference.live_clock import Clock, Latencies

    clock, words, lasts = Clock(), Latencies(), Latencies()
    try:
        for text in live(recognizer.bundle, recognizer.decoder, blocks, rate, clock):
            display.show(text)
            for seconds in text.latencies:
                words.add(seconds)
            if text.is_final:
                lasts.add(text.latencies[-1])
    finally:  # also if the microphone fails
        display.clear()
        if stats:
            for line in _stats(clock, words, lasts):
                tell(line)


def _stats(clock: Clock, words: Latencies, lasts: Latencies) -> Iterator[str]:
    factor = clock.busy / clock.delivered if clock.delivered else 0.0
    yield (
        f"{len(lasts)} utterances, {len(words)} words, {clock.delivered:.1f} s of audio, "
        f"real-time factor {factor:.3f}"
    )
    if len(words):
        yield f"seconds from the end of a word to its final text: {_spread(words)}"
        yield f"seconds from the end of an utterance's last word to it: {_spread(lasts)}"


def _spread(latencies: Latencies) -> str:
    return (
        f"median {latencies.quantile(0.5):.2f}, 90 % {latencies.quantile(0.9):.2f}, "
        f"maximum {latencies.largest:.2f}"
    )


class _Display:
    """Final texts as lines on stdout; on a terminal, the text that may change below them."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        terminal = sys.stdout.isatty() and not as_json and os.environ.get("TERM") != "dumb"
        self._redrawn = Redrawn(sys.stdout) if terminal else None

    def show(self, text: LiveText) -> None:
        if text.is_final:
            self.clear()
            show(_json(text) if self._as_json else text.text)
        elif self._redrawn is not None:
            self._redrawn.draw(text.text, text.partial)

    def tell(self, message: str) -> None:
        self.clear()
        tell(message)

    def clear(self) -> None:
        if self._redrawn is not None:
            self._redrawn.clear()


def _json(text: LiveText) -> str:
    from asr.inference.time_formats import to_json

    times = {"start": round(text.start, 3), "end": round(text.end, 3)}
    return printable_json(times | {"text": text.text, "words": to_json(text.words)})


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop`. A later SIGINT interrupts, unless it is the same
    one that arrives twice."""
    since: list[float] = []

    def handle(number: int, frame: object) -> None:
        if not since:
            since.append(time.monotonic())
            stop()
        elif number == signal.SIGINT and time.monotonic() - since[0] >= IMPATIENT_S:
            raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
