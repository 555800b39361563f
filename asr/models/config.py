"""The configuration of the network."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from asr.config import Config
from asr.models.cells import CELLS

MOST_CHANNELS = 8192
MOST_FRAMES = 10000  # of a chunk and of its context

_NUMBER = TypeAdapter(int)


class ModelConfig(Config):
    """Size and structure of the network, from the features to the last hidden layer."""

    channels: tuple[int, ...] = Field((32, 32), max_length=8)
    """Channels of each 3x3 convolution of the front end; each halves the number of bands."""
    strides: tuple[int, ...] = Field((3, 1), max_length=8)
    """Time stride of each convolution; their product is the subsampling factor. 3 gives frames of
    30 ms: fast speech has more than one character in 40 ms, and CTC emits one per frame."""
    pooling: bool = False
    """Convolve every frame and band, and reduce time and bands by maximum pooling."""
    conv_lstm: int = Field(0, ge=0, le=512)
    """Channels per direction of a ConvLSTM over the bands, after the convolutions; 0 is none."""
    dense: int = Field(0, ge=0, le=8192)
    """Width of a dense layer with ReLU between front end and recurrent layers; 0 is none."""
    cell: str = "lstm"
    """Cell of the recurrent layers: rnn_tanh, rnn_relu, lstm, gru, peephole, layer_norm, projected,
    coupled or light_gru."""
    bidirectional: bool = True
    """Process utterances in both directions, each with its own cells."""
    directions: Literal["both", "alternating"] = "both"
    """Of a bidirectional network: both in every layer, or one in each layer, forward and backward
    in turn, as in Oxford Nanopore's dorado. Alternating layers have half the cells."""
    layers: int = Field(4, ge=1, le=32)
    """Number of recurrent layers."""
    hidden: int = Field(320, ge=1, le=8192)
    """Cells per direction."""
    projection: int | None = Field(None, ge=1, le=8192)
    """Output features per direction of a projected LSTM."""
    hierarchical_ctc_layer: int = Field(0, ge=0, le=32)
    """Recurrent layer with a second CTC layer, which learns to spell the words of the last layer; 0
    is none. For tokens of kind words: they are learnt sooner and better from layers that can spell,
    and the spelling gives the start of words."""
    intermediate_ctc: tuple[int, ...] = Field((), max_length=31)
    """Recurrent layers before the last one, on which the output layer is trained too, by a CTC loss
    at the weight train.intermediate_ctc_weight (Lee and Watanabe 2021)."""
    self_conditioning: bool = False
    """Add the probabilities of tokens after the layers of intermediate_ctc, in a learnt projection,
    to the input of the next layer (Nozaki and Komatsu 2021)."""
    pyramid: int = Field(0, ge=0, le=4)
    """Number of recurrent layers, from the second on, that first join pairs of frames (Chan et al.
    2016): each halves the frame rate."""
    chunk: int | tuple[int, int] = 0
    """For streaming with two directions: encoder frames per chunk; 0 is the whole utterance. The
    backward direction restarts in every chunk (latency-controlled BLSTM). A range such as [8, 64]
    draws the size anew for every batch: the model then streams in chunks of any size in the range,
    and recognises recordings whole, as on dev."""
    right_context: int = Field(0, ge=0, le=MOST_FRAMES)
    """Encoder frames after the chunk at which the backward direction starts."""
    lookahead: int = Field(0, ge=0, le=100)
    """For streaming with one direction: number of future frames that each output depends on."""
    residual: bool = False
    """Add the input of every recurrent layer of equal width to its output: for deep stacks."""
    attention_heads: int = Field(0, ge=0, le=64)
    """Heads of a self-attention layer over the recurrent outputs; 0 is none."""
    attention_window: int | None = Field(None, ge=1, le=100_000)
    """Frames on either side that attention covers; null is the whole utterance."""
    attention_decoder: int = Field(0, ge=0, le=8192, multiple_of=4)
    """Cells of an LSTM that spells the text by attention to all frames, trained together with CTC
    (train.attention_weight); 0 is none. It may rescore the texts of the beam (asr tune)."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Fraction of hidden features dropped between layers, the same ones in every frame; in
    self-attention, others in each frame."""
    weight_dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of recurrent weights dropped, the same ones in every frame."""
    zoneout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the state that keeps its value between frames. Slow: no fast path supports it."""

    @field_validator("cell")
    @classmethod
    def _known(cls, cell: str) -> str:
        if cell not in CELLS:
            raise ValueError(f"expected a cell among {', '.join(CELLS)}")
        return cell

    @field_validator("chunk", mode="before")
    @classmethod
    def _is_size_or_range(cls, value: Any) -> Any:
        sizes = value if isinstance(value, list | tuple) else (value,)
        try:
            numbers = tuple(_NUMBER.validate_python(size) for size in sizes)
        except ValidationError:
            numbers = ()
        if len(numbers) == 1 and sizes is not value and 0 <= numbers[0] <= MOST_FRAMES:
            return numbers[0]
        if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1] <= MOST_FRAMES:
            return numbers
        raise ValueError(
            f"expected 0 to {MOST_FRAMES} frames, or the lowest and the highest number of frames, "
            "such as [8, 64]"
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.channels) != len(self.strides):
            raise ValueError(
                f"expected as many strides as channels, got {len(self.strides)} and "
                f"{len(self.channels)}"
            )
        if any(not 1 <= s <= 4 for s in self.strides) or any(
            not 1 <= c <= MOST_CHANNELS for c in self.channels
        ):
            raise ValueError(
                f"expected strides from 1 to 4 and 1 to {MOST_CHANNELS} channels, got "
                f"{self.strides} and {self.channels}"
            )
        if CELLS[self.cell].projects != (self.projection is not None):
            raise ValueError(
                f"expected a projection for the cell projected and for no other, got "
                f"{self.projection} with {self.cell}"
            )
        if self.projection is not None and self.projection >= self.hidden:
            raise ValueError(
                f"expected a projection to fewer features than hidden, got {self.projection} of "
                f"{self.hidden}"
            )
        if self.chunk and CELLS[self.cell].input_norm == "batch":
            raise ValueError(
                f"expected no chunk with the cell {self.cell}, which normalises batches"
            )
        if self.hierarchical_ctc_layer > self.layers:
            raise ValueError(
                f"expected a hierarchical_ctc_layer among the {self.layers} layers, got "
                f"{self.hierarchical_ctc_layer}"
            )
        middle = self.intermediate_ctc
        if sorted({*middle} & {*range(1, self.layers)}) != [*middle]:
            raise ValueError(
                f"expected intermediate_ctc in order, each once and before the last of the "
                f"{self.layers} layers, got {list(middle)}"
            )
        if self.self_conditioning and not middle:
            raise ValueError("expected self_conditioning only with intermediate_ctc")
        if self.pyramid >= self.layers:
            raise ValueError(
                f"expected fewer pyramid steps than layers, got {self.pyramid} of {self.layers}"
            )
        whole = self.pyramid or self.conv_lstm or self.attention_heads
        if (self.chunk or self.lookahead) and whole:
            raise ValueError(
                "expected no pyramid, conv_lstm or attention in a network with chunks or lookahead"
            )
        if self.attention_window is not None and not self.attention_heads:
            raise ValueError("expected an attention_window only with attention_heads")
        if self.chunk and not self.bidirectional:
            raise ValueError("expected a chunk only with two directions")
        if self.directions == "alternating" and (self.chunk or not self.bidirectional):
            raise ValueError(
                "expected alternating directions only with two directions and without a chunk"
            )
        if self.right_context and not self.chunk:
            raise ValueError("expected a right context only with a chunk")
        return self
