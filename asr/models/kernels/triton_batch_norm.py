# Triton infers the types of compiled functions; its compile-time constants are in capitals.
# mypy: disallow-untyped-defs=False
# ruff: noqa: N803
"""Batch normalisation of the real rows of a padded batch, in Triton.

Row r of N = B * T * M, with M rows per frame, is real if frame (r // M) % T of utterance r // (M *
T) is. The grid is (programs, blocks of FEATURES features); a program has `span` rows.

Each pass needs sums over all rows before it can compute any of its results. With SUMS, a program
writes its share of the sums. With APPLY, it reads those of all programs and computes the results of
its rows. With both, the programs wait for each other in between, at one counter for each block of
features, by the barrier of triton_persistent.py: the launch must be cooperative, and should a
program wait in vain, its results are NaN.

    x, y, grad, before [N, F], lengths [B]
    sums [programs, 3, F] forwards: number, mean and summed squared deviation of rows
         [programs, 2, F] backwards: of the gradient, and of it times the normalised values
    found [3, F]  mean, 1 / deviation, and the number of rows that the statistics are of; infinite
         if they do not depend on the batch
    weight, bias, running_mean, running_variance [F]

Computations are in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.models.kernels.triton_persistent import PATIENCE, announce, wait


@triton.jit
def tile(first, end, lengths, T, M, F: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr):
    """Positions of the values of ROWS rows, which of them exist, and which rows are real."""
    row = first + tl.arange(0, ROWS)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    frame = row // M
    length = tl.load(lengths + frame // T, mask=row < end, other=0)
    there = (row < end)[:, None] & (feature < F)[None, :]
    at = row.to(tl.int64)[:, None] * F + feature[None, :]
    return at, there, (row < end) & (frame % T < length)


@triton.jit
def waited(counter, v):
    """Wait until every program of this block has announced its sums. Returns v, or NaN if it has
    waited in vain."""
    patience = tl.full((), PATIENCE, tl.int32)
    _, v = wait(counter, tl.num_programs(0), patience, v)
    return v


@triton.jit
def deviations(
    x, lengths, sums, first, end, T, M,
    F: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Write this program's share of the sums forwards."""
    # Each element of a tile has statistics of its own (Welford 1962), merged at the end (Chan et
    # al. 1979), so that no step of the loop exchanges anything.
    count = tl.zeros([ROWS], tl.float32)
    mean = tl.zeros([ROWS, FEATURES], tl.float32)
    square = tl.zeros([ROWS, FEATURES], tl.float32)
    while first < end:
        at, there, real = tile(first, end, lengths, T, M, F, ROWS, FEATURES)
        taken = there & real[:, None]
        count += real.to(tl.float32)
        v = tl.load(x + at, mask=taken, other=0.0).to(tl.float32)
        off = tl.where(taken, v - mean, 0.0)
        mean += off / tl.maximum(count, 1.0)[:, None]
        square += off * (v - mean)
        first += ROWS
    total = tl.sum(count, 0)
    middle = tl.sum(mean * count[:, None], 0) / tl.maximum(total, 1.0)
    off = mean - middle[None, :]
    square = tl.sum(square + off * off * count[:, None], 0)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    out = sums + tl.program_id(0) * 3 * F + feature
    tl.store(out, tl.zeros([FEATURES], tl.float32) + total, mask=feature < F)
    tl.store(out + F, middle, mask=feature < F)
    tl.store(out + 2 * F, square, mask=feature < F)


@triton.jit
def merged(sums, shares, F: tl.constexpr, SHARES: tl.constexpr, FEATURES: tl.constexpr):
    """Number, mean and summed squared deviation of the rows of all programs."""
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    total = tl.zeros([FEATURES], tl.float32)
    mean = tl.zeros([FEATURES], tl.float32)
    square = tl.zeros([FEATURES], tl.float32)
    first = 0
    while first < shares:
        share = first + tl.arange(0, SHARES)
        there = (share < shares)[:, None] & (feature < F)[None, :]
        at = sums + share[:, None] * 3 * F + feature[None, :]
        counts = tl.load(at, mask=there, other=0.0, cache_modifier=".cg")
        means = tl.load(at + F, mask=there, other=0.0, cache_modifier=".cg")
        squares = tl.load(at + 2 * F, mask=there, other=0.0, cache_modifier=".cg")
        count = tl.sum(counts, 0)
        middle = tl.sum(counts * means, 0) / tl.maximum(count, 1.0)
        off = means - middle[None, :]
        squared = tl.sum(squares + counts * off * off, 0)
        both = tl.maximum(total + count, 1.0)
        change = middle - mean
        square += squared + change * change * (total * count / both)
        mean += change * (count / both)
        total += count
        first += SHARES
    return total, mean, square


@triton.jit(do_not_specialize=["N", "T", "M", "span", "shares"])
def norm_forward(
    x, lengths, weight, bias, running_mean, running_variance, sums, found, counters, y,
    N, T, M, span, shares, momentum, epsilon,
    F: tl.constexpr, SUMS: tl.constexpr, APPLY: tl.constexpr, ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
):  # fmt: skip
    """Writes found and y, zero in the padding, and moves the running statistics. A single row has
    no variance: it takes the running statistics."""
    first = tl.program_id(0) * span
    end = tl.minimum(first + span, N)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    mask = feature < F
    if SUMS:
        deviations(x, lengths, sums, first, end, T, M, F, ROWS, FEATURES)
    if APPLY:
        gain = tl.load(weight + feature, mask=mask, other=0.0).to(tl.float32)
        if SUMS:
            announce(counters + tl.program_id(1))
            gain = waited(counters + tl.program_id(1), gain)
        count, mean, square = merged(sums, shares, F, ROWS, FEATURES)
        enough = count > 1.0
        old_mean = tl.load(running_mean + feature, mask=mask, other=0.0)
        old_variance = tl.load(running_variance + feature, mask=mask, other=1.0)
        mean = tl.where(enough, mean, old_mean)
        variance = tl.where(enough, square / tl.maximum(count, 1.0), old_variance)
        scale = 1.0 / tl.sqrt_rn(variance + epsilon)
        if tl.program_id(0) == 0:
            # With one row, all read what is written here, which is what was there.
            unbiased = tl.where(enough, square / tl.maximum(count - 1.0, 1.0), old_variance)
            tl.store(running_mean + feature, old_mean + momentum * (mean - old_mean), mask=mask)
            moved = old_variance + momentum * (unbiased - old_variance)
            tl.store(running_variance + feature, moved, mask=mask)
            tl.store(found + feature, mean, mask=mask)
            tl.store(found + F + feature, scale, mask=mask)
            counted = tl.where(enough, count, float("inf"))
            tl.store(found + 2 * F + feature, counted, mask=mask)
        shift = tl.load(bias + feature, mask=mask, other=0.0).to(tl.float32)
        while first < end:
            at, there, real = tile(first, end, lengths, T, M, F, ROWS, FEATURES)
            taken = there & real[:, None]
            v = tl.load(x + at, mask=taken, other=0.0).to(tl.float32)
            v = (v - mean[None, :]) * scale[None, :] * gain[None, :] + shift[None, :]
            tl.store(y + at, tl.where(taken, v, 0.0), mask=there)
            first += ROWS


@triton.jit
def products(
    x, grad, lengths, sums, mean, scale, first, end, T, M,
    F: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Write this program's share of the sums backwards."""
    straight = tl.zeros([ROWS, FEATURES], tl.float32)
    along = tl.zeros([ROWS, FEATURES], tl.float32)
    while first < end:
        at, there, real = tile(first, end, lengths, T, M, F, ROWS, FEATURES)
        taken = there & real[:, None]
        v = tl.load(x + at, mask=taken, other=0.0).to(tl.float32)
        slope = tl.load(grad + at, mask=taken, other=0.0).to(tl.float32)
        straight += slope
        along += slope * ((v - mean[None, :]) * scale[None, :])
        first += ROWS
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    out = sums + tl.program_id(0) * 2 * F + feature
    tl.store(out, tl.sum(straight, 0), mask=feature < F)
    tl.store(out + F, tl.sum(along, 0), mask=feature < F)


@triton.jit
def added(sums, shares, F: tl.constexpr, SHARES: tl.constexpr, FEATURES: tl.constexpr):
    """The sums backwards over all programs."""
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    straight = tl.zeros([FEATURES], tl.float32)
    along = tl.zeros([FEATURES], tl.float32)
    first = 0
    while first < shares:
        share = first + tl.arange(0, SHARES)
        there = (share < shares)[:, None] & (feature < F)[None, :]
        at = sums + share[:, None] * 2 * F + feature[None, :]
        straight += tl.sum(tl.load(at, mask=there, other=0.0, cache_modifier=".cg"), 0)
        along += tl.sum(tl.load(at + F, mask=there, other=0.0, cache_modifier=".cg"), 0)
        first += SHARES
    return straight, along


@triton.jit(do_not_specialize=["N", "T", "M", "span", "shares"])
def norm_backward(
    x, grad, lengths, weight, found, sums, slopes, counters, before,
    N, T, M, span, shares,
    F: tl.constexpr, SUMS: tl.constexpr, APPLY: tl.constexpr, ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of x, zero in the padding, to `before`, and those of bias and weight to
    slopes [2, F]."""
    first = tl.program_id(0) * span
    end = tl.minimum(first + span, N)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    mask = feature < F
    mean = tl.load(found + feature, mask=mask, other=0.0)
    scale = tl.load(found + F + feature, mask=mask, other=0.0)
    if SUMS:
        products(x, grad, lengths, sums, mean, scale, first, end, T, M, F, ROWS, FEATURES)
    if APPLY:
        gain = tl.load(weight + feature, mask=mask, other=0.0).to(tl.float32)
        if SUMS:
            announce(counters + tl.program_id(1))
            gain = waited(counters + tl.program_id(1), gain)
        straight, along = added(sums, shares, F, ROWS, FEATURES)
        if tl.program_id(0) == 0:
            tl.store(slopes + feature, straight, mask=mask)
            tl.store(slopes + F + feature, along, mask=mask)
        count = tl.load(found + 2 * F + feature, mask=mask, other=1.0)
        straight /= count
        along /= count
        while first < end:
            at, there, real = tile(first, end, lengths, T, M, F, ROWS, FEATURES)
            taken = there & real[:, None]
            v = tl.load(x + at, mask=taken, other=0.0).to(tl.float32)
            slope = tl.load(grad + at, mask=taken, other=0.0).to(tl.float32)
            normal = (v - mean[None, :]) * scale[None, :]
            slope = slope - straight[None, :] - normal * along[None, :]
            slope *= (gain * scale)[None, :]
            tl.store(before + at, tl.where(taken, slope, 0.0), mask=there)
            first += ROWS
