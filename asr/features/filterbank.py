"""Log-mel energies and MFCCs of a padded batch of waveforms.

Each utterance is framed alone, with half a window of silence on both sides. An utterance of S
samples therefore has 1 + S // hop frames in any batch, and no frame includes another's padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.padded import Padded

# Power below which a mel band counts as silent: about -60 dB re full scale, above 16-bit noise.
POWER_FLOOR = 1e-6

# The same relative to an utterance: this many dB below its level (`speech_level`). Chosen on AN4's
# training part, where 43, 45 and 47 dB changed the output of a model trained with `POWER_FLOOR` by
# 12.7, 5.8 and 4.9 nats (KL divergence over 8184 frames); the median recording there has a level
# 45.4 dB above `POWER_FLOOR`.
FLOOR_BELOW_LEVEL_DB = 46.0
LEVEL_QUANTILE = 0.9  # loud events that fill less than a tenth of the frames do not raise the level
SILENCE_BELOW_LOUDEST_DB = 60.0  # frames below are ignored: digital silence, decoder noise
RUMBLE_HZ = 100.0  # bands below are ignored: constant offset, mains hum


@dataclass(frozen=True)
class Distortion:
    """Distortions of each utterance's spectrum in training; None applies none.

    Shape:
        warp: [B], stretch factors of the frequency axis: see `warped_bands`.
        gains: [B, K] in dB, from the lowest band to the highest: see `equaliser`.
    """

    warp: Tensor | None = None
    gains: Tensor | None = None


class LogMel(nn.Module):
    """Natural logarithm of mel-band power (Slaney's mel scale, unit-area triangles, as librosa).

    Power is limited from below: by `POWER_FLOOR`, or with `relative_floor` by a floor relative to
    the level of each utterance. A change of level then only adds a constant to all values, and with
    `above_floor`, where values begin at 0, it changes nothing.
    """

    centres: Tensor
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int,
        bands: int,
        window_ms: float,
        shift_ms: float,
        relative_floor: bool = False,
        above_floor: bool = False,
    ) -> None:
        super().__init__()
        self.relative_floor, self.above_floor = relative_floor, above_floor
        window = round(sample_rate * window_ms / 1000)
        self.shift = round(sample_rate * shift_ms / 1000)
        self.fft_size = 1 << (window - 1).bit_length()
        self.margin = -(-(self.fft_size // 2) // self.shift)
        # Constants, computed from the configuration: not part of a saved model, and therefore
        # created on the CPU even if the network is built on the meta device.
        with torch.device("cpu"):
            filters = mel_filters(self.fft_size // 2 + 1, bands, sample_rate / 2)
            hann = torch.hann_window(window)
            centres = band_centres(bands, sample_rate / 2)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", hann, persistent=False)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances with this many samples. Shape: [B] -> [B]."""
        return torch.where(samples > 0, 1 + samples // self.shift, 0)

    def forward(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        """Shape: [B, S] -> [B, T, bands], T = 1 + S // shift."""
        half = self.fft_size // 2
        samples = nn.functional.pad(waves.zeroed().values, (half, half))
        spectrum = torch.stft(
            samples,
            self.fft_size,
            self.shift,
            len(self.window),
            self.window,
            center=False,
            return_complex=True,
        )
        density = spectrum.real.square() + spectrum.imag.square()
        mel = density.transpose(1, 2) @ self.filters
        power = Padded(mel, self.output_lengths(waves.lengths))
        floor = None if self.relative_floor else POWER_FLOOR
        return log_energies(power, self.centres, floor, distortion, self.above_floor)


def log_energies(
    power: Padded,
    centres: Tensor,
    floor: float | None,
    distortion: Distortion | None,
    above_floor: bool = False,
) -> Padded:
    """Natural logarithm of the power of mel bands, distorted in training.

    Power is limited from below by `floor`, or if that is None by `FLOOR_BELOW_LEVEL_DB` below the
    level of each utterance. With `above_floor`, this is where the values begin, at 0.

    Shape: [B, T, bands], centres [bands] in Hz -> [B, T, bands]; padding is zero.
    """
    mel = power.values
    if distortion is not None and distortion.gains is not None:
        mel = mel * equaliser(distortion.gains, mel.shape[2])[:, None, :]
    if floor is None:
        level = speech_level(Padded(mel, power.lengths), centres)
        lowest = (level * 10 ** (-FLOOR_BELOW_LEVEL_DB / 10)).clamp(min=LEAST)
        values = torch.log(torch.maximum(mel, lowest[:, None, None]))
        if above_floor:
            values = values - torch.log(lowest)[:, None, None]
    else:
        values = torch.log(mel.clamp(min=floor))
    if distortion is not None and distortion.warp is not None:
        values = _take_bands(values, warped_bands(centres, distortion.warp))
    return Padded(values, power.lengths).zeroed()


LEAST = 1e-37  # a normal float32, so that digital silence has a logarithm


def speech_level(power: Padded, centres: Tensor) -> Tensor:
    """The power exceeded by the loudest tenth of an utterance's frames, as a mean over its bands.

    Proportional to the utterance's power, and 0 for digital silence. A maximum or a mean would
    follow short loud events such as a slammed door; a quantile does not.

    Shape: [B, T, bands], centres [bands] in Hz -> [B].
    """
    audible = (centres > RUMBLE_HZ).to(power.values)
    frames = Padded(power.values @ (audible / audible.sum()), power.lengths).zeroed().values
    frames = frames.sort(dim=1, descending=True).values
    silence = frames[:, :1] * 10 ** (-SILENCE_BELOW_LOUDEST_DB / 10)
    count = (frames > silence).sum(dim=1, keepdim=True)
    place = ((count - 1).clamp(min=0) * (1 - LEVEL_QUANTILE)).long()
    return frames.gather(1, place)[:, 0]


def equaliser(gains: Tensor, bands: int) -> Tensor:
    """Factors on the power of each band: evenly spaced gains in dB, interpolated linearly.

    Shape: [B, K] in dB, K at least 2 -> [B, bands].
    """
    curve = nn.functional.interpolate(gains[:, None], bands, mode="linear", align_corners=True)
    return 10 ** (curve[:, 0] / 10)


def band_centres(bands: int, highest: float) -> Tensor:
    """Frequency in Hz at the peak of each band, up to `highest` Hz. Shape: [bands]."""
    return band_edges(bands, highest)[1:-1].float()


def band_edges(bands: int, highest: float) -> Tensor:
    """Frequencies in Hz at which bands begin, peak and end: each at the peaks of its neighbours.

    Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above.

    Shape: [bands + 2] in float64.
    """
    linear = 200 / 3  # Hz per mel below 1 kHz, which is 15 mel
    step = math.log(6.4) / 27  # of the logarithm per mel above 1 kHz
    top = highest / linear if highest < 1000 else 15 + math.log(highest / 1000) / step
    mels = torch.linspace(0, top, bands + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * linear, 1000 * torch.exp((mels - 15) * step))


def mel_filters(bins: int, bands: int, highest: float) -> Tensor:
    """The weights of a spectrum's bins, from 0 to `highest` Hz, in each mel band: triangles of unit
    area between `band_edges`. Shape: [bins, bands]."""
    frequencies = torch.linspace(0, highest, bins, dtype=torch.float64)
    edges = band_edges(bands, highest)
    return (triangles(frequencies, edges) * 2 / (edges[2:] - edges[:-2])).float()


def triangles(frequencies: Tensor, edges: Tensor) -> Tensor:
    """Triangles with peaks of 1 from each of the `edges` [bands + 2] to the second next.
    Shape: [bins] -> [bins, bands]."""
    begin, peak, end = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - begin) / (peak - begin)
    falling = (end - frequencies[:, None]) / (end - peak)
    return torch.minimum(rising, falling).clamp(min=0)


def cosine_transform(inputs: int, outputs: int) -> Tensor:
    """The first columns of the orthonormal discrete cosine transform of type 2.
    Shape: [inputs, outputs]."""
    places = torch.arange(inputs, dtype=torch.float64)[:, None] + 0.5
    waves = torch.cos(math.pi / inputs * places * torch.arange(outputs)) * math.sqrt(2 / inputs)
    waves[:, 0] = math.sqrt(1 / inputs)
    return waves.float()


# Above this share of the highest band's frequency the stretch decreases to none, so that the top
# band stays in place (Jaitly and Hinton 2013, F_hi = 4.8 kHz at a Nyquist frequency of 8 kHz).
WARP_TOP = 0.6


def warped_bands(centres: Tensor, warp: Tensor) -> Tensor:
    """The position from which vocal tract length perturbation reads each band, in fractional bands.

    Frequencies below `WARP_TOP` of the highest are scaled by `warp`; those above are mapped
    linearly up to the top (Jaitly and Hinton 2013, section 3).

    Shape: centres [F] in Hz, warp [B] near 1 -> [B, F] from 0 to F - 1.
    """
    top = centres[-1]
    edge = WARP_TOP * top / warp.clamp(min=1.0)[:, None]
    low = centres * warp[:, None]
    slope = (top - edge * warp[:, None]) / (top - edge)
    frequencies = torch.where(centres <= edge, low, top - slope * (top - centres))
    above = torch.searchsorted(centres, frequencies.contiguous()).clamp(1, len(centres) - 1)
    left, right = centres[above - 1], centres[above]
    return (above - 1 + (frequencies - left) / (right - left)).clamp(0, len(centres) - 1)


def _take_bands(values: Tensor, bands: Tensor) -> Tensor:
    """Values at fractional bands, linearly interpolated. Shape: [B, T, F], [B, F] -> [B, T, F]."""
    below = bands.floor().long().clamp(max=values.shape[2] - 2)
    share = (bands - below)[:, None, :]
    index = below[:, None, :].expand(-1, values.shape[1], -1)
    return torch.lerp(values.gather(2, index), values.gather(2, index + 1), share)


class MFCC(nn.Module):
    """Cepstra: the orthonormal cosine transform of the log-mel energies (Davis and Mermelstein)."""

    transform: Tensor

    def __init__(self, log_mel: LogMel, coefficients: int) -> None:
        super().__init__()
        self.log_mel = log_mel
        bands = log_mel.filters.shape[1]
        with torch.device("cpu"):
            transform = cosine_transform(bands, coefficients)
        self.register_buffer("transform", transform, persistent=False)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances with this many samples. Shape: [B] -> [B]."""
        return self.log_mel.output_lengths(samples)

    def forward(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        """Shape: [B, S] -> [B, T, coefficients]."""
        log_mel = self.log_mel(waves, distortion)
        return Padded(log_mel.values @ self.transform, log_mel.lengths)
