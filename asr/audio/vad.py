"""Voice activity detection: how probable speech is in each short window of a stream of samples.

Three kinds of detector, best first:

silero    the neural network of the package silero-vad, run by onnxruntime (extra `vad`)
webrtc    the Gaussian mixtures of the package webrtcvad (webrtcvad-wheels), if it is installed
energy    a rule: how far the level is above that of the background

All take samples at 16 kHz and give windows of about 30 ms. `audio/speech_regions.py` makes regions
of the probabilities.

S samples, N windows, W samples of a window.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr

from asr.audio.samples import RATE_RANGE, RATES
from asr.errors import AudioError, ConfigError
from asr.io.onnx_session import open_graph

RATE = 16000  # Hz of all detectors
KINDS = ("silero", "webrtc", "energy")
_AT_ONCE = 1024  # windows

_SILERO_FILE = Path("data") / "silero_vad_16k_sequence.onnx"
_SILERO_WINDOW = 512
_SILERO_CONTEXT = 64  # samples before each window that the network reads
_WARM_UP = 4  # windows before the level rises that the network reads again
_STEADY_S = 0.15  # background of this length is not given to the network
_STEADY_DB = 3.0  # above the lowest level: background

_WEBRTC_WINDOW = 480
_WEBRTC_MODE = 3  # of 0 to 3; the others mark most noise as speech

_FLOOR_S = 10.0  # the background is the lowest level of this time,
_MEAN_S = 0.25  # averaged over this time
_SILENCE_DB = -100.0  # below full scale; lower levels are digital silence
_LOUDEST_FALL = 1.0  # dB a second by which the level of speech is forgotten
_QUIET_DB = -30.0  # a loudest window below it is amplified,
_MOST_GAIN_DB = 40.0  # by so much at most: silero misses speech below -70 dB of full scale

_NOTHING = np.zeros(0, np.float32)


class _Engine(Protocol):
    """Scores consecutive windows of a recording."""

    window: int

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Probabilities of speech. Shape: [N * W] at 16 kHz -> [N]."""


@dataclass
class SpeechDetector:
    """The detector of one recording or stream; `speech_detector` makes it."""

    name: str
    """silero, webrtc or energy."""
    rate: int
    """Hz of the samples that are pushed."""
    _make: Callable[[], _Engine] = field(repr=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new recording."""
        self._engine = self._make()
        self._waiting = _NOTHING
        self._resampler = (
            None
            if self.rate == RATE
            else soxr.ResampleStream(self.rate, RATE, 1, dtype="float32", quality="HQ")
        )

    @property
    def window_s(self) -> float:
        """Duration of a window in seconds; window i begins at i times this duration."""
        return self._engine.window / RATE

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The probabilities of speech of the windows that are complete now.

        The resampler of other rates than 16 kHz holds back some 20 ms; windows keep their times.
        Shape: [S] -> [N], float32.
        """
        return self._scored(samples, last=False)

    def finish(self) -> np.ndarray:
        """The rest at the end of a recording, its last window filled with silence; then `reset`.
        Shape: [N], N is 0 or more."""
        rest = self._scored(_NOTHING, last=True)
        self.reset()
        return rest

    def _scored(self, samples: np.ndarray, last: bool) -> np.ndarray:
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        samples = np.concatenate([self._waiting, samples])
        window = self._engine.window
        if last:
            samples = np.pad(samples, (0, -len(samples) % window))
        whole = len(samples) - len(samples) % window
        self._waiting = samples[whole:].copy()
        size = _AT_ONCE * window
        pieces = [samples[at : min(at + size, whole)] for at in range(0, whole, size)]
        return np.concatenate([_NOTHING, *map(self._engine, pieces)])


def speech_detector(rate: int, kind: str | None = None) -> SpeechDetector:
    """A detector for samples at `rate` Hz, of the best kind that is installed by default.

    Raises:
        ConfigError: another kind than silero, webrtc or energy, or one that is not installed.
        AudioError: a rate outside 1,000 to 1,000,000 Hz.
    """
    if rate not in RATES:
        raise AudioError(f"expected a rate of {RATE_RANGE}, got {rate}: correct it")
    kind = kind or best_kind()
    if kind == "silero":
        session = _silero_session()
        return SpeechDetector(kind, rate, lambda: _Silero(session))
    if kind == "webrtc":
        if not _has_webrtc():
            raise ConfigError(
                "expected the Python module webrtcvad, got none; install it with:"
                " pip install webrtcvad-wheels"
            )
        return SpeechDetector(kind, rate, _Webrtc)
    if kind == "energy":
        return SpeechDetector(kind, rate, _Energy)
    raise ConfigError(f"expected a detector {', '.join(KINDS)}, got {kind!r}: name one of them")


def best_kind() -> str:
    """The kind of detector that is used by default here."""
    if _silero_path() is not None:
        return "silero"
    return "webrtc" if _has_webrtc() else "energy"


def _has_webrtc() -> bool:
    """Whether webrtcvad can be imported: the package of that name, unlike webrtcvad-wheels, needs
    pkg_resources, which newer environments lack."""
    if find_spec("webrtcvad") is None:
        return False
    try:
        importlib.import_module("webrtcvad")
    except ImportError:
        return False
    return True


# --- silero ---


def _silero_path() -> Path | None:
    """The model file. The package is not imported: it would import torch and set one thread."""
    spec = find_spec("silero_vad")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next(
        (path for path in (Path(f) / _SILERO_FILE for f in folders) if path.is_file()), None
    )


@lru_cache(1)
def _silero_session() -> Any:
    """The network, shared by all detectors: it has no state of its own."""
    path = _silero_path()
    if path is None:
        raise ConfigError(
            "expected the Python module silero_vad, got none; install it with: "
            "pip install 'lstm-asr[vad]'"
        )
    return open_graph(path)


class _Silero:
    """The network, on all windows but a steady background.

    The network takes a third of the time of a recognition, and long recordings are mostly pauses.
    So it is left out once the level has been that of the background for 0.15 seconds, and its state
    is reset 0.13 seconds before the level rises. Quiet recordings are amplified.
    """

    window = _SILERO_WINDOW

    def __init__(self, session: Any) -> None:
        self._session = session
        self._levels = _Levels(self.window)
        self._before = np.zeros(_SILERO_CONTEXT + _WARM_UP * self.window, np.float32)
        self._quiet = 0  # windows at the level of the background, until now
        self._state = _fresh()

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        levels, floors, loudest = self._levels(samples)
        count, hold = len(levels), round(_STEADY_S * RATE / self.window)
        runs = _runs(levels < floors + _STEADY_DB, self._quiet)
        active = runs <= hold
        was_active, self._quiet = self._quiet <= hold, int(runs[-1])
        context = np.concatenate([self._before, samples])
        self._before = context[len(context) - len(self._before) :].copy()
        gains = 10 ** (np.clip(_QUIET_DB - loudest, 0.0, _MOST_GAIN_DB) / 20)
        found = np.zeros(count, np.float32)
        edges = np.diff(active.astype(np.int8), prepend=0, append=0)
        starts, stops = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            warm = 0 if start == 0 and was_active else _WARM_UP
            if warm:
                self._state = _fresh()
            # `context` begins _WARM_UP windows and the context before the first window.
            at = (start + _WARM_UP - warm) * self.window
            piece = context[at : at + _SILERO_CONTEXT + (stop - start + warm) * self.window]
            gain = np.concatenate([np.full(warm, gains[start]), gains[start:stop]])
            found[start:stop] = self._run(piece, gain.astype(np.float32))[warm:]
        return found

    def _run(self, samples: np.ndarray, gains: np.ndarray) -> np.ndarray:
        """Shape: [_SILERO_CONTEXT + N * W], [N] -> [N]."""
        size = _SILERO_CONTEXT + self.window
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[:: self.window]
        inputs = {"input": windows * gains[:, None], "h": self._state[0], "c": self._state[1]}
        scores: np.ndarray
        scores, *self._state = self._session.run(None, inputs)
        return scores


def _fresh() -> list[np.ndarray]:
    return [np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)]


def _runs(true: np.ndarray, before: int) -> np.ndarray:
    """How many values in sequence are true, up to each one, with `before` true ones at first.

    >>> _runs(np.array([True, True, False, True]), 3).tolist()
    [4, 5, 0, 1]
    """
    places = np.arange(len(true))
    last_false = np.maximum.accumulate(np.where(true, -1 - before, places))
    return places - last_false


# --- webrtc ---


class _Webrtc:
    """The decision of webrtcvad, 0 or 1. It takes loud white noise for speech, so windows at the
    level of the background are 0."""

    window = _WEBRTC_WINDOW

    def __init__(self) -> None:
        import webrtcvad

        self._vad = webrtcvad.Vad(_WEBRTC_MODE)
        self._levels = _Levels(self.window)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        content = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        size = 2 * self.window
        found = [
            self._vad.is_speech(content[at : at + size], RATE)
            for at in range(0, len(content), size)
        ]
        levels, floors, _ = self._levels(samples)
        return (np.array(found) & (levels >= floors + _STEADY_DB)).astype(np.float32)


# --- energy ---


class _Energy:
    """The level of a window above the background, in the band of speech.

    Speech is at least 6 dB above the background, and at least a third of the way (in dB) from there
    to the loudest level, which decays by 1 dB per second. At this threshold the probability is 0.5;
    its odds change by a factor of e per dB.
    """

    window = _SILERO_WINDOW

    def __init__(self) -> None:
        self._levels = _Levels(self.window)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        levels, floors, loudest = self._levels(samples)
        above = levels - floors - np.maximum(6.0, (loudest - floors) / 3)
        found: np.ndarray = (1 / (1 + np.exp(-np.clip(above, -30, 30)))).astype(np.float32)
        return found


class _Levels:
    """The level of each window between 200 and 4000 Hz in dB of full scale, the background, and the
    loudest window so far.

    The background is the lowest mean of a quarter of a second in the last ten seconds. Single
    windows of pink noise vary by 5 dB, their means hardly.
    """

    def __init__(self, window: int) -> None:
        frequencies = np.fft.rfftfreq(window // 2, 2 / RATE)
        self._band = (frequencies >= 200) & (frequencies <= 4000)
        self._window = window
        self._recent: np.ndarray | None = None  # levels
        self._means = np.full(round(_FLOOR_S * RATE / window) - 1, np.inf)
        self._loudest = -np.inf

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shape: [N * W] -> [N], [N], [N]."""
        # Half the rate is enough for this band, and takes half the time.
        spectra = np.fft.rfft((samples[::2] + samples[1::2]).reshape(-1, self._window // 2))
        spectra = spectra[:, self._band]
        energy = 0.5 * (spectra.real**2 + spectra.imag**2).sum(axis=1, dtype=np.float64)
        levels = 10 * np.log10(energy / (self._window // 2) ** 2 + 10 ** (_SILENCE_DB / 10))
        if self._recent is None:
            self._recent = np.full(round(_MEAN_S * RATE / self._window) - 1, levels[0])
        recent = np.concatenate([self._recent, levels])
        self._recent = recent[len(levels) :]
        count = len(recent) - len(levels) + 1
        means = np.concatenate([self._means, np.convolve(recent, np.ones(count) / count, "valid")])
        floors = np.lib.stride_tricks.sliding_window_view(means, len(self._means) + 1).min(axis=1)
        self._means = means[len(levels) :]
        fall = _LOUDEST_FALL * self._window / RATE * np.arange(1, len(levels) + 1)
        loudest = np.maximum.accumulate(np.maximum(levels + fall, self._loudest)) - fall
        self._loudest = loudest[-1]
        return levels, floors, loudest
