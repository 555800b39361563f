"""Recordings to text with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from asr.audio.load import load_audio
from asr.audio.pcm import to_pcm
from asr.dataset.prefetch import prefetch
from asr.decoding.decoder import Decoder
from asr.errors import AudioError, CheckpointError
from asr.inference.decode import BATCH_SECONDS, decode_waves
from asr.inference.time_formats import WordTime
from asr.inference.word_times import recognize_waves
from asr.io.printable import printable_name
from asr.models.bundle import Bundle
from asr.padded import pad

MOST_WAITING = 128  # files, readable or not, that nothing is reported of yet
BYTES_A_SECOND = (
    900_000  # of memory for a second of sound on a CPU: the model shipped takes 870,000
)

Loaded = tuple[Path, torch.Tensor | AudioError]  # a file with its samples, or why there are none
Timed = tuple[str, tuple[WordTime, ...]]  # a text, and its words if they were asked for


@dataclass(frozen=True)
class Transcript:
    """The text of a file, or the reason why there is none."""

    path: Path
    text: str = ""
    seconds: float = 0.0
    words: tuple[WordTime, ...] = ()
    """With their confidences, where they were asked for."""
    error: str | None = None


def default_model() -> Path:
    """The folder of the AN4 model inside the package: spelled words and numbers, American English.

    `recipes/an4` trains it. Raises CheckpointError where the package was installed without it.
    """
    folder = Path(__file__).resolve().parent / "default_model"
    if not folder.is_dir():
        raise CheckpointError("expected --model, got none, and no model is shipped here: name one")
    return folder


def transcribe(
    bundle: Bundle,
    paths: Iterable[str | Path],
    decoder: Decoder | None = None,
    words: bool = False,
) -> Iterator[Transcript]:
    """Transcribe files in the order given; a file that cannot be read becomes an error entry.

    Without `decoder` decoding is greedy; `asr.decoding.folder.load_decoder` gives the decoder of a
    model. With `words`, each word comes with its time and confidence.

    Files are read ahead and decoded together, about a minute of audio at a time. A file that is
    too long for the free memory becomes an error entry as well.
    """
    bundle.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    rate = bundle.sample_rate
    decoder = decoder or Decoder(bundle.tokens)

    def load(path: Path) -> Loaded:
        try:
            samples = to_pcm(load_audio(path, rate)).samples  # rounded as a dataset rounds
            if not torch.cuda.is_available():
                _check_memory(path, len(samples) / rate)
            return path, torch.from_numpy(samples)
        except AudioError as error:
            return path, error

    waiting: list[Loaded] = []
    count = longest = 0  # of the waves that wait, in samples
    with prefetch(load, map(Path, paths), depth=16) as results:
        for loaded in results:
            _, wave = loaded
            length = 0 if isinstance(wave, AudioError) else len(wave)
            padded = (count + (length > 0)) * max(longest, length)
            if padded > BATCH_SECONDS * rate or len(waiting) == MOST_WAITING:
                yield from _decode(bundle, decoder, waiting, words)
                waiting, count, longest = [], 0, 0
            if not length and not waiting:
                yield from _decode(bundle, decoder, [loaded], words)
                continue
            waiting.append(loaded)
            count, longest = count + (length > 0), max(longest, length)
    yield from _decode(bundle, decoder, waiting, words)


def _check_memory(path: Path, seconds: float) -> None:
    """Raise AudioError where the free memory is too small to decode a recording as a whole."""
    most = psutil.virtual_memory().available / BYTES_A_SECOND
    if seconds > most:
        raise AudioError(
            f"{printable_name(path)}: expected at most {most / 60:.0f} minutes of sound, for which"
            f" the free memory suffices, got {seconds / 60:.0f}; cut the recording into shorter"
            " files, or end other programs"
        )


def _decode(
    bundle: Bundle, decoder: Decoder, loaded: Sequence[Loaded], words: bool
) -> Iterator[Transcript]:
    waves = [wave for _, wave in loaded if not isinstance(wave, AudioError)]
    results: Iterator[Timed] = iter(())
    if waves and words:
        rows = recognize_waves(bundle.model, decoder, pad(waves), bundle.sample_rate)
        results = iter([(row.text, row.words) for row in rows])
    elif waves:
        results = iter([(text, ()) for text in decode_waves(bundle.model, pad(waves), decoder)])
    for path, wave in loaded:
        if isinstance(wave, AudioError):
            yield Transcript(path, error=str(wave))
        else:
            text, times = next(results)
            yield Transcript(path, text, len(wave) / bundle.sample_rate, times)
