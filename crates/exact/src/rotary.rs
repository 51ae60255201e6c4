//! Rotary positions (specification, section 6).

use crate::kernels::versions;

#[inline(always)]
fn rotate_body(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, rest) = head.split_at_mut(half);
    // One length for all: a loop that may leave early at a bound does its last sixteen one by one.
    let (rest, sin) = (&mut rest[..half], &sin[..half]);
    for i in 0..half {
        let (x, y) = (first[i], rest[i]);
        first[i] = x.mul_add(cos[i], -(y * sin[i]));
        rest[i] = y.mul_add(cos[i], x * sin[i]);
    }
}

versions! {
    /// Rotates the first `2 · cos.len()` dimensions of a head, dimension i with i + cos.len().
    pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_body;
}
