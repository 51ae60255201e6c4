//! The Walsh–Hadamard transform that spreads outliers over their block (specification, section 1).

use crate::kernels::versions;

/// Blocks of whole rows are at most this long.
const BLOCK_MAX: usize = 1024;

/// The block a row of `n` values is spread over: the largest power of two that divides n, at most 1,024.
pub fn spread_block(n: usize) -> usize {
    head_block(n).min(BLOCK_MAX)
}

/// The block a head of `n` dimensions is spread over: the largest power of two that divides n.
pub fn head_block(n: usize) -> usize {
    1 << n.trailing_zeros()
}

#[inline(always)]
fn stride(values: &mut [f32], h: usize) {
    for pair in values.chunks_exact_mut(2 * h) {
        let (a, b) = pair.split_at_mut(h);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

/// Strides h and 2h in one pass over memory: the same additions in the same order for every value.
#[inline(always)]
fn two_strides(values: &mut [f32], h: usize) {
    for four in values.chunks_exact_mut(4 * h) {
        let (first, second) = four.split_at_mut(2 * h);
        let ((a, b), (c, d)) = (first.split_at_mut(h), second.split_at_mut(h));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (ab, a_b, cd, c_d) = (*a + *b, *a - *b, *c + *d, *c - *d);
            (*a, *b, *c, *d) = (ab + cd, a_b + c_d, ab - cd, a_b - c_d);
        }
    }
}

/// Stride H within sixteen lanes, as one shuffle with signs: a + b and, as b + (−a)'s mirror, a − b.
#[inline(always)]
fn butterfly<const H: usize>(v: [f32; 16]) -> [f32; 16] {
    let mut out = [0.0f32; 16];
    for i in 0..16 {
        let own = if i & H == 0 { v[i] } else { -v[i] };
        out[i] = v[i ^ H] + own;
    }
    out
}

#[inline(always)]
fn spread_body(values: &mut [f32], block: usize) {
    let mut h = 1;
    if block >= 16 {
        for lanes in values.chunks_exact_mut(16) {
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
        if 2 * h < block {
            two_strides(values, h);
            h *= 4;
        } else {
            stride(values, h);
            h *= 2;
        }
    }
}

versions! {
    /// Unnormalised Walsh–Hadamard transform over blocks of `block`, a power of two that divides the length.
    fn transform(values: &mut [f32], block: usize) = spread_body;
}

/// Spreads a row in place over blocks of [`spread_block`].
pub fn spread(isa: crate::Isa, row: &mut [f32]) {
    transform(isa, row, spread_block(row.len()));
}

/// Spreads a head in place over blocks of [`head_block`].
pub fn spread_head(isa: crate::Isa, head: &mut [f32]) {
    transform(isa, head, head_block(head.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn spreading_twice_is_the_block_size_times_the_identity() {
        for n in [1usize, 2, 6, 8, 16, 48, 64, 80, 128, 256, 704, 2048] {
            let v: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 64) as f32 - 31.0).collect();
            for isa in Isa::available() {
                let mut w = v.clone();
                spread(isa, &mut w);
                spread(isa, &mut w);
                let block = spread_block(n) as f32;
                assert!(v.iter().zip(&w).all(|(v, w)| v * block == *w), "{n} {isa}");
            }
        }
    }
}
