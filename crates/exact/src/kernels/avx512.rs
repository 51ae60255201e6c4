//! Products with AVX-512 VNNI: `vpdpbusd` adds four byte products into each of sixteen columns. Unsigned inputs (128
//! added) times signed weights; the non-saturating form wraps, so any order is exact.
#![expect(unsafe_code, reason = "kernel: raw loads whose bounds the dispatcher checked")]

use super::{Left, PANEL_COLUMNS, PANEL_ROWS, Panel, Right};
use crate::quantise::{CHUNK, CHUNK_STRIDE};
use std::arch::x86_64::*;

/// Distance between the planes of a panel, in integers.
const PLANE: usize = PANEL_ROWS * PANEL_COLUMNS;

/// How far ahead weights are asked for, in bytes.
const PREFETCH: usize = 3072;

/// # Safety
/// The bounds that `Multiplier::products` checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn products(left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
    for (first, rows, bytes) in left.tiles() {
        let most = if left.planes == 1 { 12 } else { 6 };
        let parts = rows.div_ceil(most);
        for part in 0..parts {
            let (from, to) = (rows * part / parts, rows * (part + 1) / parts);
            // SAFETY: the rows lie within `bytes`, the panel holds them.
            unsafe {
                let digits = bytes.as_ptr().add(from * CHUNK);
                let out = panel.0[0][first + from..].as_mut_ptr().cast::<i32>();
                if left.planes == 1 {
                    match to - from {
                        1 => blocks::<1, 1, 4, 2>(digits, 0, right, out),
                        2 => blocks::<1, 2, 4, 2>(digits, 0, right, out),
                        3 => blocks::<1, 3, 4, 1>(digits, 0, right, out),
                        4 => blocks::<1, 4, 4, 1>(digits, 0, right, out),
                        5 => blocks::<1, 5, 4, 1>(digits, 0, right, out),
                        6 => blocks::<1, 6, 4, 1>(digits, 0, right, out),
                        7 => blocks::<1, 7, 2, 1>(digits, 0, right, out),
                        8 => blocks::<1, 8, 2, 1>(digits, 0, right, out),
                        9 => blocks::<1, 9, 2, 1>(digits, 0, right, out),
                        10 => blocks::<1, 10, 2, 1>(digits, 0, right, out),
                        11 => blocks::<1, 11, 2, 1>(digits, 0, right, out),
                        _ => blocks::<1, 12, 2, 1>(digits, 0, right, out),
                    }
                } else {
                    match to - from {
                        1 => blocks::<2, 1, 4, 2>(digits, left.plane_stride, right, out),
                        2 => blocks::<2, 2, 4, 1>(digits, left.plane_stride, right, out),
                        3 => blocks::<2, 3, 4, 1>(digits, left.plane_stride, right, out),
                        4 => blocks::<2, 4, 2, 1>(digits, left.plane_stride, right, out),
                        5 => blocks::<2, 5, 2, 1>(digits, left.plane_stride, right, out),
                        _ => blocks::<2, 6, 2, 1>(digits, left.plane_stride, right, out),
                    }
                }
            }
        }
    }
}

/// All column blocks for P planes of R rows, B blocks at a time, U independent sums per column to hide latency.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks<const P: usize, const R: usize, const B: usize, const U: usize>(
    digits: *const u8,
    plane_stride: usize,
    right: Right<'_>,
    out: *mut i32,
) {
    let stride = right.groups * 64;
    let mut block = 0;
    while block < right.blocks {
        // SAFETY: the block lies within `packed`, its columns within the panel.
        unsafe {
            let (weights, out) = (right.packed.as_ptr().add(block * stride), out.add(block * 16));
            if block + B <= right.blocks {
                tile::<P, R, B, U>(digits, plane_stride, weights, right.groups, right.more(), out);
                block += B;
            } else {
                tile::<P, R, 1, U>(digits, plane_stride, weights, right.groups, false, out);
                block += 1;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn tile<const P: usize, const R: usize, const B: usize, const U: usize>(
    mut digits: *const u8,
    plane_stride: usize,
    mut weights: *const i8,
    groups: usize,
    more: bool,
    out: *mut i32,
) {
    let stride = groups * 64;
    // Near a block's end the next lines are the beginning of the block that comes B blocks later.
    let jump = if more { PREFETCH + (B - 1) * stride } else { PREFETCH };
    let mut sums = [[[[_mm512_setzero_si512(); U]; B]; R]; P];
    let step =
        |digits: *const u8, weights: *const i8, ahead: usize, sums: &mut [[[[__m512i; U]; B]; R]; P], u: usize| {
            // SAFETY: at most `groups` groups are read, for which the dispatcher checked both buffers.
            unsafe {
                let mut w = [_mm512_setzero_si512(); B];
                for b in 0..B {
                    w[b] = _mm512_loadu_si512(weights.add(b * stride).cast());
                    if P * R <= 4 {
                        // Few rows: the weights come from memory, and the hardware alone does not ask early enough.
                        _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(b * stride + ahead).cast());
                    }
                }
                for p in 0..P {
                    for r in 0..R {
                        let four = digits.add(p * plane_stride + r * CHUNK).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(four);
                        for b in 0..B {
                            sums[p][r][b][u] = _mm512_dpbusd_epi32(sums[p][r][b][u], x, w[b]);
                        }
                    }
                }
            }
        };
    for chunk in 0..groups / 16 {
        let ahead = if chunk * 1024 + PREFETCH < stride { PREFETCH } else { jump };
        let mut group = 0;
        while group < 16 {
            for u in 0..U {
                step(digits.wrapping_add(4 * (group + u)), weights.wrapping_add(64 * (group + u)), ahead, &mut sums, u);
            }
            group += U;
        }
        digits = digits.wrapping_add(CHUNK_STRIDE);
        weights = weights.wrapping_add(CHUNK_STRIDE);
    }
    for group in 0..groups % 16 {
        step(digits.wrapping_add(4 * group), weights.wrapping_add(64 * group), jump, &mut sums, 0);
    }
    for p in 0..P {
        for r in 0..R {
            for b in 0..B {
                let mut sum = sums[p][r][b][0];
                for u in 1..U {
                    sum = _mm512_add_epi32(sum, sums[p][r][b][u]);
                }
                // SAFETY: the panel holds this plane, row and block.
                unsafe { _mm512_storeu_si512(out.add(p * PLANE + r * PANEL_COLUMNS + b * 16).cast(), sum) };
            }
        }
    }
}

/// # Safety
/// The bounds that `kernels::row_products` checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn row_products(left: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    let mut i = 0;
    while i < sums.len() {
        // SAFETY: rows i.. lie within `rows`.
        unsafe {
            let row = rows.as_ptr().add(i * stride);
            if i + 8 <= sums.len() {
                dots::<8>(left.as_ptr(), row, stride, &mut sums[i..]);
                i += 8;
            } else if i + 4 <= sums.len() {
                dots::<4>(left.as_ptr(), row, stride, &mut sums[i..]);
                i += 4;
            } else {
                dots::<1>(left.as_ptr(), row, stride, &mut sums[i..]);
                i += 1;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dots<const N: usize>(left: *const u8, rows: *const i8, stride: usize, sums: &mut [i32]) {
    let mut total = [_mm512_setzero_si512(); N];
    for chunk in 0..stride / CHUNK {
        // SAFETY: within the left side and each row, as checked by the dispatcher.
        unsafe {
            let x = _mm512_loadu_si512(left.add(chunk * CHUNK_STRIDE).cast());
            for n in 0..N {
                let w = _mm512_loadu_si512(rows.add(n * stride + chunk * CHUNK).cast());
                total[n] = _mm512_dpbusd_epi32(total[n], x, w);
            }
        }
    }
    for n in 0..N {
        sums[n] = _mm512_reduce_add_epi32(total[n]);
    }
}

/// Products of registers alone; gives their number of operations.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn saturate() -> f64 {
    // SAFETY: registers only.
    unsafe {
        std::arch::asm!(
            "2:",
            "vpdpbusd zmm0, zmm16, zmm17", "vpdpbusd zmm1, zmm16, zmm17", "vpdpbusd zmm2, zmm16, zmm17",
            "vpdpbusd zmm3, zmm16, zmm17", "vpdpbusd zmm4, zmm16, zmm17", "vpdpbusd zmm5, zmm16, zmm17",
            "vpdpbusd zmm6, zmm16, zmm17", "vpdpbusd zmm7, zmm16, zmm17", "vpdpbusd zmm8, zmm16, zmm17",
            "vpdpbusd zmm9, zmm16, zmm17", "vpdpbusd zmm10, zmm16, zmm17", "vpdpbusd zmm11, zmm16, zmm17",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) 20_000u64 => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm16") _, out("zmm17") _,
            options(nomem, nostack),
        );
    }
    20_000.0 * 12.0 * 64.0 * 2.0
}
