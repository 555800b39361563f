# Triton infers the types of compiled functions; its compile-time constants are in capitals.
# mypy: disallow-untyped-defs=False
# ruff: noqa: N803
"""The LSTM over all frames in one launch, in Triton: recurrent weights are read once.

Layout. The grid is (blocks of CELLS cells, blocks of ROWS utterances, directions). The programs of
one direction and one block of utterances are a group; groups never exchange anything. A program
computes the four gates of its cells for its utterances in all frames. It holds its weights in
shared memory during the whole loop: forwards those of its gates, [4 * CELLS, H]; backwards those by
which all gates reach its cells, four times [CELLS, H].

Exchange. A frame needs the results of all programs of the group in the frame before: forwards h of
all cells, backwards the gradients of all gates. They are written to global memory, as they are
outputs anyway, and read from there (through L2; .cg loads bypass L1). Each program writes only its
own cells and utterances, each element once: forwards h[t + 1], c[t + 1] and saved[t] in frame t,
backwards dx[t]. Memory c and its gradient belong to one program and stay in registers.

Barrier. Each group has a counter, zero at launch, to which every program adds one per frame, after
its results. Before a program reads results of frame n (n = 1 is the first), it waits until the
counter has reached n * programs. The counter is then at least n * programs only if every program
has added n times: no program can add n + 1 times before all have added n, since it waits for that
before it computes frame n + 1. The counter only grows and every frame has memory of its own, so
nothing is reset or overwritten and one wait per frame suffices.

    writer: stores of all threads; barrier of the program's threads; atomic add with release
    reader: atomic read with acquire, repeated; barrier of the program's threads; loads

Both barriers order all threads of a program with the one that performs the atomic operation;
release and acquire order the two programs on the whole GPU. All programs must run at once, or the
first would wait for ever: the launch is cooperative, which the driver refuses if they do not fit.
Should a program wait in vain all the same, it stops waiting after PATIENCE reads, some seconds, and
all that it computes from then on is NaN. So a fault is an error, and never a GPU that hangs.

T time, B batch, H cells, D directions. WIDTH is H rounded up to a power of two.

    x0, x1 [T, B, 4*H]  contribution of the input in the two directions; strides x_frame, x_row, 1
    weight [D, 4*H, H]
    h, c [D, T + 1, B, H]  at t the state before frame t
    saved [D, T, B, 4*H]  i, f, g, o
    dh, dcs [D, T, B, H]  gradients of h and c from outside; dcs only if MEMORY
    dc [D, B, H]  gradient of the memory after the last frame, replaced by that before the first
    dx [D, T, B, 4*H]  gradient of x, with the strides of x within a direction
    counters [D, blocks of utterances]

c, dc, dcs and all computations are float32; the others are float16 or bfloat16. Positions are 32
bits. The first utterance is `row`. The frames are first <= t < last, so that Triton's interpreter,
which runs one program after the other, can run a frame per launch, without the barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.models.kernels.triton_gates import get, put, sigmoid, tanh

SLICES = tl.constexpr(8)  # one per warp
PATIENCE = tl.constexpr(1 << 24)  # reads of a counter in a launch, each half a microsecond or more


@triton.jit
def announce(counter):
    """State that this program has stored its results of another frame."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, count, patience, v):
    """Wait until programs have announced `count` results.

    Returns the reads of the counter that are left to this program, and v, or NaN if none are left:
    it has waited in vain.
    """
    while (tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < count) & (patience > 0):
        patience -= 1
    tl.debug_barrier()
    return patience, tl.where(patience > 0, v, float("nan"))


@triton.jit
def place(row, B, CELLS: tl.constexpr, ROWS: tl.constexpr):
    """This program's cells [CELLS, 1], its utterances [1, ROWS], and which of these exist."""
    j = tl.program_id(0) * CELLS + tl.arange(0, CELLS)[:, None]
    b = row + tl.program_id(1) * ROWS + tl.arange(0, ROWS)[None, :]
    return j, b, b < B


@triton.jit
def get_gates(at, H, mask):
    return get(at, mask), get(at + H, mask), get(at + 2 * H, mask), get(at + 3 * H, mask)


@triton.jit
def put_gates(at, H, i, f, g, o, mask):
    put(at, i, mask)
    put(at + H, f, mask)
    put(at + 2 * H, g, mask)
    put(at + 3 * H, o, mask)


@triton.jit
def weights_to_own(weight, k, H, CELLS: tl.constexpr):
    """The weights from all cells k to the gates of this program's cells. Shape: [4*CELLS, K]."""
    n = tl.arange(0, 4 * CELLS)[:, None]
    gates = (n // CELLS) * H + tl.program_id(0) * CELLS + n % CELLS
    return tl.load(weight + gates * H + k, k < H, other=0.0)


@triton.jit
def split_gates(u, CELLS: tl.constexpr, ROWS: tl.constexpr):
    """[4*CELLS, ROWS] -> four of [CELLS, ROWS]."""
    u = tl.permute(tl.reshape(u, (2, 2, CELLS, ROWS)), (2, 3, 0, 1))
    even, odd = tl.split(u)
    i, g = tl.split(even)
    f, o = tl.split(odd)
    return i, f, g, o


@triton.jit(do_not_specialize=["counters", "first", "last", "T", "B", "row"])
def lstm_forward(
    x0,
    x1,
    weight,
    h,
    c,
    saved,
    counters,
    first,
    last,
    T,
    B,
    row,
    x_frame,
    x_row,
    H: tl.constexpr,
    WIDTH: tl.constexpr,
    CELLS: tl.constexpr,
    ROWS: tl.constexpr,
    BARRIER: tl.constexpr,
):
    """Writes h and c after every frame, and saved. Their frame `first` is given."""
    d = tl.program_id(2)
    j, b, mask = place(row, B, CELLS, ROWS)
    own = b * H + j
    x = tl.where(d == 0, x0, x1) + b * x_row + j
    h += d * (T + 1) * B * H
    c += d * (T + 1) * B * H + own
    saved += d * T * B * 4 * H + b * 4 * H + j
    counters += d * tl.num_programs(1) + tl.program_id(1)
    k = tl.arange(0, WIDTH)[None, :]
    w = weights_to_own(weight + d * 4 * H * H, k, H, CELLS)
    every = tl.trans(b) * H + k  # [ROWS, WIDTH]
    there = (tl.trans(b) < B) & (k < H)
    memory, t, patience = get(c + first * B * H, mask), first, PATIENCE
    while t < last:
        xi, xf, xg, xo = get_gates(x + t * x_frame, H, mask)
        if BARRIER:
            patience, memory = wait(counters, (t - first) * tl.num_programs(0), patience, memory)
        before = tl.load(h + t * B * H + every, there, other=0.0, cache_modifier=".cg")
        i, f, g, o = split_gates(tl.dot(w, tl.trans(before)), CELLS, ROWS)
        i, f, g, o = sigmoid(i + xi), sigmoid(f + xf), tanh(g + xg), sigmoid(o + xo)
        memory = f * memory + i * g
        put(h + (t + 1) * B * H + own, o * tanh(memory), mask)
        if BARRIER:
            announce(counters)
        put(c + (t + 1) * B * H, memory, mask)
        put_gates(saved + t * B * 4 * H, H, i, f, g, o, mask)
        t += 1


@triton.jit
def slices(WIDTH: tl.constexpr):
    """All cells as [SLICES, K]. The sum over the gates of all cells is long, and its result small.
    So each warp computes a slice of it, as one of a batch of products."""
    size: tl.constexpr = WIDTH // SLICES
    return tl.arange(0, SLICES)[:, None] * size + tl.arange(0, size)[None, :]


@triton.jit
def weights_from_own(weight, gate, k, H, CELLS: tl.constexpr):
    """The weights from this program's cells to a gate of all cells k. Shape: [SLICES, CELLS, K]."""
    j = tl.program_id(0) * CELLS + tl.arange(0, CELLS)[None, :, None]
    return tl.load(weight + (gate * H + k[:, None, :]) * H + j, k[:, None, :] < H, other=0.0)


@triton.jit
def gate_gradient(at, gate, k, there, H):
    """The gradient of a gate of all cells k. Shape: [SLICES, K, ROWS]."""
    return tl.load(at + gate * H + k[:, :, None], there, other=0.0, cache_modifier=".cg")


@triton.jit
def through_gates(wi, wf, wg, wo, at, k, b, B, H, CELLS: tl.constexpr, ROWS: tl.constexpr):
    """The gradient of h of this program's cells, from those of all gates at `at`.

    The slices are added up in pairs: `tl.sum` would leave a copy of the result in every warp, and
    each would compute all that follows.
    """
    there = (b < B)[None, :, :] & (k < H)[:, :, None]  # [SLICES, K, ROWS]
    part = tl.dot(wi, gate_gradient(at, 0, k, there, H))
    part = tl.dot(wf, gate_gradient(at, 1, k, there, H), part)
    part = tl.dot(wg, gate_gradient(at, 2, k, there, H), part)
    part = tl.dot(wo, gate_gradient(at, 3, k, there, H), part)  # [SLICES, CELLS, ROWS]
    part = tl.permute(tl.reshape(part, (2, 2, 2, CELLS, ROWS)), (3, 4, 0, 1, 2))
    for _ in tl.static_range(3):
        even, odd = tl.split(part)
        part = even + odd
    return part


@triton.jit(do_not_specialize=["counters", "first", "last", "T", "B", "row"])
def lstm_backward(
    dh,
    weight,
    dcs,
    dc,
    c,
    saved,
    dx,
    counters,
    first,
    last,
    T,
    B,
    row,
    x_frame,
    x_row,
    H: tl.constexpr,
    WIDTH: tl.constexpr,
    CELLS: tl.constexpr,
    ROWS: tl.constexpr,
    MEMORY: tl.constexpr,
    BARRIER: tl.constexpr,
):
    """Writes dx from frame last - 1 down to `first`. Its frame `last` is given if last < T."""
    d = tl.program_id(2)
    j, b, mask = place(row, B, CELLS, ROWS)
    own = b * H + j
    dh += d * T * B * H + own
    dcs += d * T * B * H + own
    dc += d * B * H + own
    c += d * (T + 1) * B * H + own
    saved += d * T * B * 4 * H + b * 4 * H + j
    dx += d * T * B * 4 * H
    counters += d * tl.num_programs(1) + tl.program_id(1)
    weight += d * 4 * H * H
    k = slices(WIDTH)
    wi, wf = weights_from_own(weight, 0, k, H, CELLS), weights_from_own(weight, 1, k, H, CELLS)
    wg, wo = weights_from_own(weight, 2, k, H, CELLS), weights_from_own(weight, 3, k, H, CELLS)
    dmemory, t, patience = get(dc, mask), last - 1, PATIENCE
    while t >= first:
        i, f, g, o = get_gates(saved + t * B * 4 * H, H, mask)
        before, shown = get(c + t * B * H, mask), tanh(get(c + (t + 1) * B * H, mask))
        slope = get(dh + t * B * H, mask)
        if MEMORY:
            dmemory += get(dcs + t * B * H, mask)
        if BARRIER:
            patience, slope = wait(counters, (last - 1 - t) * tl.num_programs(0), patience, slope)
        if t + 1 < T:
            at = dx + (t + 1) * x_frame + b[None, :, :] * x_row
            slope += through_gates(wi, wf, wg, wo, at, k, b, B, H, CELLS, ROWS)
        do = slope * shown * o * (1.0 - o)
        dmemory += slope * o * (1.0 - shown * shown)
        di, df = dmemory * g * i * (1.0 - i), dmemory * before * f * (1.0 - f)
        dg, at = dmemory * i * (1.0 - g * g), dx + t * x_frame + b * x_row + j
        put_gates(at, H, di, df, dg, do, mask)
        if BARRIER:
            announce(counters)
        dmemory *= f
        t -= 1
    put(dc, dmemory, mask)
