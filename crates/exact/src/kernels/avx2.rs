//! Products with AVX2: bytes widened to 16 bits, pairs multiplied and added by `vpmaddwd`, which cannot saturate here
//! (255 · 128 · 2 < 2³¹). Slower than the byte-wise `vpmaddubsw`, but with no case in which it is wrong.
#![expect(unsafe_code, reason = "kernel: raw loads whose bounds the dispatcher checked")]

use super::{Left, Panel, Right};
use crate::quantise::{CHUNK, CHUNK_STRIDE};
use std::arch::x86_64::*;

/// # Safety
/// The bounds that `Multiplier::products` checks.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn products(left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
    for (first, rows, bytes) in left.tiles() {
        for plane in 0..left.planes {
            for block in 0..right.blocks {
                // SAFETY: the block lies within `packed`.
                let weights = unsafe { right.packed.as_ptr().add(block * right.groups * 64) };
                let mut row = 0;
                while row < rows {
                    // SAFETY: the rows lie within `bytes`.
                    unsafe {
                        let digits = bytes.as_ptr().add(plane * left.plane_stride + row * CHUNK);
                        let out = panel.0[plane][first + row..].as_mut_ptr().cast::<i32>().add(block * 16);
                        if row + 2 <= rows {
                            block_rows::<2>(digits, weights, right.groups, out);
                            row += 2;
                        } else {
                            block_rows::<1>(digits, weights, right.groups, out);
                            row += 1;
                        }
                    }
                }
            }
        }
    }
}

/// Sixteen columns for R rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn block_rows<const R: usize>(digits: *const u8, weights: *const i8, groups: usize, out: *mut i32) {
    let mut sums = [[_mm256_setzero_si256(); 4]; R];
    for group in 0..groups {
        // SAFETY: group < groups, for which the dispatcher checked both buffers.
        unsafe {
            let at = group * 4 / CHUNK * CHUNK_STRIDE + group * 4 % CHUNK;
            let mut x = [_mm256_setzero_si256(); R];
            for r in 0..R {
                let four = digits.add(at + r * CHUNK).cast::<i32>().read_unaligned();
                x[r] = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
            }
            for quarter in 0..4 {
                let w = _mm_loadu_si128(weights.add(group * 64 + quarter * 16).cast());
                let w = _mm256_cvtepi8_epi16(w);
                for r in 0..R {
                    sums[r][quarter] = _mm256_add_epi32(sums[r][quarter], _mm256_madd_epi16(x[r], w));
                }
            }
        }
    }
    for r in 0..R {
        for half in 0..2 {
            let pairs = _mm256_hadd_epi32(sums[r][2 * half], sums[r][2 * half + 1]);
            let columns = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
            // SAFETY: row r of the panel has room for these eight columns.
            unsafe { _mm256_storeu_si256(out.add(r * super::PANEL_COLUMNS + half * 8).cast(), columns) };
        }
    }
}

/// # Safety
/// The bounds that `kernels::row_products` checks.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row_products(left: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    for (i, sum) in sums.iter_mut().enumerate() {
        let mut total = _mm256_setzero_si256();
        for chunk in 0..stride / CHUNK {
            for part in 0..4 {
                // SAFETY: within the row and the left side, as checked by the dispatcher.
                unsafe {
                    let x = left.as_ptr().add(chunk * CHUNK_STRIDE + part * 16);
                    let w = rows.as_ptr().add(i * stride + chunk * CHUNK + part * 16);
                    let x = _mm256_cvtepu8_epi16(_mm_loadu_si128(x.cast()));
                    let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.cast()));
                    total = _mm256_add_epi32(total, _mm256_madd_epi16(x, w));
                }
            }
        }
        let mut lanes = [0i32; 8];
        // SAFETY: eight lanes into eight integers.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total) };
        *sum = lanes.iter().fold(0, |a, b| a.wrapping_add(*b));
    }
}

/// Products of registers alone; gives their number of operations.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn saturate() -> f64 {
    let (x, w) = (std::hint::black_box(_mm256_set1_epi16(3)), std::hint::black_box(_mm256_set1_epi16(5)));
    let mut sums = [_mm256_setzero_si256(); 12];
    for _ in 0..20_000 {
        for sum in &mut sums {
            *sum = std::hint::black_box(_mm256_add_epi32(*sum, _mm256_madd_epi16(x, w)));
        }
    }
    std::hint::black_box(sums);
    20_000.0 * 12.0 * 16.0 * 2.0
}
