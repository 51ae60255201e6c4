//! The sum of squares of sections 1 and 4 of the specification, transcribed: 128 lanes, folded by halves.

pub(crate) fn squares(x: &[f32]) -> f32 {
    let mut lane = [0.0f32; 128];
    for (i, x) in x.iter().enumerate() {
        lane[i % 128] = x.mul_add(*x, lane[i % 128]);
    }
    for h in [64, 32, 16, 8, 4, 2, 1] {
        for i in 0..h {
            lane[i] += lane[i + h];
        }
    }
    lane[0]
}
