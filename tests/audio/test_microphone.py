"""A microphone: devices, settings, blocks, lost sound and what goes wrong, with a double of
sounddevice, and the real package where PortAudio is missing."""

from __future__ import annotations

import ctypes.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.audio import microphone as module
from asr.audio.microphone import Device, Microphone, devices, find_device, microphone
from asr.errors import AsrError, AudioError

FINE = SimpleNamespace(input_overflow=False)
DROPPED = SimpleNamespace(input_overflow=True)


class Fake(ModuleType):
    """What `microphone` uses of sounddevice: a list of devices and raw input streams."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.__spec__ = ModuleSpec("sounddevice", None)
        self.default = SimpleNamespace(device=[2, 0])
        self.rows = [
            row("Loudspeaker", 0, 48000),
            row("USB Microphone: Audio (hw:1,0)", 1, 44100),
            row("Built-in Microphone", 2, 48000),
        ]
        self.accepts = {(16000, 1)}
        self.opened: list[dict[str, Any]] = []
        self.fails = ""
        self.active = True
        self.closed = False

    def query_devices(self) -> list[dict[str, Any]]:
        return self.rows

    def check_input_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if (samplerate, channels) not in self.accepts:
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, **settings: Any) -> Any:  # noqa: N802
        self.opened.append(settings)
        if self.fails:
            raise self.PortAudioError(self.fails)
        return self

    def start(self) -> None:
        pass

    def close(self, ignore_errors: bool) -> None:
        self.closed = True


def row(name: str, channels: int, rate: int) -> dict[str, Any]:
    return {"name": name, "max_input_channels": channels, "default_samplerate": float(rate)}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    return fake


def silent(message: str) -> None:
    raise AssertionError(message)


def test_the_devices_that_record(fake: Fake) -> None:
    assert [str(device) for device in devices()] == [
        "1 USB Microphone: Audio (hw:1,0)",
        "2 Built-in Microphone (default)",
    ]


def test_a_device_is_chosen_by_number_by_name_or_by_a_part_of_it() -> None:
    present = [
        Device(4, "Microphone", 1, 48000, False),
        Device(5, "USB Microphone", 1, 48000, True),
        Device(6, "USB Camera", 1, 48000, False),
    ]
    assert find_device(present, None).number == 5
    assert find_device([present[0], present[2]], None).number == 4
    for wanted, number in {"6": 6, "microphone": 4, "CAM": 6, " usb microphone ": 5}.items():
        assert find_device(present, wanted).number == number
    with pytest.raises(AudioError, match=r"'usb' for 5 USB Microphone.*; 6 USB Camera; give its"):
        find_device(present, "usb")
    with pytest.raises(AudioError, match="got '9'; the devices are: 4 Microphone; 5 USB"):
        find_device(present, "9")
    with pytest.raises(AudioError, match="got no device that records"):
        find_device([], None)


@pytest.mark.parametrize(
    ("accepts", "used"),
    [
        ({(16000, 1), (48000, 1), (48000, 2)}, (16000, 1)),
        ({(48000, 1), (48000, 2)}, (48000, 1)),
        ({(16000, 2), (48000, 2)}, (16000, 2)),
        ({(48000, 2)}, (48000, 2)),
    ],
)
def test_the_rate_of_the_model_is_preferred(
    fake: Fake, accepts: set[tuple[int, int]], used: tuple[int, int]
) -> None:
    fake.accepts = accepts
    with microphone(None, 16000, silent) as source:
        assert (source.rate, source.channels) == used
    (settings,) = fake.opened
    assert (settings["samplerate"], settings["channels"]) == used
    assert settings["device"] == 2
    assert fake.closed


def test_blocks_come_in_order_as_mono_samples_until_the_stop(fake: Fake) -> None:
    fake.accepts = {(48000, 2)}
    with microphone("built-in", 16000, silent) as source:
        steps = np.array([[16384, 0], [-32768, -32768], [3, 5]], np.int16)
        buffer = bytearray(steps.tobytes())
        source.receive(buffer, 3, None, FINE)
        buffer[:] = bytes(len(buffer))  # PortAudio uses its buffer again
        source.receive(steps[:1].tobytes(), 1, None, FINE)
        source.stop()
        first, second = source.blocks()
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, np.array([0.25, -1.0, 4 / 32768], np.float32))
    np.testing.assert_array_equal(second, np.array([0.25], np.float32))


def test_lost_sound_is_reported_and_memory_stays_bounded() -> None:
    said: list[str] = []
    source = Microphone("Mic", 16000, 1, said.append)
    block = np.ones(1600, np.int16).tobytes()
    for _ in range(320):  # 32 s that nobody reads
        source.receive(block, 1600, None, FINE)
    blocks = source.blocks()
    assert sum(len(next(blocks)) for _ in range(300)) == 30 * 16000
    assert said == [
        "warning: Mic: about 2.0 s of sound were lost; close other programs, or use a smaller model"
    ]
    for number in range(700):  # PortAudio drops as well; the next report is due after a minute
        source.receive(block, 1600, None, DROPPED if number < 10 else FINE)
        next(blocks)
    assert len(said) == 2
    assert "about 1.0 s" in said[1]


def test_a_device_that_stops_is_an_error_and_one_that_gives_zeros_is_reported(fake: Fake) -> None:
    said: list[str] = []
    with microphone(None, 16000, said.append) as source:
        for _ in range(150):
            source.receive(bytes(3200), 1600, None, FINE)
        blocks = source.blocks()
        for _ in range(150):
            next(blocks)
        assert len(said) == 1
        assert "got zeros for 10 s; check that the microphone is on" in said[0]
        fake.active = False
        with pytest.raises(AudioError, match="Built-in Microphone: expected sound from this mic"):
            next(blocks)


def test_a_device_that_cannot_record_is_one_line(fake: Fake) -> None:
    fake.fails = "Error opening RawInputStream: Device unavailable\n[PaErrorCode -9985]"
    refused = pytest.raises(AudioError, match=r"^Built-in .*, got Error .* -9985\]; check that no")
    with refused, microphone(None, 16000, silent):
        pass
    fake.rows = fake.rows[:1]
    refused = pytest.raises(AudioError, match="got no device that records")
    with refused, microphone(None, 16000, silent):
        pass


def test_an_error_while_recording_closes_the_device(fake: Fake) -> None:
    with pytest.raises(KeyError), microphone(None, 16000, silent):
        raise KeyError("mine")
    assert fake.closed


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.io.extras.find_spec", lambda name: None)
    with pytest.raises(AsrError, match=r"sounddevice, got none; .*'lstm-asr\[live\]'"):
        devices()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere sounddevice brings PortAudio along")
def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("_sounddevice")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(AudioError, match="expected the library PortAudio, got 'PortAudio library"):
        devices()
