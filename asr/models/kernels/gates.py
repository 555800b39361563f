"""The gates of one frame, compiled: the part of a step besides its matrix product.

Each cell has a pair of functions over a whole batch in float32. B batch, H cells, G gates:

    forward(x, u, h_before, c_before, h, c, a, *vectors)
        x [B, G*H] contribution of the input, u [B, G*H] = h_before @ weight_hh.T; writes the next
        state h and c [B, H], and into a [B, K*H + 2] the values that `backward` needs.
    backward(a, h_before, c_before, c, dh, dc, dx, du, carry, *vectors, *dvectors)
        dh [B, H] gradient of h; dc [B, H] that of c, replaced by that of c_before. Writes the
        gradients dx of x, du of u (one array with dx where they are equal), and into carry [B, H]
        the part of the gradient of h_before not through u; adds to those of the cell's own vectors.

Cells without memory are given arrays for c that they do not use.
"""

from __future__ import annotations

from dataclasses import dataclass

from asr.jit import Function
from asr.models.kernels.compiled import ONE, ZERO, compiled, sigmoid, tanh
from asr.models.kernels.layer_norm import layer_norm_backward, layer_norm_forward


@compiled
def rnn_tanh_forward(x, u, h_before, c_before, h, c, a):
    B, H = h.shape
    for b in range(B):
        for j in range(H):
            h[b, j] = tanh(x[b, j] + u[b, j])
        a[b, :H] = h[b]


@compiled
def rnn_tanh_backward(a, h_before, c_before, c, dh, dc, dx, du, carry):
    B, H = dh.shape
    for b in range(B):
        for j in range(H):
            dx[b, j] = dh[b, j] * (ONE - a[b, j] * a[b, j])


@compiled
def rnn_relu_forward(x, u, h_before, c_before, h, c, a):
    B, H = h.shape
    for b in range(B):
        for j in range(H):
            h[b, j] = max(x[b, j] + u[b, j], ZERO)
        a[b, :H] = h[b]


@compiled
def rnn_relu_backward(a, h_before, c_before, c, dh, dc, dx, du, carry):
    B, H = dh.shape
    for b in range(B):
        for j in range(H):
            dx[b, j] = dh[b, j] if a[b, j] > ZERO else ZERO


@compiled
def peephole_forward(x, u, h_before, c_before, h, c, a, p):
    """a: i, f, g, o, tanh(c)."""
    B, H = h.shape
    for b in range(B):
        xb, ub, ab, cb, hb, before = x[b], u[b], a[b], c[b], h[b], c_before[b]
        for j in range(H):
            i = sigmoid(xb[j] + ub[j] + p[j] * before[j])
            f = sigmoid(xb[H + j] + ub[H + j] + p[H + j] * before[j])
            g = tanh(xb[2 * H + j] + ub[2 * H + j])
            cb[j] = f * before[j] + i * g
            ab[j] = i
            ab[H + j] = f
            ab[2 * H + j] = g
        for j in range(H):
            o = sigmoid(xb[3 * H + j] + ub[3 * H + j] + p[2 * H + j] * cb[j])
            shown = tanh(cb[j])
            hb[j] = o * shown
            ab[3 * H + j] = o
            ab[4 * H + j] = shown


@compiled
def peephole_backward(a, h_before, c_before, c, dh, dc, dx, du, carry, p, dp):
    B, H = dh.shape
    for b in range(B):
        ab, before, cb, dhb, dcb, dxb = a[b], c_before[b], c[b], dh[b], dc[b], dx[b]
        for j in range(H):
            o, shown = ab[3 * H + j], ab[4 * H + j]
            do = dhb[j] * shown * o * (ONE - o)
            dxb[3 * H + j] = do
            dcb[j] += dhb[j] * o * (ONE - shown * shown) + p[2 * H + j] * do
            dp[2 * H + j] += do * cb[j]
        for j in range(H):
            i, f, g = ab[j], ab[H + j], ab[2 * H + j]
            di = dcb[j] * g * i * (ONE - i)
            df = dcb[j] * before[j] * f * (ONE - f)
            dxb[j] = di
            dxb[H + j] = df
            dxb[2 * H + j] = dcb[j] * i * (ONE - g * g)
            dcb[j] = dcb[j] * f + p[j] * di + p[H + j] * df
            dp[j] += di * before[j]
            dp[H + j] += df * before[j]


@compiled
def lstm_forward(x, u, h_before, c_before, h, c, a):
    """a: i, f, g, o, tanh(c)."""
    B, H = h.shape
    for b in range(B):
        xb, ub, ab, cb, hb, before = x[b], u[b], a[b], c[b], h[b], c_before[b]
        for j in range(H):
            i = sigmoid(xb[j] + ub[j])
            f = sigmoid(xb[H + j] + ub[H + j])
            g = tanh(xb[2 * H + j] + ub[2 * H + j])
            cb[j] = f * before[j] + i * g
            ab[j] = i
            ab[H + j] = f
            ab[2 * H + j] = g
        for j in range(H):
            o = sigmoid(xb[3 * H + j] + ub[3 * H + j])
            shown = tanh(cb[j])
            hb[j] = o * shown
            ab[3 * H + j] = o
            ab[4 * H + j] = shown


@compiled
def lstm_backward(a, h_before, c_before, c, dh, dc, dx, du, carry):
    B, H = dh.shape
    for b in range(B):
        ab, before, dhb, dcb, dxb = a[b], c_before[b], dh[b], dc[b], dx[b]
        for j in range(H):
            o, shown = ab[3 * H + j], ab[4 * H + j]
            dxb[3 * H + j] = dhb[j] * shown * o * (ONE - o)
            dcb[j] += dhb[j] * o * (ONE - shown * shown)
        for j in range(H):
            i, f, g = ab[j], ab[H + j], ab[2 * H + j]
            dxb[j] = dcb[j] * g * i * (ONE - i)
            dxb[H + j] = dcb[j] * before[j] * f * (ONE - f)
            dxb[2 * H + j] = dcb[j] * i * (ONE - g * g)
            dcb[j] = dcb[j] * f


@compiled
def coupled_forward(x, u, h_before, c_before, h, c, a):
    """a: i, g, o, tanh(c)."""
    B, H = h.shape
    for b in range(B):
        xb, ub, ab, cb, hb, before = x[b], u[b], a[b], c[b], h[b], c_before[b]
        for j in range(H):
            i = sigmoid(xb[j] + ub[j])
            g = tanh(xb[H + j] + ub[H + j])
            o = sigmoid(xb[2 * H + j] + ub[2 * H + j])
            cb[j] = before[j] + i * (g - before[j])
            shown = tanh(cb[j])
            hb[j] = o * shown
            ab[j] = i
            ab[H + j] = g
            ab[2 * H + j] = o
            ab[3 * H + j] = shown


@compiled
def coupled_backward(a, h_before, c_before, c, dh, dc, dx, du, carry):
    B, H = dh.shape
    for b in range(B):
        ab, before, dhb, dcb, dxb = a[b], c_before[b], dh[b], dc[b], dx[b]
        for j in range(H):
            i, g, o, shown = ab[j], ab[H + j], ab[2 * H + j], ab[3 * H + j]
            d = dcb[j] + dhb[j] * o * (ONE - shown * shown)
            dxb[j] = d * (g - before[j]) * i * (ONE - i)
            dxb[H + j] = d * i * (ONE - g * g)
            dxb[2 * H + j] = dhb[j] * shown * o * (ONE - o)
            dcb[j] = d * (ONE - i)


@compiled
def gru_forward(x, u, h_before, c_before, h, c, a, bias_n):
    """a: r, z, n, U_n h + bias."""
    B, H = h.shape
    for b in range(B):
        xb, ub, ab, hb, before = x[b], u[b], a[b], h[b], h_before[b]
        for j in range(H):
            r = sigmoid(xb[j] + ub[j])
            z = sigmoid(xb[H + j] + ub[H + j])
            seen = ub[2 * H + j] + bias_n[j]
            n = tanh(xb[2 * H + j] + r * seen)
            hb[j] = n + z * (before[j] - n)
            ab[j] = r
            ab[H + j] = z
            ab[2 * H + j] = n
            ab[3 * H + j] = seen


@compiled
def gru_backward(a, h_before, c_before, c, dh, dc, dx, du, carry, bias_n, dbias_n):
    B, H = dh.shape
    for b in range(B):
        ab, before, dhb, dxb, dub = a[b], h_before[b], dh[b], dx[b], du[b]
        for j in range(H):
            r, z, n, seen = ab[j], ab[H + j], ab[2 * H + j], ab[3 * H + j]
            dn = dhb[j] * (ONE - z) * (ONE - n * n)
            dr = dn * seen * r * (ONE - r)
            dz = dhb[j] * (before[j] - n) * z * (ONE - z)
            dxb[j] = dr
            dxb[H + j] = dz
            dxb[2 * H + j] = dn
            dub[j] = dr
            dub[H + j] = dz
            dub[2 * H + j] = dn * r
        for j in range(H):
            carry[b, j] = dhb[j] * ab[H + j]
            dbias_n[j] += dub[2 * H + j]


@compiled
def light_gru_forward(x, u, h_before, c_before, h, c, a):
    """a: z, n."""
    B, H = h.shape
    for b in range(B):
        xb, ub, ab, hb, before = x[b], u[b], a[b], h[b], h_before[b]
        for j in range(H):
            z = sigmoid(xb[j] + ub[j])
            n = max(xb[H + j] + ub[H + j], ZERO)
            hb[j] = n + z * (before[j] - n)
            ab[j] = z
            ab[H + j] = n


@compiled
def light_gru_backward(a, h_before, c_before, c, dh, dc, dx, du, carry):
    B, H = dh.shape
    for b in range(B):
        ab, before, dhb, dxb = a[b], h_before[b], dh[b], dx[b]
        for j in range(H):
            z, n = ab[j], ab[H + j]
            dxb[j] = dhb[j] * (before[j] - n) * z * (ONE - z)
            dxb[H + j] = dhb[j] * (ONE - z) if n > ZERO else ZERO
            carry[b, j] = dhb[j] * z


@dataclass(frozen=True)
class Gates:
    """The compiled pair of a cell, and what a loop must provide for it."""

    forward: Function
    backward: Function
    saved: int
    """Number of multiples of H values per frame that `backward` needs, besides two."""
    carries: bool = False
    """Whether h_before has a gradient other than through u."""
    own_du: bool = False
    """Whether the gradient of u differs from that of x."""


GATES = {
    "rnn_tanh": Gates(rnn_tanh_forward, rnn_tanh_backward, 1),
    "rnn_relu": Gates(rnn_relu_forward, rnn_relu_backward, 1),
    "lstm": Gates(lstm_forward, lstm_backward, 5),
    "projected": Gates(lstm_forward, lstm_backward, 5),
    "peephole": Gates(peephole_forward, peephole_backward, 5),
    "coupled": Gates(coupled_forward, coupled_backward, 4),
    "gru": Gates(gru_forward, gru_backward, 4, carries=True, own_du=True),
    "light_gru": Gates(light_gru_forward, light_gru_backward, 2, carries=True),
    "layer_norm": Gates(layer_norm_forward, layer_norm_backward, 10, own_du=True),
}
