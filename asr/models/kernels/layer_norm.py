"""The gates of the layer-norm LSTM; see gates.py for their arguments."""

from __future__ import annotations

import numpy as np

from asr.models.kernels.compiled import ONE, ZERO, compiled, sigmoid, tanh

LAYER_NORM_EPSILON = np.float32(1e-5)  # torch's


@compiled
def normalise(v, out):
    """Write (v - mean) / deviation into out; return 1 / deviation."""
    mean = v.sum() / np.float32(v.size)
    square = ZERO
    for j in range(v.size):
        out[j] = v[j] - mean
        square += out[j] * out[j]
    scale = ONE / np.sqrt(square / np.float32(v.size) + LAYER_NORM_EPSILON)
    for j in range(v.size):
        out[j] *= scale
    return scale


@compiled
def normalise_backward(normal, scale, d, out):
    """Gradient of v from that of the normalised v, `d`."""
    mean, along = ZERO, ZERO
    for j in range(d.size):
        mean += d[j]
        along += d[j] * normal[j]
    mean /= np.float32(d.size)
    along /= np.float32(d.size)
    for j in range(d.size):
        out[j] = scale * (d[j] - mean - normal[j] * along)


@compiled
def layer_norm_forward(x, u, h_before, c_before, h, c, a, gain_h, gain_c, bias_c):
    """a: i, f, g, o, N(u) (4 H), N(c), tanh of the normalised c, 1 / deviation of u and of c."""
    B, H = h.shape
    for b in range(B):
        xb, ab, cb, hb, before = x[b], a[b], c[b], h[b], c_before[b]
        normal = ab[4 * H : 8 * H]
        ab[10 * H] = normalise(u[b], normal)
        for j in range(H):
            i = sigmoid(xb[j] + gain_h[j] * normal[j])
            f = sigmoid(xb[H + j] + gain_h[H + j] * normal[H + j])
            g = tanh(xb[2 * H + j] + gain_h[2 * H + j] * normal[2 * H + j])
            cb[j] = f * before[j] + i * g
            ab[j] = i
            ab[H + j] = f
            ab[2 * H + j] = g
        memory = ab[8 * H : 9 * H]
        ab[10 * H + 1] = normalise(cb, memory)
        for j in range(H):
            o = sigmoid(xb[3 * H + j] + gain_h[3 * H + j] * normal[3 * H + j])
            shown = tanh(gain_c[j] * memory[j] + bias_c[j])
            hb[j] = o * shown
            ab[3 * H + j] = o
            ab[9 * H + j] = shown


@compiled
def layer_norm_backward(
    a,
    h_before,
    c_before,
    c,
    dh,
    dc,
    dx,
    du,
    carry,
    gain_h,
    gain_c,
    bias_c,
    dgain_h,
    dgain_c,
    dbias_c,
):
    B, H = dh.shape
    for b in range(B):
        ab, before, dhb, dcb, dxb, dub = a[b], c_before[b], dh[b], dc[b], dx[b], du[b]
        normal, memory = ab[4 * H : 8 * H], ab[8 * H : 9 * H]
        # carry is scratch memory; h_before has no gradient other than through u.
        dshown = carry[b]
        for j in range(H):
            o, shown = ab[3 * H + j], ab[9 * H + j]
            dxb[3 * H + j] = dhb[j] * shown * o * (ONE - o)
            d = dhb[j] * o * (ONE - shown * shown)
            dgain_c[j] += d * memory[j]
            dbias_c[j] += d
            dshown[j] = d * gain_c[j]
        normalise_backward(memory, ab[10 * H + 1], dshown, dshown)
        for j in range(H):
            i, f, g = ab[j], ab[H + j], ab[2 * H + j]
            d = dcb[j] + dshown[j]
            dxb[j] = d * g * i * (ONE - i)
            dxb[H + j] = d * before[j] * f * (ONE - f)
            dxb[2 * H + j] = d * i * (ONE - g * g)
            dcb[j] = d * f
            dshown[j] = ZERO
        for j in range(4 * H):
            dgain_h[j] += dxb[j] * normal[j]
            dub[j] = dxb[j] * gain_h[j]
        normalise_backward(normal, ab[10 * H], dub, dub)
