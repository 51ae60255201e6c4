//! Rotary positions and the Walsh–Hadamard transform of heads (specification, sections 6 and 7).

use crate::kernels::versions;

#[inline(always)]
fn rotate_body(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, rest) = head.split_at_mut(half);
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

/// The largest power of two that divides the head dimension: the block of the Walsh–Hadamard transform.
pub fn hadamard_block(head_dim: usize) -> usize {
    1 << head_dim.trailing_zeros()
}

#[inline(always)]
fn stride<const H: usize>(head: &mut [f32]) {
    for pair in head.chunks_exact_mut(2 * H) {
        let (a, b) = pair.split_at_mut(H);
        for i in 0..H {
            (a[i], b[i]) = (a[i] + b[i], a[i] - b[i]);
        }
    }
}

#[inline(always)]
fn hadamard_body(head: &mut [f32]) {
    let block = hadamard_block(head.len());
    // Strides 1 to 8 stay within sixteen lanes: as a whole, with signs, so that they compile to shuffles.
    let mut h = 1;
    if block >= 16 {
        for lanes in head.chunks_exact_mut(16) {
            let mut v = [0.0f32; 16];
            v.copy_from_slice(lanes);
            v = butterfly::<1>(v);
            v = butterfly::<2>(v);
            v = butterfly::<4>(v);
            v = butterfly::<8>(v);
            lanes.copy_from_slice(&v);
        }
        h = 16;
    }
    while h < block {
        match h {
            1 => stride::<1>(head),
            2 => stride::<2>(head),
            4 => stride::<4>(head),
            8 => stride::<8>(head),
            16 => stride::<16>(head),
            32 => stride::<32>(head),
            64 => stride::<64>(head),
            _ => {
                for pair in head.chunks_exact_mut(2 * h) {
                    let (a, b) = pair.split_at_mut(h);
                    for i in 0..h {
                        (a[i], b[i]) = (a[i] + b[i], a[i] - b[i]);
                    }
                }
            }
        }
        h *= 2;
    }
}

#[inline(always)]
fn butterfly<const H: usize>(v: [f32; 16]) -> [f32; 16] {
    let mut out = [0.0f32; 16];
    for i in 0..16 {
        let own = if i & H == 0 { v[i] } else { -v[i] };
        out[i] = v[i ^ H] + own;
    }
    out
}

versions! {
    /// Unnormalised Walsh–Hadamard transform of a head, in blocks of [`hadamard_block`].
    pub fn hadamard(head: &mut [f32]) = hadamard_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn hadamard_twice_is_the_block_size_times_the_identity() {
        for n in [1usize, 2, 6, 8, 16, 48, 64, 80, 128, 256] {
            let v: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 64) as f32 - 31.0).collect();
            for isa in Isa::available() {
                let mut w = v.clone();
                hadamard(isa, &mut w);
                hadamard(isa, &mut w);
                let block = hadamard_block(n) as f32;
                assert!(v.iter().zip(&w).all(|(v, w)| v * block == *w), "{n} {isa}");
            }
        }
    }
}
