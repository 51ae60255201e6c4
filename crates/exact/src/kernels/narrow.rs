//! An adapter's second half for single rows: so few inputs that what surrounds a product costs more than the product,
//! hence sums, scales and the addition to what is there in one go.
#![expect(unsafe_code, reason = "kernel: raw loads and stores whose bounds are checked on entry")]

use super::Narrow;
use std::arch::x86_64::*;

/// `y[n] = fma(product, gain, y[n])` for one row of 16-bit digits.
///
/// # Safety
/// What `kernels::add_narrow` checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn add_512(narrow: Narrow<'_>, scale: f32, gain: f32, y: &mut [f32]) {
    let groups = narrow.groups;
    let (scale, gain) = (_mm512_set1_ps(scale), _mm512_set1_ps(gain));
    for (block, y) in y.chunks_mut(16).enumerate() {
        let mask = (0xffff_u32 >> (16 - y.len())) as u16;
        // SAFETY: the block lies within weights and scales; the mask keeps to `y`.
        unsafe {
            let weights = narrow.packed.as_ptr().add(block * groups * 64);
            let (mut high, mut low, mut offsets) =
                (_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512());
            for group in 0..groups {
                let w = _mm512_loadu_si512(weights.add(group * 64).cast());
                let digits = |row: &[u8]| _mm512_set1_epi32(row.as_ptr().add(group * 4).cast::<i32>().read_unaligned());
                high = _mm512_dpbusd_epi32(high, digits(narrow.high), w);
                low = _mm512_dpbusd_epi32(low, digits(narrow.low), w);
                // 128 times the weights' sums: to compute them here is cheaper than to read them.
                offsets = _mm512_dpbusd_epi32(offsets, _mm512_set1_epi8(-128), w);
            }
            let scales = _mm512_loadu_ps(narrow.scales.as_ptr().add(block * 16));
            let float = |sums| _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, offsets));
            let c = _mm512_add_ps(_mm512_mul_ps(float(high), _mm512_set1_ps(256.0)), float(low));
            let product = _mm512_mul_ps(c, _mm512_mul_ps(scale, scales));
            let sum = _mm512_fmadd_ps(product, gain, _mm512_maskz_loadu_ps(mask, y.as_ptr()));
            _mm512_mask_storeu_ps(y.as_mut_ptr(), mask, sum);
        }
    }
}
