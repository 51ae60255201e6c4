"""binary32 arithmetic: "Notation" and section 9 of docs/arithmetic.md.

Everything takes and returns numpy arrays of float32; numpy rounds + - * / and sqrt to nearest even, one at a time,
and keeps subnormals. What numpy does not have is `fma`.
"""

import numpy as np

np.seterr(all="ignore")  # overflow makes infinities, which section 1 catches

F32 = np.float32
LOG2_E = float.fromhex("0x1.71547652b82fep+0")  # binary64


class NotFinite(ArithmeticError):
    """A value that must be finite is not: the sequence fails."""


def bits(x):
    return np.asarray(x, F32).view(np.uint32)


def from_bits(u):
    return np.asarray(u, np.uint32).view(F32)


def f32(x):
    """Integers, or binary64 values, rounded once to binary32."""
    return np.asarray(x).astype(F32)


def rte(x):
    """Rounded to the nearest integer, ties to even; still a float."""
    return np.rint(x)


def finite(x):
    if (bits(x) & 0x7F800000 == 0x7F800000).any():
        raise NotFinite
    return x


def fma(a, b, c):
    """a·b + c rounded once.

    The product is exact in binary64, and rounding the sum there and then to binary32 does harm only if the first falls
    halfway between two neighbours of the second. Such sums are done again, and those below 2⁻¹²⁶, where neighbours
    are further apart.
    """
    product = np.asarray(np.multiply(a, b, dtype=np.float64))
    total = np.asarray(np.add(product, c, dtype=np.float64))
    result = np.asarray(total.astype(F32))
    doubtful = (total.view(np.int64) & 0x1FFFFFFF == 0x10000000) | (np.abs(total) < 2.0**-126)
    if doubtful.any():
        product, c = (np.broadcast_to(x, total.shape)[doubtful].astype(np.float64) for x in (product, c))
        result[doubtful] = to_odd(product, c).astype(F32)
    return result


def to_odd(a, b):
    """a + b in binary64, rounded to odd: the two-sum's error tells whether and to which side the ordinary sum was
    rounded. 53 bits are enough beyond 24 for the conversion to binary32 to round as if from the exact value (Boldo
    and Melquiond 2008)."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    pattern = total.view(np.int64)
    even = (error != 0) & np.isfinite(error) & (pattern & 1 == 0)
    away = np.where((error > 0) == (total > 0), 1, -1)
    return (pattern + np.where(even, away, 0)).view(np.float64)


C = from_bits([0, 0x3F317218, 0x3E75FDF0, 0x3D6357B6, 0x3C1D952A, 0x3AAF8448, 0x392209C5])
D = from_bits([0x3FB8AA3B, 0xBF38AA3A, 0x3EF639EF, 0xBEB8ACCA, 0x3E93680E,
               0xBE74E8F3, 0x3E5D439C, 0xBE52CD75, 0x3DFC20EE])
LOG2_E_32 = from_bits(0x3FB8AA3B)


def exp2(x):
    """2ˣ for x ≤ 0."""
    n = rte(x)
    f = x - n
    p = fma(f, C[6], C[5])
    for i in 4, 3, 2, 1:
        p = fma(f, p, C[i])
    p = fma(f, p, F32(1))
    power = from_bits((np.maximum(n, F32(-126)).astype(np.int32) + 127) << 23)  # 2ⁿ
    return np.where(x < F32(-126), F32(0), p * power)


def log2(x):
    """log₂ x for normal x > 0."""
    pattern = bits(x).view(np.int32)
    e = (pattern - np.int32(0x3F3504F3)) >> 23
    f = (pattern - (e << 23)).view(F32) - F32(1)
    p = D[8]
    for i in 7, 6, 5, 4, 3, 2, 1, 0:
        p = fma(f, p, D[i])
    return fma(f, p, f32(e))


def silu(x):
    z = exp2(-(np.abs(x) * LOG2_E_32))
    return np.where(x >= 0, x, x * z) / (F32(1) + z)
