//! The Walsh–Hadamard transform in registers: strides within a register as one shuffle and one fused multiply-add with
//! ±1, which rounds once like the sum it is; strides of whole registers eight registers at a time, so that a block of
//! 1,024 passes memory twice.
#![expect(unsafe_code, reason = "kernel: raw loads and stores whose bounds are checked on entry")]

use std::arch::x86_64::*;

macro_rules! spread_kernel {
    ($name:ident, $features:literal, $vector:ty, $lanes:literal, $load:ident, $store:ident, $add:ident, $sub:ident,
        $within:ident) => {
        /// Transforms blocks of `block` values, a power of two of at least one register that divides the length.
        #[target_feature(enable = $features)]
        pub(super) fn $name(values: &mut [f32], block: usize) {
            assert!(block.is_power_of_two() && block >= $lanes && values.len().is_multiple_of(block));
            /// N registers, `h` apart, by all strides from h to h·N / 2; the first pass also takes the strides within.
            ///
            /// # Safety
            /// `(N − 1)·h` values and a register more at `at`.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn pass<const N: usize>(at: *mut f32, h: usize, first: bool) {
                // SAFETY: the caller's.
                let mut r: [$vector; N] = std::array::from_fn(|k| unsafe { $load(at.add(k * h)) });
                if first {
                    for r in &mut r {
                        *r = $within(*r);
                    }
                }
                let mut s = 1;
                while s < N {
                    for k in 0..N {
                        if k & s == 0 {
                            (r[k], r[k + s]) = ($add(r[k], r[k + s]), $sub(r[k], r[k + s]));
                        }
                    }
                    s *= 2;
                }
                for (k, r) in r.into_iter().enumerate() {
                    // SAFETY: the caller's.
                    unsafe { $store(at.add(k * h), r) }
                }
            }
            let mut h = $lanes;
            let mut first = true;
            loop {
                let n = (block / h).min(8);
                for part in values.chunks_exact_mut(n * h) {
                    for at in (0..h).step_by($lanes) {
                        let at = part[at..].as_mut_ptr();
                        // SAFETY: `at` is a register within the first h values of a part of n·h.
                        unsafe {
                            match n {
                                1 => pass::<1>(at, h, first),
                                2 => pass::<2>(at, h, first),
                                4 => pass::<4>(at, h, first),
                                _ => pass::<8>(at, h, first),
                            }
                        }
                    }
                }
                (h, first) = (h * n, false);
                if h >= block {
                    return;
                }
            }
        }
    };
}

/// Strides 1, 2, 4 and 8 among sixteen values: `other + own` in a pair's first, `other − own` in its second.
#[target_feature(enable = "avx512f")]
#[inline]
fn within_512(mut v: __m512) -> __m512 {
    let sign = |mask: u16| _mm512_mask_blend_ps(mask, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
    v = _mm512_fmadd_ps(v, sign(0xaaaa), _mm512_permute_ps::<0b10_11_00_01>(v));
    v = _mm512_fmadd_ps(v, sign(0xcccc), _mm512_permute_ps::<0b01_00_11_10>(v));
    v = _mm512_fmadd_ps(v, sign(0xf0f0), _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v));
    _mm512_fmadd_ps(v, sign(0xff00), _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v))
}

/// Strides 1, 2 and 4 among eight values.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn within_256(mut v: __m256) -> __m256 {
    let (p, m) = (1.0, -1.0);
    v = _mm256_fmadd_ps(v, _mm256_setr_ps(p, m, p, m, p, m, p, m), _mm256_permute_ps::<0b10_11_00_01>(v));
    v = _mm256_fmadd_ps(v, _mm256_setr_ps(p, p, m, m, p, p, m, m), _mm256_permute_ps::<0b01_00_11_10>(v));
    _mm256_fmadd_ps(v, _mm256_setr_ps(p, p, p, p, m, m, m, m), _mm256_permute2f128_ps::<1>(v, v))
}

spread_kernel!(
    avx512,
    "avx512f",
    __m512,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    within_512
);
spread_kernel!(
    avx2,
    "avx2,fma",
    __m256,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    within_256
);
