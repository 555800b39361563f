"""Masked batch norm in training on a GPU: one Triton kernel forward and one backward.

The same in plain operators is `asr.models.batch_norm`, which takes 32 of them. The kernels are in
triton_batch_norm.py. In one launch, all programs of a kernel wait for each other, which requires a
cooperative launch. Where that does not work, and where several processes exchange their sums in
between, a kernel is launched twice: for the sums, and for the results. N rows, F features.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asr import shares
from asr.models.kernels import gpu
from asr.padded import Padded

TILE = 4096  # values that a program takes at a time
WIDEST = 128  # features of a program
WARPS = 8
AT_ONCE = 2  # programs per multiprocessor: 2 * 256 threads of 128 registers fill it
REGISTERS = 128
MOST_ROWS = 2**30  # positions of rows are 32 bits

SUMS, RESULTS = (True, False), (False, True)  # parts of a kernel
BOTH = ((True, True),)
IN_TURN = (SUMS, RESULTS)


@dataclass(frozen=True)
class Plan:
    """How rows and features are divided among programs."""

    programs: int
    span: int
    """Rows of a program."""
    blocks: int
    """Of features, each with so many programs."""
    rows: int
    """In a tile."""
    features: int


def plan(rows: int, features: int, most: int) -> Plan:
    """As many programs as there are tiles, and no more than run at once, `most`.

    >>> plan(1_000_000, 32, most=264)
    Plan(programs=261, span=3840, blocks=1, rows=128, features=32)
    >>> plan(1000, 2048, most=264)
    Plan(programs=16, span=64, blocks=16, rows=32, features=128)
    """
    width = min(WIDEST, 1 << (features - 1).bit_length())
    height, blocks = TILE // width, -(-features // width)
    tiles = -(-rows // height)
    each = -(-tiles // max(1, most // blocks))
    return Plan(-(-tiles // each), each * height, blocks, height, width)


def serves(values: Tensor, weight: Tensor) -> bool:
    """Whether this path supports these values [B, T, ..., F] and weights [F]."""
    rows = values.numel() // max(1, values.shape[-1])
    return (
        weight.dtype == torch.float32
        and 0 < rows < MOST_ROWS
        and gpu.serves("lstm", values)
        and _works(values.device)
    )


def normalise(
    x: Padded,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor],
    momentum: float,
    epsilon: float,
) -> Tensor:
    """The real rows, normalised by their own statistics, in float32; padding is zero. A single row
    takes the running statistics (mean and variance), which are moved by the momentum.

    Shape: values [B, T, ..., F], all others [F] -> [B, T, ..., F].
    """
    values, lengths = x.values.contiguous(), x.lengths.contiguous()
    y: Tensor = _Norm.apply(values, lengths, weight, bias, *running, momentum, epsilon)
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        lengths: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        epsilon: float,
    ) -> Tensor:
        F, share, divided = values.shape[-1], shares.current(), _plan(values)
        sums, found = weight.new_empty(divided.programs, 3, F), weight.new_empty(3, F)
        y = torch.empty_like(values, dtype=weight.dtype)
        given = values, lengths, weight, bias, running_mean, running_variance
        numbers = momentum, epsilon
        if share is None:
            _run("norm_forward", divided, (*given, sums, found), y, numbers)
        else:
            _launch("norm_forward", SUMS, divided, (*given, sums, found), y, numbers)
            everyone = _of_all(sums, share)
            _launch("norm_forward", RESULTS, divided, (*given, everyone, found), y, numbers)
        ctx.save_for_backward(values, lengths, weight, found)
        ctx.shared, ctx.real = share is not None, share is None or share.real
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, lengths, weight, found = ctx.saved_tensors
        F, divided = values.shape[-1], _plan(values)
        sums, slopes = weight.new_empty(divided.programs, 2, F), weight.new_empty(2, F)
        before = torch.empty_like(values)
        given = values, grad.contiguous(), lengths, weight, found
        if not ctx.shared:
            _run("norm_backward", divided, (*given, sums, slopes), before)
        else:
            _launch("norm_backward", SUMS, divided, (*given, sums, slopes), before)
            slopes = sums.sum(dim=0)
            everyone = slopes.clone()
            shares.all_reduce(everyone)
            if not ctx.real:  # a copy of another process's utterance is not in the statistics
                everyone.zero_()
            unused = torch.empty_like(slopes)
            _launch("norm_backward", RESULTS, divided, (*given, everyone[None], unused), before)
        return before, None, slopes[1], slopes[0], None, None, None, None


def _of_all(sums: Tensor, share: shares.Share) -> Tensor:
    """The sums of all processes, from those of the programs of this one. Shape: [programs, 3, F] ->
    [1, 3, F]."""
    counts, means, squares = sums.double().unbind(dim=1)
    count = counts.sum(dim=0)
    some = count.clamp(min=1)
    mean = (counts * means).sum(dim=0) / some
    square = (squares + counts * (means - mean).square()).sum(dim=0)
    total, mean, variance = shares.statistics(share, count[0], mean, square / some)
    return torch.stack([total.expand_as(mean), mean, total * variance])[None].float()


def _run(
    kernel: str,
    divided: Plan,
    tensors: tuple[Tensor, ...],
    out: Tensor,
    numbers: tuple[float, ...] = (),
) -> None:
    """Both parts of a kernel, in one launch if that works."""
    at_once = divided.programs == 1 or _cooperates(out.device)
    for parts in BOTH if at_once else IN_TURN:
        _launch(kernel, parts, divided, tensors, out, numbers)


def _launch(
    kernel: str,
    parts: tuple[bool, bool],
    divided: Plan,
    tensors: tuple[Tensor, ...],
    out: Tensor,
    numbers: tuple[float, ...] = (),
) -> None:
    """Run a kernel of triton_batch_norm.py for the sums, the results, or both. The last but one of
    the tensors are the sums. Shape: tensors[0] [B, T, ..., F]."""
    from asr.models.kernels import triton_batch_norm

    values, sums, both = tensors[0], tensors[-2], all(parts)
    (B, T), F = values.shape[:2], values.shape[-1]
    rows = values.numel() // F
    counters = torch.zeros(divided.blocks if both else 1, dtype=torch.int32, device=out.device)
    with torch.cuda.device_of(values):
        getattr(triton_batch_norm, kernel)[divided.programs, divided.blocks](
            *tensors, counters, out, rows, T, rows // (B * T), divided.span, len(sums), *numbers,
            F=F, SUMS=parts[0], APPLY=parts[1], ROWS=divided.rows, FEATURES=divided.features,
            num_warps=WARPS, maxnreg=REGISTERS,
            launch_cooperative_grid=both and divided.programs > 1,
        )  # fmt: skip


def _plan(values: Tensor) -> Plan:
    F = values.shape[-1]
    return plan(values.numel() // F, F, _at_once(values.device))


@functools.cache
def _at_once(device: torch.device) -> int:
    """The number of programs that can wait for each other."""
    if device.type != "cuda":  # interpreted, one after the other
        return 1
    return int(AT_ONCE * torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether the kernels work there, tested once. A warning gives the reason if not."""
    try:
        _trial(device, IN_TURN)
    except Exception as error:  # Triton, its compiler and the driver have no common exception class
        _warn("batch norm runs as many operators, which is slower", device, error)
        return False
    return True


@functools.cache
def _cooperates(device: torch.device) -> bool:
    """Whether all programs can wait for each other there, tested once. A warning gives the reason
    if not."""
    try:
        for own, expected in zip(_trial(device, BOTH), _trial(device, IN_TURN), strict=True):
            if not torch.allclose(own, expected, rtol=2e-3, atol=1e-3):
                raise ArithmeticError("its results differ")
    except Exception as error:
        _warn("batch norm takes two launches in place of one", device, error)
        return False
    return True


def _warn(consequence: str, device: torch.device, error: Exception) -> None:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    warnings.warn(f"{consequence}: its kernel does not work on {device}: {reason}", stacklevel=2)


def _trial(device: torch.device, ways: tuple[tuple[bool, bool], ...]) -> list[Tensor]:
    """Results and gradients for a batch that takes as many programs as run at once."""
    rows = 2 * _at_once(device) * TILE // WIDEST
    values = torch.linspace(-1, 3, rows * WIDEST, device=device).reshape(2, -1, WIDEST).half()
    lengths = torch.tensor([rows // 2, rows // 3]).to(device)
    weight = torch.linspace(1, 2, WIDEST, device=device)
    divided, running = _plan(values), (torch.zeros_like(weight), torch.ones_like(weight))
    sums, found = weight.new_empty(divided.programs, 3, WIDEST), weight.new_empty(3, WIDEST)
    products, slopes = weight.new_empty(divided.programs, 2, WIDEST), torch.empty_like(found[:2])
    y, before = values.float(), torch.empty_like(values)
    grad = y.square()
    forwards = (values, lengths, weight, weight, *running, sums, found)
    backwards = (values, grad, lengths, weight, found, products, slopes)
    for parts in ways:
        _launch("norm_forward", parts, divided, forwards, y, (0.1, 1e-5))
    for parts in ways:
        _launch("norm_backward", parts, divided, backwards, before)
    results = [y, found, slopes, before, *running]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return results
