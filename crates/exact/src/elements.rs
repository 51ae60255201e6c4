//! Random combinations of the sums of linear maps: the side of a light check that the prover's numbers are on
//! (`docs/light-check.md`). Not part of the arithmetic: nothing here decides a bit of an answer.

use crate::Isa;
use crate::field::{P, product, reduced};
use crate::kernels::versions;
use crate::packed::{Floats, High, Packed, to_floats};

/// How many sums share an outer element. So many products of numbers of 20 bits and 32 cannot overflow when they are added up, nor half as
/// many of 24 and 32.
pub const STRETCH: usize = 512;

/// What sums are combined with: each sum's element is the product of an outer and an inner one. An outer one is shared by a stretch
/// of [`STRETCH`] sums; the inner ones are the same for every stretch, so few that they stay in the first-level cache.
pub struct Elements {
    outer: Vec<u64>,
    inner: Vec<u64>,
    /// The inner ones as signed numbers of 32 bits and 2³² times others, so that products with 32-bit numbers are products of 32-bit
    /// numbers.
    halves: Vec<i64>,
}

impl Elements {
    /// Of numbers below [`P`]: [`STRETCH`] inner ones, then the outer ones.
    pub fn new(numbers: &[u64]) -> Elements {
        assert!(numbers.iter().all(|number| *number < P));
        let (inner, outer) = numbers.split_at(STRETCH);
        let halves = |element: &u64| {
            // The low half counts as signed; the high half makes up for it.
            let low = *element as u32;
            let high = (element >> 32) as u32 + (low >> 31);
            (u64::from(high) << 32 | u64::from(low)) as i64
        };
        Elements { outer: outer.to_vec(), inner: inner.to_vec(), halves: inner.iter().map(halves).collect() }
    }

    /// How many outer ones a map of so many outputs takes; its lists of sums, one for each plane of digits, share them.
    pub fn stretches_of(outputs: usize) -> usize {
        outputs.div_ceil(STRETCH)
    }

    /// The element of one sum of a map whose outer ones begin at `first`.
    pub fn get(&self, first: usize, at: usize) -> u64 {
        product(self.outer[first + at / STRETCH], self.inner[at % STRETCH])
    }

    /// Σ of a list's sums times their elements, the outer ones from `first` on, modulo [`P`]. Each sum becomes its float in `y` on the
    /// way, so that they are read once for both.
    pub fn dot_floats(&self, isa: Isa, first: usize, x: Packed<'_>, floats: Floats<'_>, y: &mut [f32]) -> u64 {
        assert!(x.len() == y.len());
        let (mut total, mut unpacked) = (0, [0i32; STRETCH]);
        for part in x.parts(STRETCH) {
            let (at, x) = (part.at..part.at + part.low.len(), &mut unpacked[..part.low.len()]);
            part.unpack(isa, x);
            to_floats(isa, x, floats.part(at.clone()), &mut y[at.clone()]);
            let words = &self.halves[at.start % STRETCH..][..x.len()];
            let sum = match part.high {
                High::Four(..) => dots(isa, words, x, STRETCH),
                High::Eight(_) => dots(isa, words, x, STRETCH / 2),
                High::Sixteen(_) => {
                    // Both halves by themselves; hardly ever with sums that are true.
                    let above: Vec<i32> = x.iter().map(|x| x >> 16).collect();
                    x.iter_mut().for_each(|x| *x &= 0xffff);
                    dots(isa, words, x, STRETCH) + (dots(isa, words, &above, STRETCH) << 16)
                }
            };
            total = (total + product(self.outer[first + at.start / STRETCH], reduced(sum))) % P;
        }
        total
    }
}

/// Σ of elements times `x`, so many at a time: 512 if these have 20 bits, 256 if they have 24.
fn dots(isa: Isa, words: &[i64], x: &[i32], most: usize) -> i128 {
    let each = words.chunks(most).zip(x.chunks(most)).map(|(words, x)| {
        let mut sums = [0; 2];
        dots_of_24_bits(isa, words, x, &mut sums);
        joined_halves(sums)
    });
    each.sum()
}

/// What sums of both halves come to.
fn joined_halves(sums: [i64; 2]) -> i128 {
    i128::from(sums[0]) + (i128::from(sums[1]) << 32)
}

#[inline(always)]
fn dots_of_24_bits_body(words: &[i64], x: &[i32], sums: &mut [i64; 2]) {
    let x = &x[..words.len()];
    let (mut low, mut high) = (0i64, 0i64);
    for (word, x) in words.iter().zip(x) {
        low = low.wrapping_add(i64::from(*word as i32).wrapping_mul(i64::from(*x)));
        high = high.wrapping_add((word >> 32).wrapping_mul(i64::from(*x)));
    }
    *sums = [low, high];
}

versions! {
    /// Sums of both halves of `words` times `x`, which are few and small enough. Plain sums, so that the compiler runs as many side by
    /// side as there are lanes.
    fn dots_of_24_bits(words: &[i64], x: &[i32], sums: &mut [i64; 2]) = dots_of_24_bits_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(i: u64) -> u64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9abc_def0) % P
    }

    fn packed(x: &[i32], bits: u8) -> Vec<u8> {
        let mut bytes = vec![];
        Packed::write(x, bits, &mut bytes);
        bytes
    }

    #[test]
    fn combinations_are_those_of_wide_integers_at_the_extremes_too() {
        // Of every form all at its borders, all beyond those of the next smaller, and anything.
        let kinds: [[i32; 4]; 9] = [
            [(1 << 19) - 1; 4],
            [-1 << 19; 4],
            [1 << 19; 4],
            [(1 << 23) - 1; 4],
            [-1 << 23; 4],
            [-(1 << 23) - 1, 1 << 23, 0, -1],
            [i32::MIN; 4],
            [i32::MAX; 4],
            [i32::MIN, i32::MAX, -1, 77_777],
        ];
        // The last: every low half at its border.
        let numbers: [fn(u64) -> u64; 3] = [element, |_| P - 1, |_| 1 << 31];
        for number in numbers {
            let numbers: Vec<u64> = (0..STRETCH as u64 + 13).map(number).collect();
            let elements = Elements::new(&numbers);
            // Sum j of a map whose outer elements begin with number 3: docs/light-check.md, section 1.
            let element =
                |j: usize| u128::from(numbers[512 + 3 + j / 512]) * u128::from(numbers[j % 512]) % u128::from(P);
            assert!((0..5000).all(|j| u128::from(elements.get(3, j)) == element(j)));
            for (isa, n) in
                Isa::available().into_iter().flat_map(|isa| [1, 7, 511, 512, 513, 1025, 5000].map(|n| (isa, n)))
            {
                let each: Vec<i128> = (0..n).map(|at| element(at) as i128).collect();
                for kind in kinds {
                    let x: Vec<i32> = (0..n).map(|i| kind[i % 4]).collect();
                    let (bits, sum) = (Packed::bits_of(&x), each.iter().zip(&x).map(|(e, x)| e * i128::from(*x)).sum());
                    let bytes = packed(&x, bits);
                    let x = Packed::read(&bytes, n, bits).unwrap();
                    let found = elements.dot_floats(isa, 3, x, Floats::High, &mut vec![0.0; n]);
                    assert_eq!(found, reduced(sum), "{isa} {n} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn sums_become_the_floats_of_the_arithmetic() {
        let elements = Elements::new(&(0..STRETCH as u64 + 6).map(element).collect::<Vec<u64>>());
        for isa in Isa::available() {
            for (n, by) in [(1, 7), (15, 70_001), (1024, 77), (3001, 777), (700, 77_777)] {
                let x = |salt: i32| (0..n as i32).map(|i| (i * by) ^ salt).collect::<Vec<i32>>();
                let (high, low) = (x(5), x(-9));
                let scales: Vec<f32> = (0..n).map(|i| 0.001 + i as f32 * 1e-5).collect();
                let least = Packed::bits_of(&[&high[..], &low].concat());
                for bits in [4u8, 8, 16].into_iter().filter(|bits| *bits >= least) {
                    let (high_bytes, low_bytes) = (packed(&high, bits), packed(&low, bits));
                    let [high_sums, low_sums] =
                        [&high_bytes, &low_bytes].map(|bytes| Packed::read(bytes, n, bits).unwrap());
                    let mut y = vec![0.0; n];
                    elements.dot_floats(isa, 0, low_sums, Floats::Whole(0.3, &scales), &mut y);
                    assert!((0..n).all(|i| y[i] == low[i] as f32 * (0.3 * scales[i])));
                    elements.dot_floats(isa, 0, high_sums, Floats::High, &mut y);
                    elements.dot_floats(isa, 0, low_sums, Floats::Low(0.3, &scales), &mut y);
                    let both = |i: usize| (high[i] as f32 * 256.0 + low[i] as f32) * (0.3 * scales[i]);
                    assert!((0..n).all(|i| y[i] == both(i)));
                }
            }
        }
    }
}
