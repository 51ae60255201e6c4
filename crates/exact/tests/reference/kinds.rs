//! Rows of floats of many kinds.

use super::random::Random;

/// Kinds of floats; those of the last may be infinite or NaN.
pub(crate) const KINDS: usize = 8;

/// Ordinary, of many magnitudes, subnormal, signed zero, huge, of any finite bits, of any of these, of any bits at all.
pub(crate) fn float(kind: usize, random: &mut Random) -> f32 {
    let bits = random.word() as u32;
    let sign = bits & 0x8000_0000;
    match kind {
        0 => random.float(),
        1 => random.float() * 1e-3f32.powi(random.below(14) as i32),
        2 => f32::from_bits(sign | (bits & 0x007f_ffff)),
        3 => f32::from_bits(sign),
        4 => random.float().clamp(-3.0, 3.0) * 1.1e38,
        5 if bits & 0x7f80_0000 == 0x7f80_0000 => f32::from_bits(bits ^ 0x4000_0000),
        6 => float(random.below(6), random),
        _ => f32::from_bits(bits),
    }
}

pub(crate) fn row(kind: usize, n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| float(kind, random)).collect()
}
