"""Features that devices compute are those of the programs that compute them there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import kaldi_native_fbank as knf
import librosa
import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from asr.audio.load import load_audio
from asr.config import parse
from asr.errors import ConfigError
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import Distortion, LogMel
from asr.features.kaldi import FLOOR, FramedLogMel, Kind, mel_filters
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_ignores_padding, ragged

KINDS: list[Kind] = ["kaldi", "nemo"]
# Sample rate in Hz, bands, window and shift in ms; 22.05 kHz makes odd windows, and the last frames
# are farther apart than they are long.
SETTINGS = [
    (16000, 80, 25.0, 10.0),
    (8000, 40, 25.0, 10.0),
    (22050, 64, 20.0, 12.5),
    (16000, 23, 10.0, 11.0),
]
# In nats. The references compute in float32 with their own transforms; torchaudio and
# kaldi-native-fbank differ from each other by as much.
TOLERANCE = 3e-3


def native(
    kind: Kind, wave: Tensor, rate: int, bands: int, window_ms: float = 25.0, shift_ms: float = 10.0
) -> Tensor:
    """What kaldi-native-fbank computes, with the options that sherpa-onnx sets. Shape: [T, F]."""
    options = knf.FbankOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq, frame.frame_length_ms, frame.frame_shift_ms = rate, window_ms, shift_ms
    frame.dither = 0
    mel.num_bins, mel.high_freq = bands, 0
    if kind == "kaldi":
        frame.snip_edges, mel.low_freq = True, 20
    else:
        frame.snip_edges, frame.remove_dc_offset, frame.window_type = False, False, "hann"
        mel.low_freq, mel.is_librosa = 0, True
    online = knf.OnlineFbank(options)
    online.accept_waveform(rate, wave.numpy())
    online.input_finished()
    frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
    return torch.from_numpy(np.array(frames, np.float32).reshape(-1, bands))


def speech_like(rate: int, seconds: float, seed: int = 0) -> Tensor:
    """Tones and noise with pauses, over a constant offset, not a whole number of frames long."""
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(int(rate * seconds) + 37) / rate
    loudness = torch.sin(2 * math.pi * 3 * time).clamp(min=0)
    tone = torch.sin(2 * math.pi * 440 * time) + torch.sin(2 * math.pi * 1300 * time)
    noise = torch.randn(len(time), generator=random)
    return 0.02 + 0.2 * loudness * tone + (0.05 * loudness + 1e-3) * noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "bands", "window_ms", "shift_ms"), SETTINGS)
def test_they_are_those_of_kaldi_native_fbank(
    kind: Kind, rate: int, bands: int, window_ms: float, shift_ms: float
) -> None:
    layer = FramedLogMel(kind, rate, bands, window_ms, shift_ms)
    random = torch.Generator().manual_seed(1)
    waves = [
        speech_like(rate, 0.5),
        0.1 * torch.randn(rate // 3, generator=random),
        1e-4 * torch.randn(rate // 4, generator=random),  # about the rounding of 16 bits
        torch.zeros(rate // 5),
        0.9 * torch.ones(rate // 5),
    ]
    for wave, made in zip(waves, layer(pad(waves)).unpad(), strict=True):
        expected = native(kind, wave, rate, bands, window_ms, shift_ms)
        torch.testing.assert_close(made, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("rate", "bands", "window_ms", "shift_ms"), SETTINGS)
def test_kaldi_is_that_of_torchaudio(
    rate: int, bands: int, window_ms: float, shift_ms: float
) -> None:
    layer = FramedLogMel("kaldi", rate, bands, window_ms, shift_ms)
    wave = speech_like(rate, 0.5)
    expected = torchaudio.compliance.kaldi.fbank(
        wave[None],
        sample_frequency=rate,
        num_mel_bins=bands,
        frame_length=window_ms,
        frame_shift=shift_ms,
        dither=0.0,
    )
    made = layer(pad([wave, speech_like(rate, 0.7)])).unpad()[0]
    torch.testing.assert_close(made, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("rate", "bands", "window_ms", "shift_ms"), SETTINGS)
def test_nemo_is_librosas_mel_of_the_emphasised_mirrored_recording(
    rate: int, bands: int, window_ms: float, shift_ms: float
) -> None:
    layer = FramedLogMel("nemo", rate, bands, window_ms, shift_ms)
    wave = speech_like(rate, 0.5)
    size, shift = int(rate * window_ms / 1000), int(rate * shift_ms / 1000)
    count = round(len(wave) / shift)
    margin = size  # more than a window hangs over
    mirrored = np.pad(wave.numpy(), margin, mode="symmetric")
    emphasised = mirrored - 0.97 * np.append(0, mirrored[:-1])
    first = margin + shift // 2 - size // 2
    hann = librosa.filters.get_window("hann", size)  # periodic
    frames = np.stack([emphasised[first + i * shift :][:size] * hann for i in range(count)])
    power = np.abs(np.fft.rfft(frames, layer.fft_size)) ** 2
    filters: NDArray[np.float32] = librosa.filters.mel(sr=rate, n_fft=layer.fft_size, n_mels=bands)
    expected = np.log(np.maximum(power @ filters.T, FLOOR))
    made = layer(pad([wave, speech_like(rate, 0.7)])).unpad()[0]
    np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=TOLERANCE)


def test_filters_of_nemo_are_those_of_mel() -> None:
    expected = LogMel(16000, 80, 25.0, 10.0).filters
    torch.testing.assert_close(mel_filters("nemo", 16000, 80, 512), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_real_speech(kind: Kind, shared_data: Path) -> None:
    files = sorted((shared_data / "an4").rglob("*.sph"))[:4]
    waves = [torch.from_numpy(load_audio(file, 16000)) for file in files]
    for wave, made in zip(
        waves, FramedLogMel(kind, 16000, 80, 25.0, 10.0)(pad(waves)).unpad(), strict=True
    ):
        torch.testing.assert_close(made, native(kind, wave, 16000, 80), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [8000, 11025])
def test_as_many_frames_as_there_however_short(kind: Kind, rate: int) -> None:
    layer = FramedLogMel(kind, rate, 23, 25.0, 10.0)
    lengths = [1, 2, 39, 40, 54, 55, 79, 80, 119, 120, 199, 200, 201, 274, 275, 276, 280, 360, 999]
    waves = ragged(lengths)
    made = layer(waves)
    assert made.lengths.tolist() == layer.output_lengths(waves.lengths).tolist()
    for wave, frames in zip(waves.unpad(), made.unpad(), strict=True):
        expected = native(kind, wave, rate, 23)
        torch.testing.assert_close(frames, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [0, 1, 39, 150])
def test_a_batch_too_short_for_any_frame(kind: Kind, samples: int) -> None:
    layer = FeatureExtractor(FeatureConfig(kind=kind, sample_rate=8000, bands=24))
    made = layer(ragged([samples, samples // 2]))
    assert made.values.isfinite().all()
    assert (
        made.lengths.tolist()
        == layer.output_lengths(torch.tensor([samples, samples // 2])).tolist()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relative", [False, True])
def test_contract(kind: Kind, relative: bool) -> None:
    layer = FramedLogMel(kind, 8000, 24, 25.0, 10.0, relative)
    assert_contract(layer, ragged([900, 1, 0, 80, 411, 199]), layer.output_lengths, tolerance=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_utterance_is_distorted_alone(kind: Kind) -> None:
    layer = FramedLogMel(kind, 8000, 24, 25.0, 10.0)
    waves, warps = ragged([900, 280, 411]), torch.tensor([0.9, 1.0, 1.15])
    gains = torch.tensor([[6.0, 0.0, -6.0], [0.0, 0.0, 0.0], [-3.0, 9.0, 2.0]])
    together = layer(waves, Distortion(warps, gains)).unpad()
    for i, (row, y) in enumerate(zip(waves.unpad(), together, strict=True)):
        alone = layer(pad([row]), Distortion(warps[i : i + 1], gains[i : i + 1])).unpad()[0]
        torch.testing.assert_close(alone, y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1], layer(waves).unpad()[1], rtol=1e-4, atol=1e-3)
    assert_ignores_padding(lambda x: layer(x, Distortion(warps, gains)), waves)


@pytest.mark.parametrize("kind", KINDS)
def test_a_warped_tone_moves_to_its_band(kind: Kind) -> None:
    layer = FramedLogMel(kind, 16000, 80, 25.0, 10.0)
    tones = [torch.sin(2 * math.pi * hertz * torch.arange(4000) / 16000) for hertz in (880, 800)]
    plain = layer(pad(tones)).values[:, 12].argmax(dim=1)
    warped = layer(pad(tones), Distortion(torch.tensor([1.1, 1.0]))).values[:, 12].argmax(dim=1)
    assert int(plain[0]) > int(plain[1])
    assert abs(int(warped[0]) - int(warped[1])) <= 1
    for hertz, band in zip((880, 800), plain.tolist(), strict=True):
        assert abs(float(layer.centres[band]) - hertz) < 40


def test_gains_are_added_to_bands() -> None:
    layer = FramedLogMel("kaldi", 8000, 9, 25.0, 10.0)
    waves = ragged([900])
    changed = layer(waves, Distortion(gains=torch.tensor([[10.0, 0.0, -10.0]])))
    decibels = (changed.values - layer(waves).values) * 10 / math.log(10)
    expected = torch.tensor([10, 7.5, 5, 2.5, 0, -2.5, -5, -7.5, -10])
    torch.testing.assert_close(decibels, expected.expand_as(decibels), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("factor", [30.0, 1e-3])
def test_kaldi_normalised_over_an_utterance_ignores_the_level(factor: float) -> None:
    extractor = FeatureExtractor(FeatureConfig(kind="kaldi"))
    waves = pad([speech_like(16000, 1.0), torch.zeros(8000)])
    changed = extractor(Padded(factor * waves.values, waves.lengths))
    torch.testing.assert_close(changed.values, extractor(waves).values, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "cmvn", "follows"),
    [
        ("kaldi", "utterance", False),
        ("kaldi", "global", True),
        ("nemo", "utterance", True),
        ("nemo", "none", True),
        ("mfcc", "utterance", False),
        ("kaldi", "level", False),
        ("mfcc", "level", False),
    ],
)
def test_what_follows_the_level_has_an_absolute_floor(kind: Any, cmvn: Any, follows: bool) -> None:
    config = FeatureConfig(kind=kind, cmvn=cmvn)
    assert config.follows_level == follows
    # Digital silence beside a loud tone: at the floor of float32, or at that of the recording.
    tone = torch.sin(2 * math.pi * 440 * torch.arange(8000) / 16000)
    values = FeatureExtractor(config).filterbank(pad([torch.cat([tone, torch.zeros(8000)])])).values
    if kind != "mfcc":
        assert (float(values.min()) < math.log(2 * FLOOR)) == follows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cmvn", ["none", "utterance", "global"])
def test_all_normalisations_work(kind: Any, cmvn: Any) -> None:
    layer = FeatureExtractor(
        FeatureConfig(kind=kind, cmvn=cmvn, sample_rate=8000, bands=24, deltas=1, stride=2, stack=2)
    )
    layer.observe(ragged([1000, 700], seed=9))
    waves = ragged([901, 1, 0, 80, 411])
    assert_contract(layer, waves, layer.output_lengths, tolerance=1e-3)
    assert layer(waves).values.shape[2] == layer.size


def test_kind_nemo_is_not_relative_to_the_level() -> None:
    with pytest.raises(ConfigError, match="expected cmvn none, utterance or global with kind nemo"):
        parse(FeatureConfig, {"kind": "nemo", "cmvn": "level"}, "r.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_bands_without_a_frequency_are_refused(kind: Kind) -> None:
    values = {"kind": kind, "sample_rate": 8000, "bands": 160}
    with pytest.raises(
        ConfigError, match=f"bands of kind {kind} to be wide enough.*lower features.bands"
    ):
        parse(FeatureConfig, values, "r.yaml")
    parse(FeatureConfig, values | {"bands": 40}, "r.yaml")
    parse(FeatureConfig, values | {"kind": "mel"}, "r.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_is_part_of_a_saved_model(kind: Kind) -> None:
    assert not FramedLogMel(kind, 16000, 80, 25.0, 10.0).state_dict()
