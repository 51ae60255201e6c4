//! log2 of section 9 of the specification, transcribed.

pub(crate) fn log2(x: f32) -> f32 {
    let d =
        [0x3fb8aa3b, 0xbf38aa3a, 0x3ef639ef, 0xbeb8acca, 0x3e93680e, 0xbe74e8f3, 0x3e5d439c, 0xbe52cd75, 0x3dfc20ee]
            .map(f32::from_bits);
    let bits = i64::from(x.to_bits());
    let e = (bits - 0x3f35_04f3) >> 23;
    let m = f32::from_bits((bits - (e << 23)) as u32);
    let f = m - 1.0;
    let mut p = d[8];
    for i in (0..8).rev() {
        p = f.mul_add(p, d[i]);
    }
    f.mul_add(p, e as f32)
}
