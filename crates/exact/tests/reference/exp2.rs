//! exp2 of section 9 of the specification, transcribed.

pub(crate) fn exp2(x: f32) -> f32 {
    if x < -126.0 {
        return 0.0;
    }
    let n = x.round_ties_even();
    let f = x - n;
    let [c1, c2, c3, c4, c5, c6] =
        [0x3f317218, 0x3e75fdf0, 0x3d6357b6, 0x3c1d952a, 0x3aaf8448, 0x392209c5].map(f32::from_bits);
    let mut p = f.mul_add(c6, c5);
    for c in [c4, c3, c2, c1, 1.0] {
        p = f.mul_add(p, c);
    }
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
