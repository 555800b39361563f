"""Samples from a microphone as they come, by PortAudio through sounddevice (extra `live`).

S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from asr.audio.pcm import INT16
from asr.audio.source import one_line
from asr.errors import AudioError
from asr.io.extras import require

BLOCK_S = 0.1  # seconds of a block
WAITING_S = 30.0  # seconds of sound that wait to be read; what comes later is lost
SILENT_S = 10.0  # seconds without a block, or of zeros, after which something is wrong
_POLL_S = 0.5
_SAID_AGAIN_S = 60.0  # between two reports of lost sound


@dataclass(frozen=True)
class Device:
    """A device that records."""

    number: int
    name: str
    channels: int
    rate: int
    """Its own sample rate in Hz."""
    default: bool

    def __str__(self) -> str:
        return f"{self.number} {self.name}{' (default)' if self.default else ''}"


def devices() -> list[Device]:
    """The devices that record, in PortAudio's order. Raises AudioError without PortAudio."""
    sounddevice = _sounddevice()
    chosen = sounddevice.default.device[0]
    return [
        Device(
            number,
            one_line(row["name"]),
            row["max_input_channels"],
            round(row["default_samplerate"]),
            number == chosen,
        )
        for number, row in enumerate(sounddevice.query_devices())
        if row["max_input_channels"] > 0
    ]


@dataclass
class Microphone:
    """A microphone that records; `microphone` opens it."""

    name: str
    rate: int
    """Hz of the samples in `blocks`."""
    channels: int
    say: Callable[[str], None]
    """Reports lost sound and a silent device, in one line."""
    alive: Callable[[], bool] = lambda: True
    """Whether the device still records."""
    _waiting: SimpleQueue[bytes | None] = field(default_factory=SimpleQueue, repr=False)
    _lost_s: float = 0.0

    def stop(self) -> None:
        """Let `blocks` end after the samples that wait. A signal handler may call it."""
        self._waiting.put(None)

    def receive(self, content: Any, frames: int, time: object, status: Any) -> None:
        """PortAudio's callback, in its own thread: it keeps a copy of the samples and returns."""
        full = self._waiting.qsize() >= WAITING_S / BLOCK_S
        if full or status.input_overflow:  # PortAudio does not tell how much it dropped
            self._lost_s += frames / self.rate
        if not full:
            self._waiting.put(bytes(content))

    def blocks(self) -> Iterator[np.ndarray]:
        """Mono samples within [-1, 1] until `stop`. Shape: each [S], float32, about `BLOCK_S`.

        Raises AudioError if the device stops recording.
        """
        seconds, said_s, said_at, checked = 0.0, 0.0, -_SAID_AGAIN_S, False
        while (content := self._next()) is not None:
            steps = np.frombuffer(content, np.int16).reshape(-1, self.channels)
            seconds += len(steps) / self.rate
            if self._lost_s > said_s and seconds - said_at >= _SAID_AGAIN_S:
                self.say(
                    f"warning: {self.name}: about {self._lost_s - said_s:.1f} s of sound were lost;"
                    " close other programs, or use a smaller model"
                )
                said_s, said_at = self._lost_s, seconds
            if not checked and (steps.any() or seconds >= SILENT_S):
                checked = True
                if not steps.any():
                    self.say(
                        f"note: {self.name}: expected sound, got zeros for {SILENT_S:.0f} s; check"
                        " that the microphone is on and that this program may use it"
                    )
            yield (steps / np.float32(INT16)).mean(axis=1, dtype=np.float32)

    def _next(self) -> bytes | None:
        idle = 0.0
        while True:
            try:
                return self._waiting.get(timeout=_POLL_S)
            except Empty:
                idle += _POLL_S
            if not self.alive() or idle >= SILENT_S:
                raise AudioError(
                    f"{self.name}: expected sound from this microphone, got none any more; check"
                    " that it is connected"
                )


@contextmanager
def microphone(device: str | None, rate: int, say: Callable[[str], None]) -> Iterator[Microphone]:
    """Record from a device, given by its number or a part of its name, or from the default one.

    The samples have `rate` Hz if the device records at that rate, else its own rate. `say` reports
    lost sound and a silent device.

    Raises AudioError if PortAudio or the device is missing, if several devices have the name, or if
    the device cannot record; AsrError without the package sounddevice.
    """
    sounddevice = _sounddevice()
    found = find_device(devices(), device)
    errors = (sounddevice.PortAudioError, ValueError)
    try:
        real, channels = _settings(sounddevice, found, rate)
        source = Microphone(found.name, real, channels, say)
        stream = sounddevice.RawInputStream(
            samplerate=real,
            blocksize=round(BLOCK_S * real),
            device=found.number,
            channels=channels,
            dtype="int16",
            callback=source.receive,
        )
        stream.start()
    except errors as error:
        raise AudioError(
            f"{found.name}: expected a device that records, got {one_line(error)}; check that no"
            " other program uses it, or choose another with --device"
        ) from None
    try:
        source.alive = lambda: bool(stream.active)
        yield source
    finally:
        stream.close(ignore_errors=True)


def find_device(present: Sequence[Device], wanted: str | None) -> Device:
    """The device with this number, this name, or the only one with this part of a name, in any
    case; the default one without `wanted`. Raises AudioError if there is none, or several.

    >>> find_device([Device(3, "USB Microphone", 1, 48000, False)], "usb").number
    3
    """
    listed = "; ".join(map(str, present))
    if not present:
        raise AudioError("expected a microphone, got no device that records; connect one")
    if wanted is None:
        return next((device for device in present if device.default), present[0])
    word = wanted.strip().casefold()
    for same in (
        [device for device in present if str(device.number) == word],
        [device for device in present if device.name.casefold() == word],
        [device for device in present if word in device.name.casefold()],
    ):
        if len(same) == 1:
            return same[0]
        if same:
            several = "; ".join(map(str, same))
            raise AudioError(
                f"expected --device with the name of one device, got {wanted!r} for {several};"
                " give its number"
            )
    raise AudioError(f"expected a device that records, got {wanted!r}; the devices are: {listed}")


def _settings(sounddevice: Any, device: Device, rate: int) -> tuple[int, int]:
    """A rate and a number of channels with which the device records: the wanted rate and one
    channel if possible."""
    tried = [(hertz, count) for count in (1, 2, device.channels) for hertz in (rate, device.rate)]
    for hertz, channels in tried:
        settings = {"channels": channels, "samplerate": hertz}
        try:
            sounddevice.check_input_settings(device=device.number, dtype="int16", **settings)
            return hertz, channels
        except (sounddevice.PortAudioError, ValueError):
            continue
    return tried[0]  # opening it tells why not


def _sounddevice() -> Any:
    require("sounddevice")
    try:
        import sounddevice
    except OSError as error:  # the package has no PortAudio of its own for Linux
        raise AudioError(
            f"expected the library PortAudio, got {one_line(error)!r}; install it with:"
            " sudo apt install libportaudio2 (Debian, Ubuntu), sudo dnf install portaudio (Fedora)"
            " or brew install portaudio (macOS)"
        ) from None
    return sounddevice
