"""What a network looks like, in one typed place."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from asr.config import Config
from asr.models.cells import CELLS

MOST_CHANNELS = 8192


class ModelConfig(Config):
    """Size and shape of the network, from the features to the last hidden layer."""

    channels: tuple[int, ...] = Field((32, 32), max_length=8)
    """Channels of each 3x3 convolution of the front end; each halves the number of bands."""
    strides: tuple[int, ...] = Field((3, 1), max_length=8)
    """Step in time of each convolution; their product is the subsampling factor. 3 gives frames of
    30 ms: quick speech says more than one character in 40 ms, and CTC writes one a frame."""
    pooling: bool = False
    """Convolve every frame and band, and let maximum pooling do the halving and striding."""
    conv_lstm: int = Field(0, ge=0, le=512)
    """Channels a direction of a ConvLSTM over the bands, after the convolutions; 0 is none."""
    dense: int = Field(0, ge=0, le=8192)
    """Width of a dense layer with ReLU between front end and recurrent layers; 0 is none."""
    cell: str = "lstm"
    """What the recurrent layers are made of: rnn_tanh, rnn_relu, lstm, gru, peephole, layer_norm,
    projected, coupled or light_gru."""
    bidirectional: bool = True
    """Read every utterance in both directions, each with cells of its own."""
    layers: int = Field(4, ge=1, le=32)
    """Recurrent layers."""
    hidden: int = Field(320, ge=1, le=8192)
    """Cells per direction."""
    projection: int | None = Field(None, ge=1, le=8192)
    """Features per direction that a projected LSTM hands on."""
    hierarchical_ctc_layer: int = Field(0, ge=0, le=32)
    """Recurrent layer on which a second CTC layer learns to spell what the last one writes; 0 is
    none. For tokens of kind words: they are learnt sooner and better from layers that can spell,
    and the spelling tells where words begin."""
    pyramid: int = Field(0, ge=0, le=4)
    """How many of the recurrent layers join pairs of frames first, from the second layer on
    (Chan et al. 2016): each halves the frame rate."""
    chunk: int = Field(0, ge=0, le=10000)
    """For streaming with two directions: encoder frames that are read at once; 0 is all of them.
    The backward direction starts anew in every chunk (latency-controlled BLSTM)."""
    right_context: int = Field(0, ge=0, le=10000)
    """Encoder frames beyond the chunk that the backward direction starts from."""
    lookahead: int = Field(0, ge=0, le=100)
    """For streaming with one direction: coming frames that each output may look at."""
    residual: bool = False
    """Add the input of every recurrent layer of equal width to its output: for deep stacks."""
    attention_heads: int = Field(0, ge=0, le=64)
    """Heads of a self-attention layer over the recurrent outputs; 0 is none."""
    attention_window: int | None = Field(None, ge=1, le=100_000)
    """Frames either side that attention looks at; null is the whole utterance."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the hidden features dropped between layers, the same ones in every frame."""
    weight_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the recurrent weights dropped, the same ones in every frame."""
    zoneout: float = Field(0.0, ge=0, lt=1)
    """Share of the state that keeps its value from frame to frame. Slow: no fast path serves it."""

    @field_validator("cell")
    @classmethod
    def _known(cls, cell: str) -> str:
        if cell not in CELLS:
            raise ValueError(f"expected a cell among {', '.join(CELLS)}")
        return cell

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
        if self.pyramid >= self.layers:
            raise ValueError(
                f"expected fewer pyramid steps than layers, got {self.pyramid} of {self.layers}"
            )
        whole = self.pyramid or self.conv_lstm or self.attention_heads
        if (self.chunk or self.lookahead) and whole:
            raise ValueError(
                "expected no pyramid, conv_lstm or attention where a network reads by chunk or "
                "looks ahead"
            )
        if self.attention_window is not None and not self.attention_heads:
            raise ValueError("expected an attention_window with attention_heads only")
        if self.chunk and not self.bidirectional:
            raise ValueError("expected a chunk with two directions only: one needs none")
        if self.right_context and not self.chunk:
            raise ValueError("expected a right context with a chunk only")
        return self
