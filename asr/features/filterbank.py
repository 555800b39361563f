"""Log-mel energies and MFCCs of a padded batch of waveforms.

Each utterance is framed alone: half a window of silence on both sides, so an utterance of S samples
has 1 + S // hop frames whatever else is in its batch, and no frame sees another's padding.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from asr.padded import Padded

# Power below which a mel band counts as silent: about -60 dB re full scale, above 16-bit noise.
POWER_FLOOR = 1e-6


class LogMel(nn.Module):
    """Natural logarithm of mel-band power (Slaney's mel scale, unit-area triangles, as librosa)."""

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, bands: int, window_ms: float, shift_ms: float) -> None:
        super().__init__()
        window = round(sample_rate * window_ms / 1000)
        self.shift = round(sample_rate * shift_ms / 1000)
        self.fft_size = 1 << (window - 1).bit_length()
        filters = torchaudio.functional.melscale_fbanks(
            self.fft_size // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, "slaney", "slaney"
        )
        hann = torch.hann_window(window)
        # Constants, rebuilt from the configuration: not part of a saved model.
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", hann, persistent=False)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances of so many samples. Shape: [B] -> [B]."""
        return torch.where(samples > 0, 1 + samples // self.shift, 0)

    def forward(self, waves: Padded) -> Padded:
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
        power = spectrum.real.square() + spectrum.imag.square()
        mel = power.transpose(1, 2) @ self.filters
        lengths = self.output_lengths(waves.lengths)
        return Padded(torch.log(mel.clamp(min=POWER_FLOOR)), lengths).zeroed()


class MFCC(nn.Module):
    """Cepstra: the orthonormal cosine transform of the log-mel energies (Davis and Mermelstein)."""

    transform: Tensor

    def __init__(self, log_mel: LogMel, coefficients: int) -> None:
        super().__init__()
        self.log_mel = log_mel
        bands = log_mel.filters.shape[1]
        transform = torchaudio.functional.create_dct(coefficients, bands, "ortho")
        self.register_buffer("transform", transform, persistent=False)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances of so many samples. Shape: [B] -> [B]."""
        return self.log_mel.output_lengths(samples)

    def forward(self, waves: Padded) -> Padded:
        """Shape: [B, S] -> [B, T, coefficients]."""
        log_mel = self.log_mel(waves)
        return Padded(log_mel.values @ self.transform, log_mel.lengths)
