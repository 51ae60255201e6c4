//! Products, spreading and transposing in plain Rust: the reference for the other kernels.

use super::{DOT_DIGITS, DOT_LANES, DigitBlock, Left, Panel, Right};
use crate::hash::{BLOCK_BYTES, Block};
use crate::quantise::{CHUNK, CHUNK_STRIDE};
use std::ops::Range;

pub(super) fn products(left: Left<'_>, right: Right<'_>, panel: &mut Panel) {
    for (first, rows, bytes) in left.tiles() {
        for plane in 0..left.planes {
            for row in 0..rows {
                let digits = &bytes[plane * left.plane_stride + row * CHUNK..];
                for block in 0..right.blocks {
                    let weights = &right.packed[block * right.groups * 64..][..right.groups * 64];
                    let mut sums = [0i32; 16];
                    for (group, weights) in weights.chunks_exact(64).enumerate() {
                        let at = group * 4 / CHUNK * CHUNK_STRIDE + group * 4 % CHUNK;
                        let four = &digits[at..at + 4];
                        for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(4)) {
                            for (x, w) in four.iter().zip(weights) {
                                *sum = sum.wrapping_add(i32::from(*x) * i32::from(*w));
                            }
                        }
                    }
                    panel.0[plane][first + row][block * 16..][..16].copy_from_slice(&sums);
                }
            }
        }
    }
}

/// Strides 1, 2, 4 … block / 2, one after the other: (a, b) becomes (a + b, a − b).
pub(super) fn spread(values: &mut [f32], block: usize) {
    let mut h = 1;
    while h < block {
        for pair in values.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        h *= 2;
    }
}

pub(super) fn row_products(left: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = 0;
        for (chunk, weights) in rows[i * stride..][..stride].chunks_exact(CHUNK).enumerate() {
            for (x, w) in left[chunk * CHUNK_STRIDE..][..CHUNK].iter().zip(weights) {
                *sum = sum.wrapping_add(i32::from(*x) * i32::from(*w));
            }
        }
    }
}

/// See [`super::transpose`].
pub(super) fn transpose(messages: &[u8], stride: usize, count: usize, part: Range<usize>, blocks: &mut [Block]) {
    for (block, at) in blocks.iter_mut().zip(part.clone().step_by(BLOCK_BYTES)) {
        for lane in 0..count {
            let message = &messages[lane * stride..][at..part.end];
            let mut bytes = [0; BLOCK_BYTES];
            match message.first_chunk::<BLOCK_BYTES>() {
                Some(whole) => bytes = *whole,
                None => bytes[..message.len()].copy_from_slice(message),
            }
            for (word, four) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
                word[lane] = u32::from_le_bytes(*four);
            }
        }
    }
}

/// See [`super::dots`].
pub(super) fn dots(digits: &[DigitBlock], x: &[[i16; DOT_LANES]], sums: &mut [i64; DOT_DIGITS]) {
    *sums = [0; DOT_DIGITS];
    for (digits, x) in digits.iter().zip(x) {
        for (sum, digits) in sums.iter_mut().zip(digits) {
            // At most 2²², 32 of them.
            *sum += i64::from(digits.iter().zip(x).map(|(digit, x)| i32::from(*digit) * i32::from(*x)).sum::<i32>());
        }
    }
}

/// Products of registers alone; gives their number of operations.
pub(super) fn saturate() -> f64 {
    let mut sums = [0i32; 8];
    for i in 0..20_000i32 {
        for sum in &mut sums {
            *sum = std::hint::black_box(*sum).wrapping_add(i.wrapping_mul(3));
        }
    }
    std::hint::black_box(sums);
    20_000.0 * 8.0 * 2.0
}
