//! exp2, log2 and SiLU (specification, section 9): one polynomial each, written with fused multiply-adds.
//! Everything here is inlined into kernels compiled for each instruction set, so it must stay free of branches that
//! a vector unit could not take lane by lane.

/// log2(e), rounded to binary32.
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);

/// 1.5 · 2²³: adding it rounds a small float to an integer (ties to even) that then stands in its low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

const C: [u32; 6] = [0x3f31_7218, 0x3e75_fdf0, 0x3d63_57b6, 0x3c1d_952a, 0x3aaf_8448, 0x3922_09c5];
const D: [u32; 9] = [
    0x3fb8_aa3b,
    0xbf38_aa3a,
    0x3ef6_39ef,
    0xbeb8_acca,
    0x3e93_680e,
    0xbe74_e8f3,
    0x3e5d_439c,
    0xbe52_cd75,
    0x3dfc_20ee,
];

/// `x` rounded to the nearest integer, ties to even, for |x| ≤ 2²²; for any other x some number.
#[inline(always)]
pub(crate) fn round_small(x: f32) -> i32 {
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// 2 to the power x, for x ≤ 0; exactly 0 below −126. NaN stays NaN.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let n = (x + ROUND) - ROUND;
    let f = x - n;
    let mut p = f.mul_add(f32::from_bits(C[5]), f32::from_bits(C[4]));
    p = f.mul_add(p, f32::from_bits(C[3]));
    p = f.mul_add(p, f32::from_bits(C[2]));
    p = f.mul_add(p, f32::from_bits(C[1]));
    p = f.mul_add(p, f32::from_bits(C[0]));
    p = f.mul_add(p, 1.0);
    let exponent = round_small(x).wrapping_add(127) as u32;
    let power = f32::from_bits(exponent << 23);
    if x < -126.0 { 0.0 } else { p * power }
}

/// Logarithm to base 2 of a normal, positive x.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    let e = bits.wrapping_sub(0x3f35_04f3) >> 23;
    let f = f32::from_bits((bits - (e << 23)) as u32) - 1.0;
    let mut p = f32::from_bits(D[8]);
    for i in (0..8).rev() {
        p = f.mul_add(p, f32::from_bits(D[i]));
    }
    f.mul_add(p, e as f32)
}

/// x · sigmoid(x), from the exponential of −|x| alone, so that nothing overflows.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    let z = exp2(-(x.abs() * LOG2_E));
    let numerator = if x >= 0.0 { x } else { x * z };
    numerator / (1.0 + z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_and_log2_are_accurate_to_two_parts_in_ten_million() {
        for i in 0..200_000 {
            let x = -(i as f32) * 0.000_63;
            let want = f64::from(x).exp2();
            assert!((f64::from(exp2(x)) - want).abs() <= want * 2e-7 + 1e-45, "exp2({x})");
            let y = f32::from_bits(0x0080_0000 + i * 10_000);
            let want = f64::from(y).log2();
            assert!((f64::from(log2(y)) - want).abs() <= want.abs() * 2e-7, "log2({y})");
        }
    }

    #[test]
    fn exp2_is_zero_below_minus_126_and_one_at_zero() {
        assert_eq!(exp2(0.0), 1.0);
        assert_eq!(exp2(-0.0), 1.0);
        assert_eq!(exp2(-126.0), f32::MIN_POSITIVE);
        assert_eq!(exp2(-126.000_01), 0.0);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert!(exp2(f32::NAN).is_nan());
    }
}
