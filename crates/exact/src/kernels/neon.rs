//! Products on 64-bit Arm: with the dot products of four bytes that most processors since 2018 have (`dotprod`), or with
//! plain NEON, whose 16-bit products are widened before two of them are added (−128 · −128 twice is beyond 16 bits).
//! Both multiply signed bytes, so the 128 is taken from the inputs, and 128 times the weights' sums added in the end; sums
//! wrap, so any order is exact.
#![expect(unsafe_code, reason = "kernel: raw loads whose bounds the dispatcher checked")]

/// The kernels of one instruction set, over `$dot(sums, w, x)`: of four columns each, the sum of four inputs' products.
macro_rules! kernels {
    ($name:ident, $features:literal, $dot:item) => {
        pub(super) mod $name {
            use crate::kernels::{Left, Narrow, PANEL_COLUMNS, Panel, Right, fetch};
            use crate::quantise::{CHUNK, CHUNK_STRIDE};
            use std::arch::aarch64::*;

            $dot

            /// Rows that pass over a block of weights together.
            const ROWS: usize = 4;

            /// # Safety
            /// The bounds that `Multiplier::products` checks.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn products(left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
                fetch(right.soon().unwrap_or_default());
                for block in 0..right.blocks {
                    // SAFETY: the block lies within `packed`.
                    let weights = unsafe { right.packed.as_ptr().add(block * right.groups * 64) };
                    // SAFETY: as above.
                    let offsets = unsafe { offsets(weights, right.groups) };
                    for (first, rows, bytes) in left.tiles() {
                        for plane in 0..left.planes {
                            for row in (0..rows).step_by(ROWS) {
                                // SAFETY: the rows lie within `bytes`.
                                unsafe {
                                    let digits = bytes.as_ptr().add(plane * left.plane_stride + row * CHUNK);
                                    let out = panel.0[plane][first + row..].as_mut_ptr().cast::<i32>().add(block * 16);
                                    match rows - row {
                                        1 => tile::<1>(digits, weights, right.groups, offsets, out),
                                        2 => tile::<2>(digits, weights, right.groups, offsets, out),
                                        3 => tile::<3>(digits, weights, right.groups, offsets, out),
                                        _ => tile::<ROWS>(digits, weights, right.groups, offsets, out),
                                    }
                                }
                            }
                        }
                    }
                }
            }

            /// 128 times the sums of a block's sixteen columns.
            #[target_feature(enable = $features)]
            unsafe fn offsets(weights: *const i8, groups: usize) -> [int32x4_t; 4] {
                let mut sums = [vdupq_n_s32(0); 4];
                for group in 0..groups {
                    for quarter in 0..4 {
                        // SAFETY: group < groups, for which the dispatcher checked the buffer.
                        let w = unsafe { vld1q_s8(weights.add(group * 64 + quarter * 16)) };
                        sums[quarter] = dot(sums[quarter], w, vdupq_n_s8(1));
                    }
                }
                sums.map(|sum| vshlq_n_s32::<7>(sum))
            }

            /// Sixteen columns for R rows.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize>(
                digits: *const u8,
                weights: *const i8,
                groups: usize,
                offsets: [int32x4_t; 4],
                out: *mut i32,
            ) {
                let mut sums = [offsets; R];
                for group in 0..groups {
                    let at = group * 4 / CHUNK * CHUNK_STRIDE + group * 4 % CHUNK;
                    // SAFETY: group < groups, for which the dispatcher checked both buffers.
                    unsafe {
                        let weights = weights.add(group * 64);
                        let w: [int8x16_t; 4] =
                            [vld1q_s8(weights), vld1q_s8(weights.add(16)), vld1q_s8(weights.add(32)), vld1q_s8(weights.add(48))];
                        for r in 0..R {
                            let four = digits.add(at + r * CHUNK).cast::<u32>().read_unaligned() ^ 0x8080_8080;
                            let x = vreinterpretq_s8_u32(vdupq_n_u32(four));
                            for quarter in 0..4 {
                                sums[r][quarter] = dot(sums[r][quarter], w[quarter], x);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for quarter in 0..4 {
                        // SAFETY: row r of the panel has room for these sixteen columns.
                        unsafe { vst1q_s32(out.add(r * PANEL_COLUMNS + quarter * 4), sums[r][quarter]) };
                    }
                }
            }

            /// # Safety
            /// The bounds that `kernels::row_products` checks.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn row_products(left: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let (mut total, mut offset) = ([vdupq_n_s32(0); 4], [vdupq_n_s32(0); 4]);
                    for at in (0..stride).step_by(CHUNK) {
                        for part in 0..4 {
                            // SAFETY: within the row and the left side, as checked by the dispatcher.
                            unsafe {
                                let x = vld1q_u8(left.as_ptr().add(at / CHUNK * CHUNK_STRIDE + part * 16));
                                let w = vld1q_s8(rows.as_ptr().add(i * stride + at + part * 16));
                                let x = vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)));
                                total[part] = dot(total[part], w, x);
                                offset[part] = dot(offset[part], w, vdupq_n_s8(1));
                            }
                        }
                    }
                    let all = |[a, b, c, d]: [int32x4_t; 4]| {
                        vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)))
                    };
                    *sum = all(total).wrapping_add(all(offset).wrapping_mul(128));
                }
            }

            /// `y[n] = fma(product, gain, y[n])` for one row of 16-bit digits.
            ///
            /// # Safety
            /// What `kernels::add_narrow` checks.
            #[target_feature(enable = $features)]
            pub(crate) unsafe fn add_narrow(narrow: Narrow<'_>, scale: f32, gain: f32, y: &mut [f32]) {
                let groups = narrow.groups;
                for (block, (y, scales)) in y.chunks_mut(16).zip(narrow.scales.chunks(16)).enumerate() {
                    let (mut high, mut low) = ([0i32; 16], [0i32; 16]);
                    // SAFETY: the block lies within the weights, both rows' digits within a chunk. Without offsets, sums are
                    // those of the signed digits.
                    unsafe {
                        let weights = narrow.packed.as_ptr().add(block * groups * 64);
                        let none = [vdupq_n_s32(0); 4];
                        tile::<1>(narrow.high.as_ptr(), weights, groups, none, high.as_mut_ptr());
                        tile::<1>(narrow.low.as_ptr(), weights, groups, none, low.as_mut_ptr());
                    }
                    for (j, y) in y.iter_mut().enumerate() {
                        let c = high[j] as f32 * 256.0 + low[j] as f32;
                        *y = (c * (scale * scales[j])).mul_add(gain, *y);
                    }
                }
            }

            /// Products of registers alone; gives their number of operations.
            #[target_feature(enable = $features)]
            pub(crate) fn saturate() -> f64 {
                let (x, w) = (std::hint::black_box(vdupq_n_s8(3)), std::hint::black_box(vdupq_n_s8(5)));
                let mut sums = [vdupq_n_s32(0); 16];
                for _ in 0..20_000 {
                    for sum in &mut sums {
                        *sum = dot(*sum, w, x);
                    }
                }
                std::hint::black_box(sums);
                20_000.0 * 16.0 * 16.0 * 2.0
            }
        }
    };
}

kernels! {
    plain,
    "neon",
    #[target_feature(enable = "neon")]
    #[inline]
    fn dot(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(w, x));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

kernels! {
    dotprod,
    "neon,dotprod",
    #[target_feature(enable = "neon,dotprod")]
    #[inline]
    fn dot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: registers only. The intrinsic has not been stabilised.
        unsafe {
            std::arch::asm!(
                "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}
