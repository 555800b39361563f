# Triton infers the types of compiled functions; its compile-time constants are in capitals.
# mypy: disallow-untyped-defs=False
# ruff: noqa: N803
"""CTC's forward and backward recursions in Triton (Graves et al. 2006, section 4.1).

A program has all states of an utterance: blank, token, blank, ..., blank, at most BLOCK. Each frame
is a step of its loop. States past an utterance's last have probability 0.

T frames, V tokens, U target tokens, S = 2 U + 1 states.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _states(targets, s, count, BLANK: tl.constexpr):
    """The token of each state, and whether it may follow that two states before."""
    odd = (s % 2 == 1) & (s < count)
    token = tl.load(targets + s // 2, mask=odd, other=BLANK)
    earlier = tl.load(targets + s // 2 - 1, mask=odd & (s > 1), other=BLANK)
    return token, odd & (s > 1) & (token != earlier)


@triton.jit
def _added(a, b, c):
    """log(exp a + exp b + exp c), also where all are -inf."""
    most = tl.maximum(tl.maximum(a, b), c)
    most = tl.where(most == float("-inf"), 0.0, most)
    return most + tl.log(tl.exp(a - most) + tl.exp(b - most) + tl.exp(c - most))


@triton.jit
def _moved(values, s, by: tl.constexpr, BLOCK: tl.constexpr):
    """The values of the states `by` further; -inf past either end."""
    place = s + by
    inside = (place >= 0) & (place < BLOCK)
    moved = tl.gather(values, tl.where(inside, place, 0), 0)
    return tl.where(inside, moved, float("-inf"))


@triton.jit(do_not_specialize=["T", "V", "U"])
def ctc_forward(
    scores, targets, lengths, sizes, alphas, losses, T, V, U,
    BLANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Shape: scores [B, T, V], targets [B, U] -> alphas [B, T, BLOCK], losses [B]."""
    b = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + b).to(tl.int32)
    count = 2 * tl.load(sizes + b).to(tl.int32) + 1
    s = tl.arange(0, BLOCK)
    token, skips = _states(targets + b * U, s, count, BLANK)
    frame = scores + b * T * V + token
    row = alphas + b * T * BLOCK + s
    alpha = tl.load(frame, mask=(s < 2) & (s < count) & (length > 0), other=float("-inf"))
    if length > 0:
        tl.store(row, alpha)
    emitted = tl.load(frame + V, mask=(s < count) & (length > 1), other=float("-inf"))
    t = 1
    while t < length:  # not `for`: the interpreter has no loops to a loaded number
        t += 1
        frame += V
        row += BLOCK
        # Loaded a frame ahead, so that no step waits for memory.
        coming = tl.load(frame + V, mask=(s < count) & (t < length), other=float("-inf"))
        two = tl.where(skips, _moved(alpha, s, -2, BLOCK), float("-inf"))
        alpha = _added(alpha, _moved(alpha, s, -1, BLOCK), two) + emitted
        tl.store(row, alpha)
        emitted = coming
    last = tl.where((s < count) & (s >= count - 2), alpha, float("-inf"))
    most = tl.max(last, 0)
    most = tl.where(most == float("-inf"), 0.0, most)
    loss = -(most + tl.log(tl.sum(tl.exp(last - most), 0)))
    # Without a frame, only an empty target has been written.
    none = tl.where(count == 1, 0.0, float("inf"))
    tl.store(losses + b, tl.where(length > 0, loss, none))


@triton.jit(do_not_specialize=["T", "V", "U"])
def ctc_backward(
    scores, targets, lengths, sizes, alphas, losses, posteriors, T, V, U,
    BLANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The probability of each state in each frame, given the target. Shape: alphas [B, T, BLOCK] ->
    posteriors, the same; frames past an utterance's end are left as they are."""
    b = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + b).to(tl.int32)
    count = 2 * tl.load(sizes + b).to(tl.int32) + 1
    loss = tl.load(losses + b)
    s = tl.arange(0, BLOCK)
    token, _ = _states(targets + b * U, s, count, BLANK)
    _, skipped = _states(targets + b * U, s + 2, count, BLANK)
    end = tl.maximum(length - 1, 0).to(tl.int64)
    frame = scores + (b * T + end) * V + token
    place = (b * T + end) * BLOCK + s
    # beta: of the frames after this one.
    beta = tl.where((s < count) & (s >= count - 2), 0.0, float("-inf"))
    some = length > 0
    alpha = tl.load(alphas + place, mask=(s < BLOCK) & some, other=float("-inf"))
    emitted = tl.load(frame, mask=(s < count) & some, other=float("-inf"))
    left = length
    while left > 0:
        left -= 1
        more = left > 0
        before = tl.load(alphas + place - BLOCK, mask=(s < BLOCK) & more, other=float("-inf"))
        coming = tl.load(frame - V, mask=(s < count) & more, other=float("-inf"))
        tl.store(posteriors + place, tl.exp(alpha + beta + loss))
        reached = beta + emitted
        two = tl.where(skipped, _moved(reached, s, 2, BLOCK), float("-inf"))
        beta = _added(reached, _moved(reached, s, 1, BLOCK), two)
        alpha = before
        emitted = coming
        frame -= V
        place -= BLOCK
