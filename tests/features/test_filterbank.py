from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from asr.features.filterbank import (
    MFCC,
    POWER_FLOOR,
    Distortion,
    LogMel,
    band_centres,
    warped_bands,
)
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_ignores_padding, ragged

# Sample rate in Hz, bands, window and shift in ms; 22.05 kHz makes an odd window.
SETTINGS = [(16000, 80, 25.0, 10.0), (8000, 40, 25.0, 10.0), (22050, 64, 20.0, 12.5)]


def speech_like(rate: int, seconds: float) -> Tensor:
    random = torch.Generator().manual_seed(rate)
    time = torch.arange(int(rate * seconds)) / rate
    tone = 0.4 * torch.sin(2 * math.pi * 440 * time) * torch.sin(2 * math.pi * 3 * time)
    return tone + 0.1 * torch.randn(len(time), generator=random)


def librosa_mel(wave: Tensor, log_mel: LogMel, rate: int, bands: int, window_ms: float) -> Tensor:
    power = librosa.feature.melspectrogram(
        y=wave.numpy(),
        sr=rate,
        n_fft=log_mel.fft_size,
        hop_length=log_mel.shift,
        win_length=round(rate * window_ms / 1000),
        window="hann",
        center=True,
        pad_mode="constant",
        power=2.0,
        n_mels=bands,
        htk=False,
        norm="slaney",
    )
    return torch.from_numpy(np.log(np.maximum(power, POWER_FLOOR)).T)


@pytest.mark.parametrize(("rate", "bands", "window_ms", "shift_ms"), SETTINGS)
def test_log_mel_is_that_of_librosa(
    rate: int, bands: int, window_ms: float, shift_ms: float
) -> None:
    log_mel = LogMel(rate, bands, window_ms, shift_ms)
    wave = speech_like(rate, 0.53)
    expected = librosa_mel(wave, log_mel, rate, bands, window_ms)
    assert expected.std() > 0.5  # not all at the floor
    # Beside a longer utterance, so that the end of the wave is followed by padding.
    mel = log_mel(pad([wave, speech_like(rate, 0.7)])).unpad()[0]
    torch.testing.assert_close(mel, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("coefficients", [13, 40])
def test_mfcc_is_the_orthonormal_cosine_transform_and_that_of_librosa(coefficients: int) -> None:
    log_mel = LogMel(16000, 40, 25.0, 10.0)
    wave = speech_like(16000, 0.5)
    cepstra = MFCC(log_mel, coefficients)(pad([wave])).values[0].numpy()
    energies = log_mel(pad([wave])).values[0].numpy()
    k, n = np.arange(coefficients)[:, None], np.arange(40)[None, :]
    cosines = np.sqrt(np.where(k == 0, 1, 2) / 40) * np.cos(np.pi / 40 * (n + 0.5) * k)
    np.testing.assert_allclose(cepstra, energies @ cosines.T, rtol=1e-4, atol=1e-4)
    mel = librosa_mel(wave, log_mel, 16000, 40, 25.0).numpy()
    by_librosa = librosa.feature.mfcc(S=mel.T, n_mfcc=coefficients, dct_type=2, norm="ortho").T
    np.testing.assert_allclose(cepstra, by_librosa, rtol=1e-3, atol=1e-2)


def test_an_utterance_has_one_frame_and_one_more_for_every_shift() -> None:
    log_mel = LogMel(16000, 80, 25.0, 10.0)
    samples = torch.tensor([0, 1, 159, 160, 161, 319, 320, 16000])
    assert log_mel.output_lengths(samples).tolist() == [0, 1, 1, 2, 2, 2, 3, 101]
    assert log_mel(ragged(samples.tolist())).lengths.tolist() == [0, 1, 1, 2, 2, 2, 3, 101]


def test_silence_is_at_the_floor_and_a_tone_in_its_band() -> None:
    log_mel = LogMel(16000, 80, 25.0, 10.0)
    silent = log_mel(Padded(torch.zeros(1, 1600), torch.tensor([1600]))).values
    torch.testing.assert_close(silent, torch.full_like(silent, math.log(POWER_FLOOR)))
    centres = librosa.mel_frequencies(n_mels=82, fmin=0.0, fmax=8000.0)[1:-1]
    for hertz in (300.0, 1000.0, 5000.0):
        tone = torch.sin(2 * math.pi * hertz * torch.arange(4000) / 16000)
        loudest = int(log_mel(pad([tone])).values[0, 12].argmax())
        assert loudest in np.argsort(abs(centres - hertz))[:2]


def test_twice_the_amplitude_is_log_four_more() -> None:
    log_mel = LogMel(16000, 40, 25.0, 10.0)
    wave = speech_like(16000, 0.2)
    louder = log_mel(pad([2 * wave])).values - log_mel(pad([wave])).values
    torch.testing.assert_close(louder, torch.full_like(louder, math.log(4)))


@pytest.mark.parametrize(("bands", "highest"), [(80, 8000.0), (40, 4000.0), (8, 900.0)])
def test_band_centres_are_those_of_librosa(bands: int, highest: float) -> None:
    expected = librosa.mel_frequencies(n_mels=bands + 2, fmin=0.0, fmax=highest)[1:-1]
    np.testing.assert_allclose(band_centres(bands, highest).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("warp", [0.8, 0.9, 1.0, 1.1, 1.25])
def test_bands_are_read_from_the_warped_frequency(warp: float) -> None:
    centres = band_centres(80, 8000.0)
    places = warped_bands(centres, torch.tensor([warp]))[0]
    assert places.min() >= 0
    assert places[-1] == 79  # the top band stays
    assert (places.diff() >= 0).all()
    hertz = torch.from_numpy(np.interp(places.numpy(), np.arange(80), centres.numpy())).float()
    low = (centres * max(warp, 1.0) < 0.59 * centres[-1]) & (centres * warp > centres[0])
    assert low.sum() > 50
    torch.testing.assert_close(hertz[low], centres[low] * warp, rtol=1e-3, atol=0.5)
    # Above, straight on to the top.
    steps = hertz.diff() / centres.diff()
    above = steps[centres[:-1] > 0.62 * centres[-1]]
    torch.testing.assert_close(above, above[:1].expand_as(above), rtol=1e-2, atol=0)


def test_a_warped_tone_moves_to_another_band() -> None:
    log_mel = LogMel(16000, 80, 25.0, 10.0)
    tones = [torch.sin(2 * math.pi * hertz * torch.arange(4000) / 16000) for hertz in (880, 800)]
    warped = log_mel(pad(tones), Distortion(torch.tensor([1.1, 1.0]))).values[:, 12].argmax(dim=1)
    assert abs(int(warped[0]) - int(warped[1])) <= 1
    plain = log_mel(pad(tones)).values[:, 12].argmax(dim=1)
    assert int(plain[0]) > int(plain[1])


@pytest.mark.parametrize("coefficients", [None, 13])
def test_each_utterance_is_distorted_alone(coefficients: int | None) -> None:
    log_mel = LogMel(8000, 32, 25.0, 10.0)
    layer = MFCC(log_mel, coefficients) if coefficients else log_mel
    waves, warps = ragged([900, 80, 411]), torch.tensor([0.9, 1.0, 1.15])
    gains = torch.tensor([[6.0, 0.0, -6.0], [0.0, 0.0, 0.0], [-3.0, 9.0, 2.0]])
    together = layer(waves, Distortion(warps, gains)).unpad()
    for i, (row, y) in enumerate(zip(waves.unpad(), together, strict=True)):
        alone = layer(pad([row]), Distortion(warps[i : i + 1], gains[i : i + 1])).unpad()[0]
        torch.testing.assert_close(alone, y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1], layer(waves).unpad()[1], rtol=1e-4, atol=1e-3)
    assert_ignores_padding(lambda x: layer(x, Distortion(warps, gains)), waves)


def test_the_equaliser_adds_its_gains_to_the_bands() -> None:
    log_mel = LogMel(8000, 9, 25.0, 10.0)
    waves = ragged([900, 700])
    gains = torch.tensor([[10.0, 0.0, -10.0], [5.0, 5.0, 5.0]])
    changed = log_mel(waves, Distortion(gains=gains)).unpad()
    decibels = [
        (y - x) * 10 / math.log(10) for x, y in zip(log_mel(waves).unpad(), changed, strict=True)
    ]
    expected = torch.tensor([10, 7.5, 5, 2.5, 0, -2.5, -5, -7.5, -10])
    torch.testing.assert_close(decibels[0], expected.expand_as(decibels[0]), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(decibels[1], torch.full_like(decibels[1], 5), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("coefficients", [None, 13])
def test_contract(coefficients: int | None) -> None:
    log_mel = LogMel(8000, 32, 25.0, 10.0)
    layer = MFCC(log_mel, coefficients) if coefficients else log_mel
    assert_contract(layer, ragged([900, 1, 0, 80, 411]), layer.output_lengths, tolerance=1e-4)


def test_nothing_of_it_is_part_of_a_saved_model() -> None:
    assert not MFCC(LogMel(16000, 40, 25.0, 10.0), 13).state_dict()
