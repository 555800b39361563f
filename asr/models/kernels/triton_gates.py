# Triton infers the types of compiled functions; its compile-time constants are in capitals.
# mypy: disallow-untyped-defs=False
# ruff: noqa: N803
"""The gates of one frame on a GPU, in Triton: the part of a step besides its matrix product.

Each cell has a pair of kernels, with a program for some cells of one utterance. All computations
are in float32, whatever the storage type. T time, B batch, H cells, G gates, K kept values; t is
the frame:

    forward(x, u, h, c, out, saved, *vectors, t, H)
        x [B, G*H] contribution of the input, u [B, G*H] = h[t] @ weight_hh.T. Writes the output
        out [T, B, H], the next memory c[t + 1], and into saved [T, B, K*H] the values that
        `backward` needs. h and c [T + 1, B, H] hold at t the state before the frame.
    backward(saved, h, c, dy, dh, dc, carry, dx, du, *vectors, *dvectors, t, H, DIRECT)
        dh [B, H] gradient of the output from the next frame, dy [T, B, H] gradient from outside,
        added if DIRECT. dc [B, H] gradient of c[t + 1], replaced by that of c[t]. carry [B, H] the
        gradient of h not through u: added to dh, then replaced. Writes the gradients dx of x and du
        of u (one array with dx if they are equal). dvectors [B, n*H] are sums over frames, one per
        utterance, so that no two programs write to one place.

Arrays that a cell does not use may have any content. float16 and bfloat16 are allowed for x, u, h,
out, saved and their gradients; c, dc, carry, the vectors and dvectors are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(t, H, BLOCK: tl.constexpr):
    """This program's utterance, its frame's row among all, its cells, and which of them exist."""
    b = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return b, b + t * tl.num_programs(0), j, j < H


@triton.jit
def get(at, mask):
    return tl.load(at, mask, other=0.0).to(tl.float32)


@triton.jit
def put(at, v, mask):
    tl.store(at, v.to(at.dtype.element_ty), mask)


@triton.jit
def add(at, v, mask):
    tl.store(at, tl.load(at, mask, other=0.0) + v, mask)


@triton.jit
def sigmoid(v):
    return 1.0 / (1.0 + tl.exp(-v))


@triton.jit
def tanh(v):
    return 2.0 / (1.0 + tl.exp(-2.0 * v)) - 1.0


@triton.jit
def relu(v):
    return tl.where(v <= 0.0, 0.0, v)  # a maximum would turn NaN into 0


@triton.jit
def slope(dh, dy, mask, DIRECT: tl.constexpr):
    """The gradient of the output: from the next frame, and from outside."""
    d = get(dh, mask)
    if DIRECT:
        d += get(dy, mask)
    return d


@triton.jit(do_not_specialize=["t"])
def rnn_forward(x, u, h, c, out, saved, t, H, BLOCK: tl.constexpr, RELU: tl.constexpr):
    """saved: what comes out."""
    b, row, j, mask = place(t, H, BLOCK)
    v = get(x + row * H + j, mask) + get(u + b * H + j, mask)
    v = relu(v) if RELU else tanh(v)
    put(out + row * H + j, v, mask)
    put(saved + row * H + j, v, mask)


@triton.jit(do_not_specialize=["t"])
def rnn_backward(
    saved,
    h,
    c,
    dy,
    dh,
    dc,
    carry,
    dx,
    du,
    t,
    H,
    DIRECT: tl.constexpr,
    BLOCK: tl.constexpr,
    RELU: tl.constexpr,
):
    b, row, j, mask = place(t, H, BLOCK)
    v = get(saved + row * H + j, mask)
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT)
    d = tl.where(v <= 0.0, 0.0, d) if RELU else d * (1.0 - v * v)
    put(dx + row * H + j, d, mask)


@triton.jit
def _lstm_forward(x, u, c, out, saved, p, t, H, BLOCK: tl.constexpr, PEEPHOLE: tl.constexpr):
    """saved: i, f, g, o."""
    b, row, j, mask = place(t, H, BLOCK)
    x += row * 4 * H + j
    u += b * 4 * H + j
    saved += row * 4 * H + j
    before = get(c + row * H + j, mask)
    i = get(x, mask) + get(u, mask)
    f = get(x + H, mask) + get(u + H, mask)
    g = tanh(get(x + 2 * H, mask) + get(u + 2 * H, mask))
    o = get(x + 3 * H, mask) + get(u + 3 * H, mask)
    if PEEPHOLE:
        i += get(p + j, mask) * before
        f += get(p + H + j, mask) * before
    i = sigmoid(i)
    f = sigmoid(f)
    after = f * before + i * g
    if PEEPHOLE:
        o += get(p + 2 * H + j, mask) * after
    o = sigmoid(o)
    put(c + (row + tl.num_programs(0)) * H + j, after, mask)
    put(out + row * H + j, o * tanh(after), mask)
    put(saved, i, mask)
    put(saved + H, f, mask)
    put(saved + 2 * H, g, mask)
    put(saved + 3 * H, o, mask)


@triton.jit
def _lstm_backward(
    saved,
    c,
    dy,
    dh,
    dc,
    dx,
    p,
    dp,
    t,
    H,
    DIRECT: tl.constexpr,
    BLOCK: tl.constexpr,
    PEEPHOLE: tl.constexpr,
):
    b, row, j, mask = place(t, H, BLOCK)
    saved += row * 4 * H + j
    dx += row * 4 * H + j
    dp += b * 3 * H + j
    dc += b * H + j
    i, f = get(saved, mask), get(saved + H, mask)
    g, o = get(saved + 2 * H, mask), get(saved + 3 * H, mask)
    before = get(c + row * H + j, mask)
    after = get(c + (row + tl.num_programs(0)) * H + j, mask)
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT)
    shown = tanh(after)
    do = d * shown * o * (1.0 - o)
    d = get(dc, mask) + d * o * (1.0 - shown * shown)
    if PEEPHOLE:
        d += get(p + 2 * H + j, mask) * do
        add(dp + 2 * H, do * after, mask)
    di = d * g * i * (1.0 - i)
    df = d * before * f * (1.0 - f)
    put(dx, di, mask)
    put(dx + H, df, mask)
    put(dx + 2 * H, d * i * (1.0 - g * g), mask)
    put(dx + 3 * H, do, mask)
    d *= f
    if PEEPHOLE:
        d += get(p + j, mask) * di + get(p + H + j, mask) * df
        add(dp, di * before, mask)
        add(dp + H, df * before, mask)
    put(dc, d, mask)


@triton.jit(do_not_specialize=["t"])
def lstm_forward(x, u, h, c, out, saved, t, H, BLOCK: tl.constexpr):
    _lstm_forward(x, u, c, out, saved, c, t, H, BLOCK, False)


@triton.jit(do_not_specialize=["t"])
def lstm_backward(
    saved, h, c, dy, dh, dc, carry, dx, du, t, H, DIRECT: tl.constexpr, BLOCK: tl.constexpr
):
    _lstm_backward(saved, c, dy, dh, dc, dx, c, c, t, H, DIRECT, BLOCK, False)


@triton.jit(do_not_specialize=["t"])
def peephole_forward(x, u, h, c, out, saved, p, t, H, BLOCK: tl.constexpr):
    _lstm_forward(x, u, c, out, saved, p, t, H, BLOCK, True)


@triton.jit(do_not_specialize=["t"])
def peephole_backward(
    saved, h, c, dy, dh, dc, carry, dx, du, p, dp, t, H, DIRECT: tl.constexpr, BLOCK: tl.constexpr
):
    _lstm_backward(saved, c, dy, dh, dc, dx, p, dp, t, H, DIRECT, BLOCK, True)


@triton.jit(do_not_specialize=["t"])
def coupled_forward(x, u, h, c, out, saved, t, H, BLOCK: tl.constexpr):
    """saved: i, g, o."""
    b, row, j, mask = place(t, H, BLOCK)
    x += row * 3 * H + j
    u += b * 3 * H + j
    saved += row * 3 * H + j
    before = get(c + row * H + j, mask)
    i = sigmoid(get(x, mask) + get(u, mask))
    g = tanh(get(x + H, mask) + get(u + H, mask))
    o = sigmoid(get(x + 2 * H, mask) + get(u + 2 * H, mask))
    after = before + i * (g - before)
    put(c + (row + tl.num_programs(0)) * H + j, after, mask)
    put(out + row * H + j, o * tanh(after), mask)
    put(saved, i, mask)
    put(saved + H, g, mask)
    put(saved + 2 * H, o, mask)


@triton.jit(do_not_specialize=["t"])
def coupled_backward(
    saved, h, c, dy, dh, dc, carry, dx, du, t, H, DIRECT: tl.constexpr, BLOCK: tl.constexpr
):
    b, row, j, mask = place(t, H, BLOCK)
    saved += row * 3 * H + j
    dx += row * 3 * H + j
    dc += b * H + j
    i, g, o = get(saved, mask), get(saved + H, mask), get(saved + 2 * H, mask)
    before = get(c + row * H + j, mask)
    shown = tanh(get(c + (row + tl.num_programs(0)) * H + j, mask))
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT)
    put(dx + 2 * H, d * shown * o * (1.0 - o), mask)
    d = get(dc, mask) + d * o * (1.0 - shown * shown)
    put(dx, d * (g - before) * i * (1.0 - i), mask)
    put(dx + H, d * i * (1.0 - g * g), mask)
    put(dc, d * (1.0 - i), mask)


@triton.jit(do_not_specialize=["t"])
def gru_forward(x, u, h, c, out, saved, bias_n, t, H, BLOCK: tl.constexpr):
    """saved: r, z, n, U_n h + bias."""
    b, row, j, mask = place(t, H, BLOCK)
    x += row * 3 * H + j
    u += b * 3 * H + j
    saved += row * 4 * H + j
    before = get(h + row * H + j, mask)
    r = sigmoid(get(x, mask) + get(u, mask))
    z = sigmoid(get(x + H, mask) + get(u + H, mask))
    seen = get(u + 2 * H, mask) + get(bias_n + j, mask)
    n = tanh(get(x + 2 * H, mask) + r * seen)
    put(out + row * H + j, n + z * (before - n), mask)
    put(saved, r, mask)
    put(saved + H, z, mask)
    put(saved + 2 * H, n, mask)
    put(saved + 3 * H, seen, mask)


@triton.jit(do_not_specialize=["t"])
def gru_backward(
    saved,
    h,
    c,
    dy,
    dh,
    dc,
    carry,
    dx,
    du,
    bias_n,
    dbias_n,
    t,
    H,
    DIRECT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    b, row, j, mask = place(t, H, BLOCK)
    saved += row * 4 * H + j
    dx += row * 3 * H + j
    du += row * 3 * H + j
    carry += b * H + j
    r, z = get(saved, mask), get(saved + H, mask)
    n, seen = get(saved + 2 * H, mask), get(saved + 3 * H, mask)
    before = get(h + row * H + j, mask)
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT) + get(carry, mask)
    dn = d * (1.0 - z) * (1.0 - n * n)
    dr = dn * seen * r * (1.0 - r)
    dz = d * (before - n) * z * (1.0 - z)
    put(dx, dr, mask)
    put(dx + H, dz, mask)
    put(dx + 2 * H, dn, mask)
    put(du, dr, mask)
    put(du + H, dz, mask)
    put(du + 2 * H, dn * r, mask)
    put(carry, d * z, mask)
    add(dbias_n + b * H + j, dn * r, mask)


@triton.jit(do_not_specialize=["t"])
def light_gru_forward(x, u, h, c, out, saved, t, H, BLOCK: tl.constexpr):
    """saved: z, n."""
    b, row, j, mask = place(t, H, BLOCK)
    x += row * 2 * H + j
    u += b * 2 * H + j
    saved += row * 2 * H + j
    before = get(h + row * H + j, mask)
    z = sigmoid(get(x, mask) + get(u, mask))
    n = relu(get(x + H, mask) + get(u + H, mask))
    put(out + row * H + j, n + z * (before - n), mask)
    put(saved, z, mask)
    put(saved + H, n, mask)


@triton.jit(do_not_specialize=["t"])
def light_gru_backward(
    saved, h, c, dy, dh, dc, carry, dx, du, t, H, DIRECT: tl.constexpr, BLOCK: tl.constexpr
):
    b, row, j, mask = place(t, H, BLOCK)
    saved += row * 2 * H + j
    dx += row * 2 * H + j
    carry += b * H + j
    z, n = get(saved, mask), get(saved + H, mask)
    before = get(h + row * H + j, mask)
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT) + get(carry, mask)
    put(dx, d * (before - n) * z * (1.0 - z), mask)
    put(dx + H, tl.where(n <= 0.0, 0.0, d * (1.0 - z)), mask)
    put(carry, d * z, mask)
