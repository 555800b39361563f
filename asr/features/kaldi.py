"""Log-mel energies as devices compute them: Kaldi's filterbank, and that of NeMo's models.

Both cut frames first and process each alone, as kaldi-native-fbank and with it sherpa-onnx do. A
model trained on them gets the same features there.

| | kaldi | nemo |
|---|---|---|
| frames | inside the recording | centred, the recording mirrored at its ends |
| constant offset of a frame | removed | kept |
| window | Hann to the power of 0.85 ("povey") | periodic Hann |
| bands | HTK's mel scale, 20 Hz to Nyquist | Slaney's mel scale, 0 Hz to Nyquist, unit area |

Both emphasise high frequencies by x[t] - 0.97 x[t - 1] within a frame, and limit power from below
by the rounding error of float32. kaldi is `torchaudio.compliance.kaldi.fbank` without dither, and
what sherpa-onnx (2.0.1) computes for FireRedASR's CTC models. There samples are 32768 times as
large, which adds 2 log 32768 to every value above the floor. nemo is what sherpa-onnx computes for
NeMo's CTC models, streaming or not. NeMo itself frames and limits differently.

Of both, kaldi-native-fbank computes the same up to rounding: `tests/features/test_kaldi.py`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from asr.features.filterbank import Distortion, band_edges, log_energies, triangles
from asr.padded import Padded

Kind = Literal["kaldi", "nemo"]

LOWEST_HZ = 20.0  # of Kaldi's bands
PRE_EMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps


class FramedLogMel(nn.Module):
    """Natural logarithm of mel-band power of separately processed frames.

    Power is limited from below by `FLOOR`, or with `relative_floor` by a floor relative to the
    level of each utterance. With `above_floor`, values are relative to that floor. Both are as in
    `asr.features.filterbank.LogMel`.

    `margin`: frames at either end of a slice of a recording that differ from those of the whole.
    """

    centres: Tensor
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        kind: Kind,
        sample_rate: int,
        bands: int,
        window_ms: float,
        shift_ms: float,
        relative_floor: bool = False,
        above_floor: bool = False,
    ) -> None:
        super().__init__()
        self.is_kaldi = kind == "kaldi"
        self.relative_floor, self.above_floor = relative_floor, above_floor
        self.shift = _samples(sample_rate, shift_ms)
        self._size = _samples(sample_rate, window_ms)
        self.fft_size = _fft_size(self._size)
        self.margin = 0 if self.is_kaldi else -(-((self._size + 1) // 2) // self.shift)
        # Constants, as in `LogMel`.
        with torch.device("cpu"):
            filters = mel_filters(kind, sample_rate, bands, self.fft_size)
            centres = _edges(kind, sample_rate, bands)[1:-1].float()
            hann = torch.hann_window(self._size, not self.is_kaldi, dtype=torch.float64)
            window = (hann**0.85 if self.is_kaldi else hann).float()
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances with this many samples. Shape: [B] -> [B]."""
        if self.is_kaldi:
            return ((samples - self._size) // self.shift + 1).clamp(min=0)
        return (samples + self.shift // 2) // self.shift

    def forward(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        """Shape: [B, S] in [-1, 1] -> [B, T, bands]; T is 1 or more, though lengths may be 0."""
        samples = self._inside(waves) if self.is_kaldi else self._mirrored(waves)
        # Emphasised in frames, only their first samples would differ, and windows begin with 0.
        before = nn.functional.pad(samples, (1, 0))[:, :-1]
        frames = self._framed(samples - PRE_EMPHASIS * before)
        if self.is_kaldi:
            mean = self._framed(samples).mean(dim=2, keepdim=True)
            frames = frames - (1 - PRE_EMPHASIS) * mean
        spectrum = torch.fft.rfft(frames * self.window, self.fft_size)
        mel = (spectrum.real.square() + spectrum.imag.square()) @ self.filters
        power = Padded(mel, self.output_lengths(waves.lengths))
        floor = None if self.relative_floor else FLOOR
        return log_energies(power, self.centres, floor, distortion, self.above_floor)

    def _framed(self, samples: Tensor) -> Tensor:
        """Shape: [B, S] -> [B, T, window]."""
        return samples.unfold(1, len(self.window), self.shift)

    def _inside(self, waves: Padded) -> Tensor:
        """The samples of all frames. Shape: [B, S] -> [B, S'], where S' is S or, if that is more, a
        window."""
        samples = waves.zeroed().values
        return nn.functional.pad(samples, (0, max(0, self._size - samples.shape[1])))

    def _mirrored(self, waves: Padded) -> Tensor:
        """The samples of all frames, each recording mirrored at its own ends as often as needed:
        2 1 0 0 1 2 2 1 0. Shape: [B, S] -> [B, (T - 1) * shift + window]."""
        samples = waves.zeroed().values
        frames = max(1, (samples.shape[1] + self.shift // 2) // self.shift)
        first = self.shift // 2 - self._size // 2
        end = first + (frames - 1) * self.shift + self._size
        places = torch.arange(first, end, device=samples.device)[None, :]
        lengths = waves.lengths.clamp(min=1)[:, None]
        places = places % (2 * lengths)
        places = torch.minimum(places, 2 * lengths - 1 - places)
        return nn.functional.pad(samples, (0, max(0, 1 - samples.shape[1]))).gather(1, places)


def mel_filters(kind: Kind, sample_rate: int, bands: int, fft_size: int) -> Tensor:
    """Weight of each frequency of the Fourier transform in each band: triangles.

    Kaldi's are triangles over the mel scale with peaks of 1 (HTK book, section 5.4), NeMo's
    triangles over frequency with an area of 1.

    Shape: [fft_size / 2 + 1, bands].
    """
    frequencies = torch.arange(fft_size // 2 + 1, dtype=torch.float64) * sample_rate / fft_size
    edges = _edges(kind, sample_rate, bands)
    if kind == "kaldi":
        frequencies, edges = _htk_mel(frequencies), _htk_mel(edges)
    weights = triangles(frequencies, edges)
    return (weights if kind == "kaldi" else weights * 2 / (edges[2:] - edges[:-2])).float()


def empty_bands(kind: Kind, sample_rate: int, bands: int, window_ms: float) -> int:
    """How many bands are so narrow that they contain no frequency of the Fourier transform."""
    fft_size = _fft_size(_samples(sample_rate, window_ms))
    with torch.device("cpu"):
        return int((mel_filters(kind, sample_rate, bands, fft_size) == 0).all(dim=0).sum())


def _samples(sample_rate: int, milliseconds: float) -> int:
    """Samples of a duration, rounded down as in Kaldi, with a tolerance for rounding errors."""
    return int(sample_rate * milliseconds / 1000 + 1e-6)


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


def _edges(kind: Kind, sample_rate: int, bands: int) -> Tensor:
    """Where bands begin, peak and end, each at its neighbours' peaks. In Hz. Shape: [bands + 2]."""
    highest = sample_rate / 2
    if kind == "nemo":
        return band_edges(bands, highest)
    low, high = (1127 * math.log1p(hertz / 700) for hertz in (LOWEST_HZ, highest))
    mels = torch.linspace(low, high, bands + 2, dtype=torch.float64)
    return 700 * torch.expm1(mels / 1127)


def _htk_mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)
