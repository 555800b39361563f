"""The front door of recognition: a trained model that turns recordings and streams into text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch

from asr.decoding.decoder import Decoder
from asr.decoding.folder import load_decoder
from asr.errors import AudioError
from asr.inference.text_stream import TextStream
from asr.inference.transcribe import Source, Transcript, default_model, is_source, transcribe
from asr.models.bundle import Bundle, load_bundle


@dataclass(frozen=True)
class Recognizer:
    """A model and the decoder that turns its output into text; `load_recognizer` reads both."""

    bundle: Bundle
    decoder: Decoder

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that the model takes; other rates are resampled."""
        return self.bundle.sample_rate

    @overload
    def transcribe(  # type: ignore[overload-overlap]  # a str is a path, not many
        self, recordings: Source, sample_rate: int | None = None, *, words: bool = True
    ) -> Transcript: ...

    @overload
    def transcribe(
        self, recordings: Iterable[Source], sample_rate: int | None = None, *, words: bool = True
    ) -> Iterator[Transcript]: ...

    def transcribe(
        self, recordings: Any, sample_rate: int | None = None, *, words: bool = True
    ) -> Transcript | Iterator[Transcript]:
        """The text of a recording, or of each of many in their order.

        A recording is a path (a str is one path), the bytes of a file, an open binary file, or an
        array of samples. Many are read ahead and decoded in batches, while the results are used.

        Args:
            sample_rate: Hz of samples that are given as arrays, of shape [S] or [S, channels].
            words: whether to find the time and confidence of each word, which takes a little
                longer than the text alone.

        Raises AudioError for a single recording that cannot be read. One of many has its reason in
        `error` instead.
        """
        if not is_source(recordings):
            return transcribe(self.bundle, recordings, self.decoder, words, sample_rate)
        (result,) = transcribe(self.bundle, [recordings], self.decoder, words, sample_rate)
        if result.error is not None:
            raise AudioError(result.error)
        return result

    def stream(self, sample_rate: int | None = None) -> TextStream:
        """A stream that recognizes samples as they arrive, to be used in a `with` block.

        `sample_rate` is that of the samples, in Hz; by default that of the model. Raises
        ConfigError for a model that needs the whole utterance first (see docs/streaming.md).
        """
        return TextStream(self.bundle, self.decoder, sample_rate)


def load_recognizer(model: str | Path | None = None) -> Recognizer:
    """A model folder with its own decoder, on the GPU if there is one; by default the model that
    is shipped.

    Raises CheckpointError, LanguageModelError or ConfigError naming the file that is missing or
    damaged.
    """
    folder = default_model() if model is None else Path(model)
    bundle = load_bundle(folder)
    bundle.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Recognizer(bundle, load_decoder(folder, bundle.tokens, normalise=bundle.normalise))
