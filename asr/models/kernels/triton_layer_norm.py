# Triton infers the types of compiled functions; its compile-time constants are in capitals.
# mypy: disallow-untyped-defs=False
# ruff: noqa: N803
"""The gates of the layer-norm LSTM in Triton; see triton_gates.py for their arguments.

A program has all cells of an utterance: BLOCK >= H, and one program per utterance.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.models.kernels.triton_gates import add, get, place, put, sigmoid, slope, tanh

EPSILON = tl.constexpr(1e-5)  # torch's


@triton.jit
def _get4(at, H, mask):
    return get(at, mask), get(at + H, mask), get(at + 2 * H, mask), get(at + 3 * H, mask)


@triton.jit
def _put4(at, i, f, g, o, H, mask):
    put(at, i, mask)
    put(at + H, f, mask)
    put(at + 2 * H, g, mask)
    put(at + 3 * H, o, mask)


@triton.jit
def _normal4(a, b, c, d, H, mask):
    """The four rows of a sum normalised together, and 1 / deviation."""
    mean = tl.sum(a + b + c + d) / (4.0 * H)
    a = tl.where(mask, a - mean, 0.0)
    b = tl.where(mask, b - mean, 0.0)
    c = tl.where(mask, c - mean, 0.0)
    d = tl.where(mask, d - mean, 0.0)
    scale = tl.rsqrt(tl.sum(a * a + b * b + c * c + d * d) / (4.0 * H) + EPSILON)
    return a * scale, b * scale, c * scale, d * scale, scale


@triton.jit
def _normal(v, H, mask):
    """The memory normalised, and 1 / deviation."""
    v = tl.where(mask, v - tl.sum(tl.where(mask, v, 0.0)) / H, 0.0)
    scale = tl.rsqrt(tl.sum(v * v) / H + EPSILON)
    return v * scale, scale


@triton.jit(do_not_specialize=["t"])
def layer_norm_forward(x, u, h, c, out, saved, gain_h, gain_c, bias_c, t, H, BLOCK: tl.constexpr):
    """saved: i, f, g, o, U h (4 H). One program has all of an utterance's cells: BLOCK >= H."""
    b, row, j, mask = place(t, H, BLOCK)
    x += row * 4 * H + j
    u += b * 4 * H + j
    saved += row * 8 * H + j
    gain_h += j
    u_i, u_f, u_g, u_o = _get4(u, H, mask)
    _put4(saved + 4 * H, u_i, u_f, u_g, u_o, H, mask)
    n_i, n_f, n_g, n_o, _ = _normal4(u_i, u_f, u_g, u_o, H, mask)
    x_i, x_f, x_g, x_o = _get4(x, H, mask)
    gain_i, gain_f, gain_g, gain_o = _get4(gain_h, H, mask)
    i, f = sigmoid(x_i + gain_i * n_i), sigmoid(x_f + gain_f * n_f)
    g, o = tanh(x_g + gain_g * n_g), sigmoid(x_o + gain_o * n_o)
    after = f * get(c + row * H + j, mask) + i * g
    memory, _ = _normal(after, H, mask)
    shown = tanh(get(gain_c + j, mask) * memory + get(bias_c + j, mask))
    put(c + (row + tl.num_programs(0)) * H + j, after, mask)
    put(out + row * H + j, o * shown, mask)
    _put4(saved, i, f, g, o, H, mask)


# fmt: off
@triton.jit(do_not_specialize=["t"])
def layer_norm_backward(
    saved, h, c, dy, dh, dc, carry, dx, du,
    gain_h, gain_c, bias_c, dgain_h, dgain_c, dbias_c,
    t, H, DIRECT: tl.constexpr, BLOCK: tl.constexpr,
):
    # fmt: on
    b, row, j, mask = place(t, H, BLOCK)
    saved += row * 8 * H + j
    dx += row * 4 * H + j
    du += row * 4 * H + j
    dc += b * H + j
    gain_h += j
    dgain_h += b * 4 * H + j
    i, f, g, o = _get4(saved, H, mask)
    # Cheap values are computed again instead of stored: the normalised sums and memory.
    u_i, u_f, u_g, u_o = _get4(saved + 4 * H, H, mask)
    n_i, n_f, n_g, n_o, scale = _normal4(u_i, u_f, u_g, u_o, H, mask)
    memory, scale_c = _normal(get(c + (row + tl.num_programs(0)) * H + j, mask), H, mask)
    gain = get(gain_c + j, mask)
    shown = tanh(gain * memory + get(bias_c + j, mask))
    d = slope(dh + b * H + j, dy + row * H + j, mask, DIRECT)
    do = d * shown * o * (1.0 - o)
    d *= o * (1.0 - shown * shown)
    add(dgain_c + b * H + j, d * memory, mask)
    add(dbias_c + b * H + j, d, mask)
    d *= gain
    d = scale_c * (d - tl.sum(d) / H - memory * (tl.sum(d * memory) / H)) + get(dc, mask)
    di = d * g * i * (1.0 - i)
    df = d * get(c + row * H + j, mask) * f * (1.0 - f)
    dg = d * i * (1.0 - g * g)
    put(dc, d * f, mask)
    _put4(dx, di, df, dg, do, H, mask)
    add(dgain_h, di * n_i, mask)
    add(dgain_h + H, df * n_f, mask)
    add(dgain_h + 2 * H, dg * n_g, mask)
    add(dgain_h + 3 * H, do * n_o, mask)
    gain_i, gain_f, gain_g, gain_o = _get4(gain_h, H, mask)
    di, df, dg, do = di * gain_i, df * gain_f, dg * gain_g, do * gain_o
    mean = tl.sum(di + df + dg + do) / (4.0 * H)
    along = tl.sum(di * n_i + df * n_f + dg * n_g + do * n_o) / (4.0 * H)
    di, df = scale * (di - mean - n_i * along), scale * (df - mean - n_f * along)
    dg, do = scale * (dg - mean - n_g * along), scale * (do - mean - n_o * along)
    _put4(du, di, df, dg, do, H, mask)
