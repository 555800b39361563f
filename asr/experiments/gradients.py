"""Gradient flow through time in recurrent layers, measured and plotted.

A loss is computed at the last frame of a sequence. The norm of dLoss/dh_t, as a function of the
distance from frame t to the loss, shows how much a training step can learn from frame t. It shrinks
or grows with the product of the Jacobians dh_t/dh_{t-1} in between (Hochreiter 1991; Bengio et al.
1994, "Learning long-term dependencies with gradient descent is difficult"; Pascanu et al. 2013, "On
the difficulty of training recurrent neural networks", eq. 5). The layers are untrained.

Two different methods are called clipping. The gradient can be clipped in every frame during
backpropagation (after Graves 2013, "Generating sequences with recurrent neural networks", section
2.1, who bounded each element of the gradients at the gates; here it is the norm of dLoss/dh_t).
This bounds the curve and changes the direction of the weight gradient. Or the complete weight
gradient can be clipped once (Pascanu et al. 2013, algorithm 1), as in training: this keeps its
direction, and does not change the curve. Both are measured.

T frames, H cells, R recurrent features, G gates with H rows each; one sequence at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from asr.config import Config, parse, read_yaml, with_overrides
from asr.errors import ConfigError
from asr.io.files import atomic_path, write_json
from asr.models.cells import CELLS, Cell, State, Weights
from asr.models.kernels import reference
from asr.models.recurrent import Direction
from asr.padded import Padded
from asr.plotting import pyplot

LINES = ("-", "--", "-.", ":")  # one per cell; the colour distinguishes its settings
LOWEST_DRAWN = 1e-16  # below a rounding error of the largest norm


class CurveConfig(Config):
    """A layer to measure."""

    cell: str
    """The cell, one of those allowed for model.cell of a recipe."""
    recurrent_scale: float = Field(1.0, gt=0, le=100)
    """Spectral radius of every gate's recurrent matrix, an orthogonal matrix times this factor."""
    forget_bias: float | None = Field(None, ge=-100, le=100)
    """Bias of the forget gate, whose opening is the logistic function of it; the default is 1, the
    initial value of layers in this package."""

    @model_validator(mode="after")
    def _fits_the_cell(self) -> Self:
        if self.cell not in CELLS:
            raise ValueError(f"expected a cell among {', '.join(CELLS)}")
        if self.forget_bias is not None and CELLS[self.cell].forget_gate is None:
            having = [name for name, cell in CELLS.items() if cell.forget_gate is not None]
            raise ValueError(f"expected a forget_bias with {', '.join(having)} only: leave it out")
        return self

    @property
    def label(self) -> str:
        """
        >>> CurveConfig(cell="lstm", forget_bias=5).label
        'lstm, forget bias 5'
        """
        scale = "" if self.recurrent_scale == 1 else f", recurrent scale {self.recurrent_scale:g}"
        bias = "" if self.forget_bias is None else f", forget bias {self.forget_bias:g}"
        return self.cell + scale + bias


class GradientConfig(Config):
    """Settings of `asr gradients`."""

    hidden: int = Field(64, ge=1, le=1024)
    """Cells of each layer, and features of its standard normal input. A projected layer outputs
    half as many."""
    frames: int = Field(100, ge=2, le=2000)
    """Length of the sequence; the loss is at its last frame."""
    seeds: int = Field(5, ge=1, le=100)
    """Number of draws of weights, input and loss for each layer."""
    clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Largest norm of dLoss/dh_t in a frame, and of the gradient of the recurrent weights, with
    clipping. dLoss/dh_t has norm 1 at the loss."""
    curves: tuple[CurveConfig, ...] = Field(
        (
            CurveConfig(cell="rnn_tanh"),
            CurveConfig(cell="rnn_tanh", recurrent_scale=1.5),
            CurveConfig(cell="rnn_tanh", recurrent_scale=3),
            CurveConfig(cell="gru"),
            CurveConfig(cell="lstm"),
            CurveConfig(cell="lstm", forget_bias=5),
        ),
        min_length=1,
        max_length=10,
    )
    """The layers to compare: cell, recurrent_scale and forget_bias of each."""


def read_config(path: Path | None = None, overrides: Sequence[str] = ()) -> GradientConfig:
    """The configuration in a YAML file, or the default, with `key=value` overrides.

    Raises ConfigError: one line naming the file and the key.
    """
    values = {} if path is None else read_yaml(path)
    source = "the command line" if path is None else str(path)
    return parse(GradientConfig, with_overrides(values, overrides), source)


@dataclass(frozen=True)
class Backward:
    """One pass of the gradient through one sequence."""

    state_norms: tuple[float, ...]
    """Norm of dLoss/dh_t by distance from the loss in frames; 0 is its own frame."""
    weight_gradient: Tensor
    """dLoss/dU of the recurrent weights U. Shape: [G*H, R]."""


@dataclass(frozen=True)
class Measurement:
    """One seed of a curve."""

    free: tuple[float, ...]
    """Norm of dLoss/dh_t by distance in frames, without clipping."""
    clipped: tuple[float, ...]
    """The same with clipping in every frame."""
    weights: float
    """Norm of the gradient of the recurrent weights, without clipping."""
    weights_clipped_once: float
    """The same after clipping it as a whole, which keeps its direction."""
    weights_clipped_every_frame: float
    """The same with dLoss/dh_t clipped in every frame."""
    cosine: float
    """Cosine of the recurrent weights' gradients without and with clipping in every frame."""


@dataclass(frozen=True)
class Curve:
    """One layer, measured once per seed."""

    config: CurveConfig
    measurements: tuple[Measurement, ...]

    def factor(self) -> float:
        """The mean factor of dLoss/dh_t per frame: median of the seeds.

        Below 1 the gradient vanishes, above 1 it explodes.
        """
        frames = len(self.measurements[0].free) - 1
        return median((m.free[-1] / m.free[0]) ** (1 / frames) for m in self.measurements)


@dataclass(frozen=True)
class GradientFlow:
    """The measurements and their configuration."""

    config: GradientConfig
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Trial:
    """A layer's recurrence over one sequence, and a loss at its end; all in float64."""

    cell: Cell
    share: Tensor
    """Contribution of the input to every gate. Shape: [T, 1, G*H]."""
    state: State
    """Before the first frame: h [1, R], and c [1, H] if the cell has a memory."""
    weights: Weights
    slope: Tensor
    """dLoss/dh of the last frame. Shape: [R]."""


def measure(config: GradientConfig) -> GradientFlow:
    """Measure every curve with every seed. The same configuration gives the same numbers.

    Raises ConfigError if a gradient leaves the range of float64.
    """
    curves = []
    for curve in config.curves:
        runs = (_measured(draw_trial(curve, config, s), config.clip) for s in range(config.seeds))
        curves.append(Curve(curve, tuple(_finite(run, curve) for run in runs)))
    return GradientFlow(config, tuple(curves))


def draw_trial(curve: CurveConfig, config: GradientConfig, seed: int) -> Trial:
    """A layer with the initial weights of training, standard normal input, and a loss whose slope
    has norm 1 and a random direction."""
    projection = max(1, config.hidden // 2) if CELLS[curve.cell].projects else None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        layer = Direction(config.hidden, config.hidden, curve.cell, projection)
        layer.weight_hh.mul_(curve.recurrent_scale)
        if curve.forget_bias is not None:
            layer.bias.view(layer.cell.gates, -1)[layer.cell.forget_gate] = curve.forget_bias
        values = torch.randn(1, config.frames, config.hidden)
        share = layer.input_projection(Padded(values, torch.tensor([config.frames])))
        slope = torch.randn(layer.output_size, dtype=torch.float64)
        state = tuple(part.double() for part in layer.initial_state(1))
        named = layer.named_parameters(recurse=False)
        weights = {name: weight.detach().double() for name, weight in named}
    return Trial(layer.cell, share.transpose(0, 1).double(), state, weights, slope / slope.norm())


def flow_back(trial: Trial, clip: float = math.inf) -> Backward:
    """Propagate the gradient of the loss back through the sequence, clipping dLoss/dh_t to `clip`.

    The gradient of the memory c is never clipped, as in Graves 2013.
    """
    recurrent = trial.weights["weight_hh"].detach().requires_grad_()
    outputs: list[Tensor] = []

    def step(x: Tensor, state: State, w: Weights) -> State:
        new = trial.cell.step(x, state, w)
        outputs.append(new[0])
        return new

    weights = {**trial.weights, "weight_hh": recurrent}
    reference.run(replace(trial.cell, step=step), trial.share, trial.state, weights)
    norms = [0.0] * len(outputs)

    def on_its_way(frame: int, gradient: Tensor) -> Tensor:
        gradient = clipped(gradient, clip)
        norms[frame] = euclidean(gradient)
        return gradient

    for frame, h in enumerate(outputs):
        # Called when the gradient of h is complete, before it flows to the previous frame.
        h.register_hook(partial(on_its_way, frame))
    (gradient,) = torch.autograd.grad((outputs[-1] @ trial.slope).sum(), recurrent)
    return Backward(tuple(reversed(norms)), gradient)


def euclidean(gradient: Tensor) -> float:
    """The norm, also of values so small that their squares underflow.

    >>> euclidean(torch.tensor([3e-200, 4e-200], dtype=torch.float64))
    5e-200
    """
    largest = gradient.abs().max().item()
    if not 0 < largest < math.inf:
        return gradient.norm().item()
    return largest * (gradient / largest).norm().item()


def clipped(gradient: Tensor, longest: float) -> Tensor:
    """The same direction, at most `longest` in Euclidean norm (Pascanu et al. 2013, algorithm 1).

    >>> clipped(torch.tensor([3.0, 4.0]), 1.0).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    norm = gradient.norm().item()
    return gradient if norm <= longest else gradient * (longest / norm)


def _measured(trial: Trial, clip: float) -> Measurement:
    free, bounded = flow_back(trial), flow_back(trial, clip)
    whole, in_parts = free.weight_gradient, bounded.weight_gradient
    norm, norm_in_parts = whole.norm().item(), in_parts.norm().item()
    # Scaled first, so that the product of two large gradients stays in range.
    aligned = (whole / (norm or 1.0) * (in_parts / (norm_in_parts or 1.0))).sum().item()
    return Measurement(
        free=free.state_norms,
        clipped=bounded.state_norms,
        weights=norm,
        weights_clipped_once=clipped(whole, clip).norm().item(),
        weights_clipped_every_frame=norm_in_parts,
        cosine=aligned,
    )


def _finite(measurement: Measurement, curve: CurveConfig) -> Measurement:
    numbers = (*measurement.free, *measurement.clipped, measurement.weights, measurement.cosine)
    if all(map(math.isfinite, numbers)):
        return measurement
    raise ConfigError(
        f"expected gradients within the range of float64, got an overflow in {curve.label!r}: "
        "take fewer frames or a smaller recurrent_scale"
    )


def to_text(result: GradientFlow) -> str:
    """A table: one line per curve, each number the median of the seeds.

    The columns are the factor of dLoss/dh_t per frame and its norm at the greatest distance; the
    norm of the weight gradient without clipping, clipped once, and clipped in every frame; and the
    cosine between the first and the last of these three.
    """
    far = result.config.frames - 1
    rows = [("layer", "per frame", f"at {far}", "weights", "once", "every frame", "cosine")]
    for curve in result.curves:
        runs = curve.measurements
        rows.append(
            (
                curve.config.label,
                f"{curve.factor():.3f}",
                f"{median(m.free[-1] for m in runs):.1e}",
                f"{median(m.weights for m in runs):.1e}",
                f"{median(m.weights_clipped_once for m in runs):.1e}",
                f"{median(m.weights_clipped_every_frame for m in runs):.1e}",
                f"{median(m.cosine for m in runs):.2f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(lines)


def to_json(result: GradientFlow) -> dict[str, Any]:
    """All numbers; lists of norms start at the loss and go back by frame, one list per seed."""
    return {
        "config": result.config.model_dump(),
        "curves": [
            {
                "label": curve.config.label,
                "factor_per_frame": curve.factor(),
                **{
                    name: [getattr(m, name) for m in curve.measurements]
                    for name in Measurement.__dataclass_fields__
                },
            }
            for curve in result.curves
        ],
    }


def write(result: GradientFlow, out: Path) -> None:
    """Write gradients.json and gradients.png into the folder `out`, created if missing."""
    write_json(out / "gradients.json", to_json(result))
    with atomic_path(out / "gradients.png") as temporary:
        draw(result, temporary)


def draw(result: GradientFlow, path: Path) -> None:
    """Plot the norms against the distance as a PNG: left without, right with clipping per frame.

    Lines are medians, bands range from the smallest to the largest seed.
    """
    plt = pyplot(path)
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(11, 5.6), layout="constrained")
    clip = result.config.clip
    titles = {"free": "not clipped", "clipped": f"clipped to {clip:g} in every frame"}
    cells = list(dict.fromkeys(curve.config.cell for curve in result.curves))
    for side, (kind, title) in zip(axes, titles.items(), strict=True):
        side.set_title(title)
        side.set_xlabel("distance from the loss, in frames")
        side.set_yscale("log")
        side.grid(alpha=0.3)
        for curve in result.curves:
            seeds = [getattr(m, kind) for m in curve.measurements]
            by_distance = list(zip(*seeds, strict=True))
            distances = range(len(by_distance))
            (line,) = side.plot(
                distances,
                [median(norms) for norms in by_distance],
                LINES[cells.index(curve.config.cell) % len(LINES)],
                label=curve.config.label,
            )
            low, high = [min(n) for n in by_distance], [max(n) for n in by_distance]
            side.fill_between(distances, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes[0].set_ylabel("norm of dLoss/dh_t")
    axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], LOWEST_DRAWN))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, format="png", dpi=120)
    plt.close(figure)
