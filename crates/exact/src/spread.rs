//! The Walsh–Hadamard transform that spreads outliers over their block (specification, section 1).

use crate::kernels;

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

/// Unnormalised Walsh–Hadamard transform over blocks of `block`, a power of two that divides the length.
pub fn transform(isa: crate::Isa, values: &mut [f32], block: usize) {
    assert!(block.is_power_of_two() && values.len().is_multiple_of(block));
    kernels::spread(isa, values, block);
}

/// Spreads a row in place over blocks of [`spread_block`].
pub fn spread(isa: crate::Isa, row: &mut [f32]) {
    kernels::spread(isa, row, spread_block(row.len()));
}

/// Spreads a head in place over blocks of [`head_block`].
pub fn spread_head(isa: crate::Isa, head: &mut [f32]) {
    kernels::spread(isa, head, head_block(head.len()));
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
