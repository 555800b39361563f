"""Recurrent layers: any cell over time, in one direction or two, exact for padded sequences.

`pack_padded_sequence` does not use the fast kernels of oneDNN and cuDNN. Here each direction is a
dense pass instead. For the backward direction, every utterance is first reversed within its own
length, and the result is reversed back, so the recurrence starts at the last real frame. The
outputs on padding come after the real frames and are never read.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.errors import ConfigError
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.cells import CELLS, State
from asr.models.kernels import choice, cpu, dense, gpu, persistent, reference
from asr.models.kernels.streams import side_by_side
from asr.padded import Padded

# Paths by which a layer may be computed.
LIBRARY = "library"  # oneDNN or cuDNN
FRAMES = "frame by frame"
PERSISTENT = "persistent"


def reversal_index(lengths: Tensor, frames: int) -> Tensor:
    """Positions that reverse each utterance and leave its padding in place. [B] -> [B, frames].

    >>> reversal_index(torch.tensor([2, 3]), 3).tolist()
    [[1, 0, 2], [2, 1, 0]]
    """
    positions = torch.arange(frames, device=lengths.device)[None, :]
    ends = lengths[:, None]
    return torch.where(positions < ends, ends - 1 - positions, positions)


def reverse(values: Tensor, index: Tensor) -> Tensor:
    """Reorder frames by `index`. Shape: [B, T, F], [B, T] -> [B, T, F]."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def make_orthogonal(weight: Tensor, rows: int) -> None:
    """Give every `rows` rows of a weight orthogonal initial values. The meta device has no values,
    and torch would spend seconds on imports to compute their shapes."""
    if not weight.is_meta:
        for gate in weight.split(rows):
            nn.init.orthogonal_(gate)


class Direction(nn.Module):
    """One cell over time, from the first frame to the last. B batch, H cells, R output features."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "lstm",
        projection: int | None = None,
        zoneout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.name, self.cell = cell, _cell(cell, projection)
        self.hidden_size, self.output_size = hidden_size, projection or hidden_size
        self.zoneout, self.weight_dropout = zoneout, weight_dropout
        rows = self.cell.gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh = nn.Parameter(torch.empty(rows, self.output_size))
        for vector, (times, start) in self.cell.vectors.items():
            self.register_parameter(vector, nn.Parameter(torch.full((times * hidden_size,), start)))
        if self.cell.projects:
            self.weight_hr = nn.Parameter(torch.empty(self.output_size, hidden_size))
        if self.cell.input_norm == "batch":
            self.norm = MaskedBatchNorm(rows)  # has its own bias
        else:
            self.bias = nn.Parameter(torch.zeros(rows))
        if self.cell.input_norm == "layer":
            self.gain_x = nn.Parameter(torch.ones(rows))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Orthogonal recurrences, and forget gates that start open (Jozefowicz et al. 2015)."""
        nn.init.xavier_uniform_(self.weight_ih)
        make_orthogonal(self.weight_hh, self.hidden_size)
        if self.cell.projects:
            nn.init.xavier_uniform_(self.weight_hr)
        if self.cell.forget_gate is not None:
            self.bias.view(self.cell.gates, -1)[self.cell.forget_gate] = 1.0

    def initial_state(self, batch: int) -> State:
        """Zeros: h [B, R], and c [B, H] for a cell with a memory."""
        h = self.weight_hh.new_zeros(batch, self.output_size)
        return (h, h.new_zeros(batch, self.hidden_size)) if self.cell.memory else (h,)

    def weights_with_dropout(self) -> dict[str, Tensor]:
        """The weights of a pass, without the recurrent weights that training drops."""
        weights: dict[str, Tensor] = dict(self.named_parameters(recurse=False))
        if self.training and self.weight_dropout:
            # The same recurrent weights are dropped in all frames (Merity et al. 2018).
            weights["weight_hh"] = functional.dropout(self.weight_hh, self.weight_dropout)
        return weights

    def forward(
        self,
        x: Padded,
        state: State | None = None,
        final: bool = False,
        weights: dict[str, Tensor] | None = None,
        path: str | None = None,
    ) -> tuple[Padded, State]:
        """Outputs, and the state after each utterance's last frame if `final` is set.

        `weights` are those drawn for an earlier part of the same utterances; `path` one of `paths`,
        by default the fastest. Raises ValueError for an input or a state of another size.

        Shape: [B, T, I] -> [B, T, R].
        """
        state = self._checked(x, state)
        weights = self.weights_with_dropout() if weights is None else weights
        if not x.values.shape[1]:
            return Padded(x.values.new_zeros(len(x.lengths), 0, self.output_size), x.lengths), state
        ragged = final and bool((x.lengths < x.values.shape[1]).any())
        path = path or self._fastest(x, state, weights, ragged)
        if path == LIBRARY:
            values, after = dense.run(self.name, x.values, state, weights)
            return Padded(values, x.lengths), after
        projected = self.input_projection(x, weights).transpose(0, 1)
        if projected.device.type == "cpu":
            # Autocast gives the contribution less precision; sums over frames stay float32.
            projected = projected.to(self.weight_hh.dtype)
        if path == PERSISTENT:
            (states,) = persistent.run([projected], [state], [weights])
        else:
            states = self._frame_by_frame(projected, state, weights)
        if final:
            pairs = zip(states, state, strict=True)
            state = tuple(_last(part, before, x.lengths) for part, before in pairs)
        return Padded(states[0].transpose(0, 1), x.lengths), state

    def check(self, x: Padded) -> None:
        """Raises ValueError for an input of another size."""
        if x.values.shape[2] != self.weight_ih.shape[1]:
            raise ValueError(
                f"expected {self.weight_ih.shape[1]} features, got {x.values.shape[2]}"
            )

    def _checked(self, x: Padded, state: State | None) -> State:
        self.check(x)
        expected = self.initial_state(len(x.lengths))
        if state is None:
            return expected
        shapes = [list(part.shape) for part in expected], [list(part.shape) for part in state]
        if shapes[0] != shapes[1]:
            raise ValueError(f"expected a state of shapes {shapes[0]}, got {shapes[1]}")
        return state

    def _frame_by_frame(self, projected: Tensor, state: State, weights: dict[str, Tensor]) -> State:
        if not self.zoneout:
            if cpu.serves(self.name, projected):
                return cpu.run(self.name, self.cell, projected, state, weights)
            if gpu.serves(self.name, projected):
                return gpu.run(self.name, self.cell, projected, state, weights)
        why = "zoneout" if self.zoneout else f"{projected.dtype} on {projected.device.type}"
        reference.warn_slow(self.name, why)
        return reference.run(self.cell, projected, state, weights, self.zoneout, draw=self.training)

    def paths(self, values: Tensor, ragged: bool = False, directions: int = 1) -> list[str]:
        """The paths that can process this input; without measurements the first one is used.
        `ragged`: the memory c after frames other than the last is required, which the libraries do
        not return.

        Shape: [B, T, I].
        """
        if self.zoneout:
            return [FRAMES]
        library = dense.serves(self.name, values) and not ragged
        paths = [LIBRARY] if library else [FRAMES]
        if values.is_cuda and values.numel():
            if library and gpu.serves(self.name, values):
                paths.append(FRAMES)
            if persistent.serves(self.name, values, _dtype(values), self.hidden_size, directions):
                paths.append(PERSISTENT)
        return paths

    def size(self, values: Tensor) -> Hashable:
        """What the time of a path depends on; the same for batches of similar size."""
        B, T, _ = values.shape
        where = values.device, _dtype(values), torch.is_grad_enabled()
        shape = tuple(self.weight_ih.shape), self.hidden_size, self.output_size
        return self.name, *where, *shape, choice.rounded(B), choice.rounded(T)

    def _fastest(self, x: Padded, state: State, weights: dict[str, Tensor], ragged: bool) -> str:
        paths = self.paths(x.values, ragged)
        if len(paths) == 1:
            return paths[0]
        before = tuple(part.detach() for part in state)

        def run(path: str, values: Tensor, copies: list[dict[str, Tensor]]) -> Tensor:
            padded = Padded(values, x.lengths)
            return self.forward(padded, before, weights=copies[0], path=path)[0].values

        passes = {
            path: choice.timed_pass(functools.partial(run, path), x.values, [weights])
            for path in paths
        }
        with torch.cuda.device_of(x.values):
            return choice.CHOICES.fastest((1, self.size(x.values)), passes)

    def input_projection(self, x: Padded, weights: dict[str, Tensor] | None = None) -> Tensor:
        """The contribution of the input to every gate. Shape: [B, T, I] -> [B, T, G*H]."""
        weights = weights or dict(self.named_parameters(recurse=False))
        if self.cell.input_norm is None:
            return functional.linear(x.values, weights["weight_ih"], weights["bias"])
        projected = functional.linear(x.values, weights["weight_ih"])
        if self.cell.input_norm == "batch":
            normalised: Padded = self.norm(Padded(projected, x.lengths))
            return normalised.values
        return functional.layer_norm(
            projected, projected.shape[2:], weights["gain_x"], weights["bias"]
        )


class RecurrentLayer(nn.Module):
    """A cell over time in one direction or both; both are concatenated in the output. A single
    direction may run `backward`, from the last frame to the first.

    Shape: [B, T, input_size] -> [B, T, output_size], which is twice R for two directions.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "lstm",
        bidirectional: bool = True,
        backward: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of `Direction`. Raises ConfigError for an unknown cell."""
        super().__init__()
        self.backward = backward
        self.ahead = Direction(input_size, hidden_size, cell, **options)
        self.back = Direction(input_size, hidden_size, cell, **options) if bidirectional else None
        self.output_size = self.ahead.output_size * (2 if bidirectional else 1)

    def forward(self, x: Padded) -> Padded:
        return self._over(x, None, final=False)[0]

    def run(self, x: Padded, states: Sequence[State] | None = None) -> tuple[Padded, list[State]]:
        """From given states (one per direction), and with the states after each last real frame."""
        return self._over(x, states, final=True)

    def chunks(self, x: Padded, size: int, count: int, state: State | None) -> tuple[Padded, State]:
        """Chunks of longer utterances: the first `size` frames are the chunk, the rest its context.

        `count` consecutive chunks are consecutive in the batch: the first ones of all utterances,
        then all second ones. The forward direction continues from `state`, and its state after the
        last chunk is returned. The backward direction starts at the end of each context, from zero
        (latency-controlled BLSTM: Zhang et al. 2016, "Highway long short-term memory RNNs for
        distant speech recognition", section 4). Outputs of a context are computed with its chunk
        only.

        Shape: [count * B, size + context, input_size] -> [count * B, size + context, output_size].
        """
        x = x.zeroed()
        weights = self.ahead.weights_with_dropout()
        mains = x.values[:, :size].chunk(count)
        lengths = x.lengths.clamp(max=size).chunk(count)
        outputs, after = [], []
        for main in map(Padded, mains, lengths):
            y, state = self.ahead(main, state, final=True, weights=weights)
            outputs.append(y.values)
            after.append(state)
        values = torch.cat(outputs)
        if x.values.shape[1] > size:
            rest = Padded(x.values[:, size:], (x.lengths - size).clamp(min=0))
            reached = tuple(torch.cat(parts) for parts in zip(*after, strict=True))
            y, _ = self.ahead(rest, reached, weights=weights)
            values = torch.cat([values, y.values], dim=1)
        if self.back is not None:
            index = reversal_index(x.lengths, x.values.shape[1])
            back, _ = self.back(Padded(reverse(x.values, index), x.lengths))
            values = torch.cat([values, reverse(back.values, index)], dim=2)
        return Padded(values, x.lengths), after[-1]

    def _over(
        self, x: Padded, states: Sequence[State] | None, final: bool
    ) -> tuple[Padded, list[State]]:
        # Arbitrary values in the padding would reach real frames through NaN * 0 in the gradients.
        x = x.zeroed()
        before: Sequence[State | None] = states or [None, None]
        back = self.back
        if back is None and not self.backward:
            ahead, after = self.ahead(x, before[0], final)
            return ahead, [after]
        index = reversal_index(x.lengths, x.values.shape[1])
        if back is None:
            y, after = self.ahead(Padded(reverse(x.values, index), x.lengths), before[0], final)
            return Padded(reverse(y.values, index), x.lengths), [after]
        if not final:
            path = self._fastest(x, index)
            return Padded(self._both(x, index, path), x.lengths), []
        ahead, after = self.ahead(x, before[0], final)
        y, reached = back(Padded(reverse(x.values, index), x.lengths), before[1], final)
        both = torch.cat([ahead.values, reverse(y.values, index)], dim=2)
        return Padded(both, x.lengths), [after, reached]

    def _both(
        self, x: Padded, index: Tensor, path: str, weights: Sequence[dict[str, Tensor]] = ()
    ) -> Tensor:
        """Both directions from a state of zero. Shape: [B, T, I] -> [B, T, 2*R]."""
        assert self.back is not None
        ahead, back = self.ahead, self.back
        own: Sequence[dict[str, Tensor] | None] = weights or (None, None)

        def reversed_() -> Padded:
            return Padded(reverse(x.values, index), x.lengths)

        if path == PERSISTENT:
            drawn = weights or [ahead.weights_with_dropout(), back.weights_with_dropout()]
            projections = [
                ahead.input_projection(x, drawn[0]).transpose(0, 1),
                back.input_projection(reversed_(), drawn[1]).transpose(0, 1),
            ]
            states = [part.initial_state(len(x.lengths)) for part in (ahead, back)]
            (one, _), (other, _) = persistent.run(projections, states, drawn)
            return torch.cat([one.transpose(0, 1), reverse(other.transpose(0, 1), index)], dim=2)
        both = side_by_side(
            lambda: ahead(x, weights=own[0], path=path)[0].values,
            lambda: reverse(back(reversed_(), weights=own[1], path=path)[0].values, index),
            [x.values, x.lengths, index],
        )
        return torch.cat(both, dim=2)

    def _fastest(self, x: Padded, index: Tensor) -> str:
        assert self.back is not None
        paths = self.ahead.paths(x.values, directions=2)
        if len(paths) == 1:
            return paths[0]
        self.ahead.check(x)  # an input of another size is no fault of a path

        def run(path: str, values: Tensor, copies: list[dict[str, Tensor]]) -> Tensor:
            return self._both(Padded(values, x.lengths), index, path, copies)

        weights = [dict(part.named_parameters(recurse=False)) for part in (self.ahead, self.back)]
        passes = {
            path: choice.timed_pass(functools.partial(run, path), x.values, weights)
            for path in paths
        }
        with torch.cuda.device_of(x.values):
            return choice.CHOICES.fastest((2, self.ahead.size(x.values)), passes)


def _cell(name: str, projection: int | None) -> Any:
    if name not in CELLS:
        raise ConfigError(f"expected a cell among {', '.join(CELLS)}, got {name!r}: choose one")
    if CELLS[name].projects != (projection is not None):
        need = "a projection for" if CELLS[name].projects else "no projection but for"
        raise ConfigError(f"expected {need} the projected cell, got {projection} for {name!r}")
    return CELLS[name]


def _last(states: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """The state after each utterance's last frame. Shape: [T, B, H], [B, H], [B] -> [B, H]."""
    rows = torch.arange(len(lengths), device=lengths.device)
    return torch.cat([before[None], states])[lengths, rows]


def _dtype(values: Tensor) -> torch.dtype:
    """The type in which a layer computes."""
    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else values.dtype
