//! Section 1 of the specification, transcribed: levels and scale of a row, `largest` being 127 or 32639.

pub(crate) fn quantise(x: &[f32], largest: f32) -> Option<(Vec<i32>, f32)> {
    let a = x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    if a >= 0x7f80_0000 {
        return None;
    }
    let a = f32::from_bits(a);
    if f64::from(a) < 2f64.powi(-100) {
        return Some((vec![0; x.len()], 0.0));
    }
    let r = largest / a;
    let q = x.iter().map(|x| (x * r).max(-largest).min(largest).round_ties_even() as i32).collect();
    Some((q, a / largest))
}
