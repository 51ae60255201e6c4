"""The parts of a layer: sections 1 to 4, 6, 8 and 10 of docs/arithmetic.md.

A row of numbers is the last axis of an array; what stands before it are tokens (and heads).
"""

import math
from dataclasses import dataclass

import numpy as np

from floats import F32, LOG2_E, LOG2_E_32, NotFinite, bits, exp2, f32, finite, fma, from_bits, rte

A8, A16 = 127, 32639  # the largest integer of each activation mode


# 1. Quantising a row


def quantise(x, largest):
    """The rows of x as (integers q, one scale s for each row)."""
    a, zero = magnitudes(x)
    q, s = steps(x, a, F32(largest), largest)
    return np.where(zero[..., None], 0, q.astype(np.int64)), np.where(zero, F32(0), s)


def weight_rows(x):
    """The rows of x [n, k] as (integers q, scales s), by the best of 16 scales."""
    parts = [best_steps(rows) for rows in np.array_split(x, 1 + x.size // 2**16)]  # few at a time: they stay in cache
    return tuple(np.concatenate(part) for part in zip(*parts))


def best_steps(x):
    a, zero = magnitudes(x)
    best = None
    for i in range(16):
        q, s = steps(x, a, F32(127.4375 - 0.5 * i), A8)
        found = sum_of_squares(fma(-s[:, None], q, x)), q, s
        best = best or found
        better = found[0] < best[0]
        for ours, theirs in zip(best, found):
            ours[better] = theirs[better]
    _, q, s = best
    return np.where(zero[:, None], 0, q.astype(np.int64)), np.where(zero, F32(0), s)


def magnitudes(x):
    """(each row's largest magnitude a, or 1 where that is as good as zero; where it is)."""
    a = (bits(x) & 0x7FFFFFFF).max(axis=-1)
    if (a >= 0x7F800000).any():
        raise NotFinite
    a = from_bits(a)
    zero = a < F32(2.0**-100)
    return np.where(zero, F32(1), a), zero


def steps(x, a, d, largest):
    """The rows of x in steps of s = a / d: (q, still floats; s)."""
    q = rte(np.minimum(np.maximum(x * (d / a)[..., None], F32(-largest)), F32(largest)))
    return q, a / d


def sum_of_squares(x):
    """Of each row, in 128 lanes, in the order of section 4."""
    lane = np.zeros((*x.shape[:-1], 128), F32)
    for first in range(0, x.shape[-1], 128):
        part = x[..., first : first + 128]
        lanes = part.shape[-1]
        lane[..., :lanes] = fma(part, part, lane[..., :lanes])
    for h in 64, 32, 16, 8, 4, 2, 1:
        lane = lane[..., :h] + lane[..., h : 2 * h]
    return lane[..., 0]


def spread_block(n):
    """B(n)"""
    return min(n & -n, 1024)


def spread(x):
    n = x.shape[-1]
    h = 1
    while h < spread_block(n):
        pairs = x.reshape(*x.shape[:-1], n // (2 * h), 2, h)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], axis=-2).reshape(x.shape)
        h *= 2
    return x


def digits(q):
    """q = 256·hi + lo."""
    lo = ((q + 128) & 255) - 128
    return (q - lo) >> 8, lo


# 2. Linear, 3. Adapter


def prepared(w, norm, quantised):
    """What `quantised` makes of weight rows w that are first multiplied by the weight of the norm they read, if any,
    and spread."""
    q, s = quantised(spread(w if norm is None else w * norm))
    return q, s / F32(spread_block(w.shape[-1]))


@dataclass
class Adapter:
    a: tuple  # (integers [r, k], scales [r])
    b: tuple  # (integers [n, r], scales [n])
    g: np.float32


@dataclass
class Linear:
    weight: tuple  # (integers [n, k], scales [n])
    bias: np.ndarray | None = None
    adapter: Adapter | None = None

    def __call__(self, x, mode):
        """y[n] for quantised rows x = (q, s_x)."""
        y = product(x, self.weight, mode)
        if self.bias is not None:
            y = y + self.bias
        if self.adapter is not None:
            t = product(x, self.adapter.a, mode)
            d = product(quantise(t, A16), self.adapter.b, A16)
            y = fma(d, self.adapter.g, y)
        return y


def product(x, weight, mode):
    (q, s_x), (w, s_w) = x, weight
    assert w.shape[-1] <= 131071
    if mode == A8:
        c = f32(integer_product(q, w))
    else:
        hi, lo = digits(q)
        c = f32(integer_product(hi, w)) * F32(256) + f32(integer_product(lo, w))
    return c * (s_x[..., None] * s_w)


def integer_product(q, w):
    """Σₖ q[…, k]·w[n, k]: exact in binary64, whatever the order, as every partial sum stays below 2⁵³."""
    return q.astype(np.float64) @ w.astype(np.float64).T


# 4. RMSNorm


def rmsnorm(x, weight, eps):
    total = sum_of_squares(x)
    r = np.where(np.isfinite(total), F32(1) / np.sqrt(total / F32(x.shape[-1]) + eps), F32(0))
    return (x * r[..., None]) * weight


# 6. Rotary positions


def frequencies(theta, dims, scaling):
    """ω[i], binary64, for `dims` rotary dimensions."""
    h = dims // 2
    omega = [math.pow(theta, -(2 * i) / (2 * h)) for i in range(h)]
    kind = scaling["rope_type"]
    if kind == "default":
        return omega
    factor = float(scaling["factor"])
    if kind == "linear":
        return [w / factor for w in omega]
    if kind != "llama3":
        raise ValueError(f"rotary scaling {kind} is not covered")

    low_factor, high_factor = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    original = float(scaling["original_max_position_embeddings"])

    def scaled(w):
        wavelength = 2 * math.pi / w
        if wavelength < original / high_factor:
            return w
        if wavelength > original / low_factor:
            return w / factor
        t = (original / wavelength - low_factor) / (high_factor - low_factor)
        return ((1 - t) * w) / factor + t * w

    return [scaled(w) for w in omega]


def rotary_table(positions, omega):
    """c and s, both [positions, h]."""
    angles = [[float(p) * w for w in omega] for p in positions]
    return tuple(f32([[f(angle) for angle in row] for row in angles]) for f in (math.cos, math.sin))


def rotate(v, c, s):
    h = c.shape[-1]
    x, y = v[..., :h], v[..., h : 2 * h]
    return np.concatenate([fma(x, c, -(y * s)), fma(y, c, x * s), v[..., 2 * h :]], axis=-1)


# 8. Attention

BLOCK, SPAN = 64, 1024


class Running:
    """(m, l, o) of each query, started by the first part that is joined."""

    def __init__(self, queries, d):
        self.started = np.zeros(queries, bool)
        self.m, self.l, self.o = np.zeros(queries, F32), np.zeros(queries, F32), np.zeros((queries, d), F32)

    def join(self, rows, m_b, l_b, o_b):
        """Joins a part to the queries `rows`."""
        started, m, l, o = self.started[rows], self.m[rows], self.l[rows], self.o[rows]
        m_new = np.maximum(m, m_b)
        alpha, beta = exp2(m - m_new), exp2(m_b - m_new)
        self.m[rows] = np.where(started, m_new, m_b)
        self.l[rows] = np.where(started, fma(l, alpha, l_b * beta), l_b)
        self.o[rows] = np.where(started[:, None], fma(o, alpha[:, None], o_b * beta[:, None]), o_b)
        self.started[rows] = True


def attention(q, k, v, positions, window=None):
    """One head: quantised queries q = (integers [queries, d], scales) at these absolute positions, quantised keys k and
    values v of the absolute positions 0, 1, 2, …"""
    d = q[0].shape[-1]
    assert d <= 512
    c = F32(LOG2_E / (math.sqrt(d) * spread_block(d)))
    whole = Running(len(positions), d)
    for span in range(0, len(k[0]), SPAN):
        part = Running(len(positions), d)
        for first in range(span, min(span + SPAN, len(k[0])), BLOCK):
            j = np.arange(first, min(first + BLOCK, len(k[0])))
            visible = j <= positions[:, None]
            if window is not None:
                visible &= positions[:, None] - window < j
            rows = np.flatnonzero(visible.any(axis=1))
            if len(rows):
                part.join(rows, *block(q, k, v, rows, j, visible[rows], c))
        rows = np.flatnonzero(part.started)
        whole.join(rows, part.m[rows], part.l[rows], part.o[rows])
    r = F32(65536) / whole.l
    return whole.o * r[:, None]


def block(q, k, v, rows, j, visible, c):
    """(m_b, l_b, o_b) of the queries `rows` over the positions j. An invisible position has t = -∞, hence
    p = u = w = 0, and so takes no part in the maxima and the sums."""
    (q, s_q), (k, s_k), (v, s_v) = [(x[i], s[i]) for (x, s), i in ((q, rows), (k, j), (v, j))]
    t = f32(integer_product(q, k)) * ((s_q * c)[:, None] * s_k)
    t = np.where(visible, t, F32(-np.inf))
    m_b = t.max(axis=-1)
    p = exp2(t - m_b[:, None])
    l_b = f32(rte(p * F32(65536)).astype(np.int64).sum(axis=-1))
    w, s_w = quantise(p * s_v, A16)
    return m_b, l_b, f32(integer_product(w, v.T)) * s_w[:, None]


# 10. Mixture of experts


def router_rows(w):
    return quantise(w, A16)


def route(x, weight, chosen, renormalise):
    """(ids of the chosen experts, ascending; their weights g), both [tokens, chosen], for quantised rows x (as a16)."""
    (q, s_x), (w, s_w) = x, weight
    z = finite(f32(integer_product(q, w)) * (s_x[:, None] * s_w))
    rank = np.argsort(-z, axis=-1, kind="stable")  # stable: ties to the lower id
    ids = np.sort(rank[:, :chosen], axis=-1)
    n = rte(exp2((z - z.max(axis=-1, keepdims=True)) * LOG2_E_32) * F32(2**24)).astype(np.int64)
    n_chosen = np.take_along_axis(n, ids, axis=-1)
    total = (n_chosen if renormalise else n).sum(axis=-1, keepdims=True)
    return ids, f32(n_chosen) / f32(total)
