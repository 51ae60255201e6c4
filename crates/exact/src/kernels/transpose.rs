//! Messages become lanes: blocks of sixteen 32-bit words of up to sixteen messages, transposed with AVX-512 shuffles. Left
//! to the compiler, this takes as long as hashing them.
#![expect(unsafe_code, reason = "kernel: raw loads and stores whose bounds are checked on entry")]

use crate::hash::{BLOCK_BYTES, Block, LANES};
use std::arch::x86_64::*;
use std::ops::Range;

/// See [`super::transpose`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn avx512(messages: &[u8], stride: usize, count: usize, part: Range<usize>, blocks: &mut [Block]) {
    assert!(count <= LANES && (count == 0 || (count - 1) * stride + part.end <= messages.len()));
    for (block, at) in blocks.iter_mut().zip(part.clone().step_by(BLOCK_BYTES)) {
        let bytes = (part.end - at).min(BLOCK_BYTES);
        let mask = u64::MAX >> (BLOCK_BYTES - bytes);
        let mut r = [_mm512_setzero_si512(); LANES];
        for (lane, r) in r.iter_mut().enumerate().take(count) {
            // SAFETY: `bytes`, which are at least one, from `at` on lie in this message; those of the mask alone are read.
            *r = unsafe { _mm512_maskz_loadu_epi8(mask, messages.as_ptr().add(lane * stride + at).cast()) };
        }
        for (words, column) in block.iter_mut().zip(transposed(r)) {
            // SAFETY: sixteen words into sixteen words.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), column) }
        }
    }
}

/// Word j of row i becomes word i of row j.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(mut r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        let four = 4 * i;
        r[four] = _mm512_unpacklo_epi64(t[four], t[four + 2]);
        r[four + 1] = _mm512_unpackhi_epi64(t[four], t[four + 2]);
        r[four + 2] = _mm512_unpacklo_epi64(t[four + 1], t[four + 3]);
        r[four + 3] = _mm512_unpackhi_epi64(t[four + 1], t[four + 3]);
    }
    // Now quarter j of r[4 i + k] holds word 4 j + k of the rows from 4 i on.
    for k in 0..4 {
        let a = _mm512_shuffle_i32x4::<0x88>(r[k], r[4 + k]);
        let b = _mm512_shuffle_i32x4::<0xdd>(r[k], r[4 + k]);
        let c = _mm512_shuffle_i32x4::<0x88>(r[8 + k], r[12 + k]);
        let d = _mm512_shuffle_i32x4::<0xdd>(r[8 + k], r[12 + k]);
        t[k] = _mm512_shuffle_i32x4::<0x88>(a, c);
        t[4 + k] = _mm512_shuffle_i32x4::<0x88>(b, d);
        t[8 + k] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        t[12 + k] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    t
}
