"""The main interface for recognition: a trained model that transcribes recordings and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from asr.decoding.decoder import Decoder
from asr.decoding.folder import load_decoder
from asr.errors import AudioError, ConfigError
from asr.inference.live_utterance import LiveText
from asr.inference.long_form import Channels
from asr.inference.onnx_model import OnnxModel, is_onnx, load_onnx
from asr.inference.transcribe import Source, default_model, is_source, transcribe
from asr.inference.transcript import Transcript

if TYPE_CHECKING:
    from asr.inference.text_stream import TextStream
    from asr.models.bundle import Bundle


@dataclass(frozen=True)
class Recognizer:
    """A model and its decoder; `load_recognizer` reads both."""

    bundle: Bundle | OnnxModel
    decoder: Decoder

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model in Hz; other rates are resampled."""
        return self.bundle.sample_rate

    @overload
    def transcribe(  # type: ignore[overload-overlap]  # a str is a path, not many
        self,
        recordings: Source,
        sample_rate: int | None = None,
        *,
        words: bool = True,
        start: float = 0.0,
        end: float | None = None,
        channels: Channels = "mix",
        progress: Callable[[float, float], None] | None = None,
    ) -> Transcript: ...

    @overload
    def transcribe(
        self,
        recordings: Iterable[Source],
        sample_rate: int | None = None,
        *,
        words: bool = True,
        start: float = 0.0,
        end: float | None = None,
        channels: Channels = "mix",
        progress: Callable[[float, float], None] | None = None,
    ) -> Iterator[Transcript]: ...

    def transcribe(
        self,
        recordings: Any,
        sample_rate: int | None = None,
        *,
        words: bool = True,
        start: float = 0.0,
        end: float | None = None,
        channels: Channels = "mix",
        progress: Callable[[float, float], None] | None = None,
    ) -> Transcript | Iterator[Transcript]:
        """The text of a recording of any length, or of each of many, in order.

        A recording is a path (a str is one path), the bytes of a file, an open binary file, or an
        array of samples. Many recordings are read ahead and decoded in batches during iteration.

        Args:
            sample_rate: Hz of samples given as arrays, of shape [S] or [S, channels].
            words: whether to compute the time and confidence of each word, which takes a little
                longer than the text alone.
            start: second of each recording at which transcription begins.
            end: second at which it ends; None is the end of the recording.
            channels: "mix" transcribes the mean of all channels, "each" every channel by itself, as
                in a telephone call with a speaker on each; the segments are ordered by time.
            progress: called with the seconds that are done and those of all recordings.

        Raises AudioError for a single recording without any audio that can be read. One whose audio
        stops halfway, and one of many, has the reason in `error` instead. Raises ConfigError for
        other channels, or a start and end between which nothing lies.
        """
        many = recordings if not is_source(recordings) else [recordings]
        results = transcribe(
            self.bundle,
            many,
            self.decoder,
            words,
            sample_rate,
            start=start,
            end=end,
            channels=channels,
            progress=progress,
        )
        if many is recordings:
            return results
        (result,) = results
        if result.error is not None and not result.segments:
            raise AudioError(result.error)
        return result

    @property
    def has_delays(self) -> bool:
        """Whether `with_delay` has a choice."""
        if isinstance(self.bundle, OnnxModel):
            return False
        return isinstance(self.bundle.model.config.chunk, tuple)

    def with_delay(self, seconds: float) -> Recognizer:
        """The same, but `stream` and `live` read the largest chunks with at most this latency, for
        a model whose `model.chunk` is a range (see docs/streaming.md). Without a chosen delay, they
        read the smallest ones. `transcribe` reads recordings whole either way.

        Raises ConfigError for a delay that is too short, and for a model without a range.
        """
        if isinstance(self.bundle, OnnxModel):
            raise ConfigError(
                "expected a model whose model.chunk is a range for a chosen delay, got an exported "
                "one: give the folder of such a model (docs/streaming.md)"
            )
        from asr.inference.streaming import chunk_for

        chunk = chunk_for(self.bundle.model, seconds)
        return replace(self, bundle=replace(self.bundle, chunk=chunk))

    def stream(self, sample_rate: int | None = None) -> TextStream:
        """A stream that recognises samples as they arrive, for a `with` block.

        `sample_rate` is that of the samples, in Hz; by default that of the model. Raises
        ConfigError for a model that needs the whole utterance (see docs/streaming.md).
        """
        if isinstance(self.bundle, OnnxModel):
            raise ConfigError(
                "expected a model that torch runs for a stream, got an exported one: load the "
                "folder that asr train wrote"
            )
        from asr.inference.text_stream import TextStream

        return TextStream(self.bundle, self.decoder, sample_rate)

    def live(self, blocks: Iterable[Any], sample_rate: int | None = None) -> Iterator[LiveText]:
        """The texts of the utterances in endless audio, such as blocks from a microphone.

        Each block is an array of mono samples [S], any S, at `sample_rate` Hz; by default at the
        rate of the model. A pause ends an utterance. While it lasts, its text so far is given
        whenever it changes; at its end, its final text with words and times. Any model will do; one
        that can stream gives the final text word by word (see docs/streaming.md).

        Raises StreamError for a wrong rate and for other samples.
        """
        from asr.inference.live import live

        return live(self.bundle, self.decoder, blocks, sample_rate)


def load_recognizer(model: str | Path | None = None) -> Recognizer:
    """A model folder with its own decoder, on the GPU if there is one; by default the included
    model.

    Raises CheckpointError, LanguageModelError or ConfigError naming the missing or damaged file.
    """
    folder = default_model() if model is None else Path(model)
    bundle = load_model(folder)
    return Recognizer(bundle, load_decoder(folder, bundle.tokens, normalise=bundle.normalise))


def load_model(folder: Path) -> Bundle | OnnxModel:
    """The model in a folder of `asr train` or `asr export --to onnx`; the latter needs no torch.

    Raises CheckpointError naming the missing or damaged file.
    """
    if is_onnx(folder):
        return load_onnx(folder)

    from asr.models.bundle import load_bundle

    bundle = load_bundle(folder)
    bundle.on_device().eval()
    return bundle
