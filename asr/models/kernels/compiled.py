"""Functions compiled by numba: activation functions of the gates, and a product for few rows."""

from __future__ import annotations

import functools

import numpy as np

from asr import jit

# All fast-math flags but one: NaN must stay NaN, so that a diverged training is noticed.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

compiled = functools.partial(jit.compiled, fastmath=FASTMATH, inline="never")


@compiled
def tanh(x):
    """Rational approximation within 4e-7, which compilers can vectorise (coefficients: Eigen)."""
    v = x
    if v > np.float32(7.9):
        v = np.float32(7.9)
    if v < np.float32(-7.9):
        v = np.float32(-7.9)
    s = v * v
    p = np.float32(-2.76076847742355e-16)
    p = p * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return v * p / q


@compiled
def sigmoid(x):
    return HALF * tanh(HALF * x) + HALF


@compiled
def times(rows, weight, out):
    """out = rows @ weight.T, for few rows. Shape: rows [B, R], weight [N, R], out [B, N]."""
    B, R = rows.shape
    for b in range(B):
        for n in range(len(weight)):
            total = ZERO
            for r in range(R):
                total += weight[n, r] * rows[b, r]
            out[b, n] = total
