//! Products of numbers of 16 bits with numbers of 8, summed in pairs by one instruction. Left to the compiler, each is widened to 32
//! bits first.
#![expect(unsafe_code, reason = "kernel: raw loads whose bounds the types have")]

use super::{DOT_DIGITS, DOT_LANES, DigitBlock};
use std::arch::x86_64::*;

macro_rules! dots_kernel {
    ($name:ident, $features:literal, $pairs:literal, $zero:ident, $load:ident, $madd:ident, $add:ident, $store:ident) => {
        /// See [`super::dots`].
        #[target_feature(enable = $features)]
        pub(super) fn $name(digits: &[DigitBlock], x: &[[i16; DOT_LANES]], sums: &mut [i64; DOT_DIGITS]) {
            let mut lanes = [$zero(); DOT_DIGITS];
            for (digits, x) in digits.iter().zip(x) {
                for at in (0..DOT_LANES).step_by(2 * $pairs) {
                    // SAFETY: a register of `x` and of each digit's numbers, from `at` on.
                    unsafe {
                        let x = $load(x.as_ptr().add(at).cast());
                        for (lanes, digits) in lanes.iter_mut().zip(digits) {
                            *lanes = $add(*lanes, $madd(x, $load(digits.as_ptr().add(at).cast())));
                        }
                    }
                }
            }
            for (sum, lanes) in sums.iter_mut().zip(lanes) {
                let mut each = [0i32; $pairs];
                // SAFETY: the register's lanes into as many numbers.
                unsafe { $store(each.as_mut_ptr().cast(), lanes) };
                *sum = each.into_iter().map(i64::from).sum();
            }
        }
    };
}

dots_kernel!(
    avx512,
    "avx512f,avx512bw",
    16,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_madd_epi16,
    _mm512_add_epi32,
    _mm512_storeu_si512
);
dots_kernel!(
    avx2,
    "avx2",
    8,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_madd_epi16,
    _mm256_add_epi32,
    _mm256_storeu_si256
);
