//! Sums in the field of 2⁶¹ − 1 elements, exact and quick: what lets a verifier check a product with weights it no longer
//! holds (`docs/light-check.md`). Not part of the arithmetic: nothing here decides a bit of an answer.

use crate::Isa;
use crate::kernels::versions;
use crate::packed::{Floats, High, Packed, to_floats};
use crate::quantise::digits;

/// The field's size, a Mersenne prime.
pub const P: u64 = (1 << 61) - 1;

/// Bits of a limb of an element that rows of weights are multiplied with.
const BITS: u32 = 21;
/// Numbers that are taken together: sums of so many products of 20 bits and 32 cannot overflow, nor those of half as many of 24
/// and 32.
const PART: usize = 512;

/// Elements of the field, each as a signed number of 32 bits and 2³² times another, so that products with 32-bit numbers are
/// products of 32-bit numbers.
#[derive(Clone, Default, Debug)]
pub struct Vector {
    words: Vec<i64>,
}

/// One element in three limbs.
fn limbs(value: u64) -> [i32; 3] {
    let mask = (1 << BITS) - 1;
    [(value & mask) as i32, (value >> BITS & mask) as i32, (value >> (2 * BITS)) as i32]
}

fn joined_limbs(sums: [i64; 3]) -> i128 {
    i128::from(sums[0]) + (i128::from(sums[1]) << BITS) + (i128::from(sums[2]) << (2 * BITS))
}

fn joined_halves(sums: [i64; 2]) -> i128 {
    i128::from(sums[0]) + (i128::from(sums[1]) << 32)
}

fn reduced(value: i128) -> u64 {
    value.rem_euclid(i128::from(P)) as u64
}

/// Quantised inputs of a linear map, as its check reads them.
#[derive(Clone, Copy, Debug)]
pub enum Levels<'a> {
    /// 8-bit levels.
    Whole(&'a [i8]),
    /// High digits of 16-bit levels.
    High(&'a [i16]),
    /// Their low digits.
    Low(&'a [i16]),
}

impl Vector {
    /// Of elements below [`P`].
    pub fn new(values: impl IntoIterator<Item = u64>) -> Vector {
        let word = |value: u64| {
            assert!(value < P);
            // The low half counts as signed; the high half makes up for it.
            let low = value as u32;
            let high = (value >> 32) as u32 + (low >> 31);
            (u64::from(high) << 32 | u64::from(low)) as i64
        };
        Vector { words: values.into_iter().map(word).collect() }
    }

    /// Elements there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// One element.
    pub fn get(&self, at: usize) -> u64 {
        let word = self.words[at];
        (((word >> 32) << 32) + i64::from(word as i32)) as u64
    }

    /// Σ of the elements from `first` on times `x`, modulo [`P`], for any `x`: the simple form.
    pub fn dot(&self, first: usize, x: &[i32]) -> u64 {
        let elements = first..first + x.len();
        reduced(elements.zip(x).map(|(at, x)| i128::from(self.get(at)) * i128::from(*x)).sum())
    }

    /// Σ of all elements times quantised inputs, modulo [`P`].
    pub fn dot_levels(&self, isa: Isa, x: Levels<'_>) -> u64 {
        fn parts<T>(words: &[i64], x: &[T], dots: impl Fn(&[i64], &[T], &mut [i64; 2])) -> u64 {
            assert!(words.len() == x.len());
            let each = words.chunks(PART).zip(x.chunks(PART)).map(|(words, x)| {
                let mut sums = [0; 2];
                dots(words, x, &mut sums);
                joined_halves(sums)
            });
            reduced(each.sum())
        }
        match x {
            Levels::Whole(x) => parts(&self.words, x, |words, x, sums| dots_whole(isa, words, x, sums)),
            Levels::High(x) => parts(&self.words, x, |words, x, sums| dots_high(isa, words, x, sums)),
            Levels::Low(x) => parts(&self.words, x, |words, x, sums| dots_low(isa, words, x, sums)),
        }
    }

    /// As [`Vector::dot`], of sums where they lie; each becomes its float in `y` on the way, so that they are read once for both.
    pub fn dot_floats(&self, isa: Isa, first: usize, x: Packed<'_>, floats: Floats<'_>, y: &mut [f32]) -> u64 {
        assert!(x.len() == y.len());
        let words = &self.words[first..first + x.len()];
        let (mut sum, mut unpacked) = (0i128, [0i32; PART]);
        for part in x.parts(PART) {
            let (at, x) = (part.at..part.at + part.low.len(), &mut unpacked[..part.low.len()]);
            part.unpack(isa, x);
            to_floats(isa, x, floats.part(at.clone()), &mut y[at.clone()]);
            let words = &words[at];
            match part.high {
                High::Four(..) => sum += dots(isa, words, x, PART),
                High::Eight(_) => sum += dots(isa, words, x, PART / 2),
                High::Sixteen(_) => {
                    // Both halves by themselves; hardly ever with sums that are true.
                    let above: Vec<i32> = x.iter().map(|x| x >> 16).collect();
                    x.iter_mut().for_each(|x| *x &= 0xffff);
                    sum += dots(isa, words, x, PART) + (dots(isa, words, &above, PART) << 16);
                }
            }
        }
        reduced(sum)
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

/// Sums of both halves of `words` times `x`, which are few and small enough. Plain sums, so that the compiler runs as many side
/// by side as there are lanes.
#[inline(always)]
fn dots_with(words: &[i64], n: usize, x: impl Fn(usize) -> i32, sums: &mut [i64; 2]) {
    let words = &words[..n];
    let (mut low, mut high) = (0i64, 0i64);
    for i in 0..n {
        let (word, v) = (words[i], x(i));
        low = low.wrapping_add(i64::from(word as i32).wrapping_mul(i64::from(v)));
        high = high.wrapping_add((word >> 32).wrapping_mul(i64::from(v)));
    }
    *sums = [low, high];
}

#[inline(always)]
fn dots_of_24_bits_body(words: &[i64], x: &[i32], sums: &mut [i64; 2]) {
    let x = &x[..words.len()];
    dots_with(words, x.len(), |i| x[i], sums);
}

versions! {
    fn dots_of_24_bits(words: &[i64], x: &[i32], sums: &mut [i64; 2]) = dots_of_24_bits_body;
}

#[inline(always)]
fn dots_whole_body(words: &[i64], x: &[i8], sums: &mut [i64; 2]) {
    let x = &x[..words.len()];
    dots_with(words, x.len(), |i| i32::from(x[i]), sums);
}

#[inline(always)]
fn dots_high_body(words: &[i64], x: &[i16], sums: &mut [i64; 2]) {
    let x = &x[..words.len()];
    dots_with(words, x.len(), |i| digits(i32::from(x[i])).0, sums);
}

#[inline(always)]
fn dots_low_body(words: &[i64], x: &[i16], sums: &mut [i64; 2]) {
    let x = &x[..words.len()];
    dots_with(words, x.len(), |i| digits(i32::from(x[i])).1, sums);
}

versions! {
    fn dots_whole(words: &[i64], x: &[i8], sums: &mut [i64; 2]) = dots_whole_body;
}

versions! {
    fn dots_high(words: &[i64], x: &[i16], sums: &mut [i64; 2]) = dots_high_body;
}

versions! {
    fn dots_low(words: &[i64], x: &[i16], sums: &mut [i64; 2]) = dots_low_body;
}

/// Σ over rows of an element times the row: a projection of a matrix, taken row by row.
pub struct Projection {
    sums: [Vec<i64>; 3],
    rows: u64,
}

impl Projection {
    /// Of no rows yet, of `inputs` numbers each.
    pub fn new(inputs: usize) -> Projection {
        Projection { sums: std::array::from_fn(|_| vec![0; inputs]), rows: 0 }
    }

    /// Adds `element` times a row of weights.
    pub fn add(&mut self, isa: Isa, element: u64, row: &[i8]) {
        assert!(element < P && row.len() == self.sums[0].len() && self.rows < 1 << 32);
        self.rows += 1;
        let [a, b, c] = &mut self.sums;
        add_row(isa, limbs(element), row, a, b, c);
    }

    /// The sums modulo [`P`].
    pub fn finish(&self) -> Vec<u64> {
        let [a, b, c] = &self.sums;
        a.iter().zip(b).zip(c).map(|((a, b), c)| reduced(joined_limbs([*a, *b, *c]))).collect()
    }
}

#[inline(always)]
fn add_row_body(limbs: [i32; 3], row: &[i8], a: &mut [i64], b: &mut [i64], c: &mut [i64]) {
    let n = row.len();
    let (a, b, c) = (&mut a[..n], &mut b[..n], &mut c[..n]);
    for i in 0..n {
        let w = i32::from(row[i]);
        // 21 bits times 8: 29 bits at most.
        a[i] += i64::from(limbs[0] * w);
        b[i] += i64::from(limbs[1] * w);
        c[i] += i64::from(limbs[2] * w);
    }
}

versions! {
    fn add_row(limbs: [i32; 3], row: &[i8], a: &mut [i64], b: &mut [i64], c: &mut [i64]) = add_row_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(i: u64) -> u64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9abc_def0) % P
    }

    #[test]
    fn sums_are_those_of_wide_integers_at_the_extremes_too() {
        for isa in Isa::available() {
            for n in [1usize, 7, 1023, 1024, 1025, 5000] {
                let values: Vec<u64> =
                    (0..n as u64).map(|i| [P - 1, 1 << 31, (1 << 31) - 1, element(i), 0][i as usize % 5]).collect();
                let vector = Vector::new(values.clone());
                assert!((0..n).all(|i| vector.get(i) == values[i]));
                let sum =
                    |x: &dyn Fn(usize) -> i32| reduced((0..n).map(|i| i128::from(values[i]) * i128::from(x(i))).sum());
                // All at the border of a form, all beyond it, and anything.
                let kinds: [[i32; 4]; 7] = [
                    [(1 << 19) - 1; 4],
                    [-1 << 19; 4],
                    [1 << 19; 4],
                    [(1 << 23) - 1; 4],
                    [-1 << 23; 4],
                    [-(1 << 23) - 1, 1 << 23, 0, -1],
                    [i32::MIN, i32::MAX, -1, 77_777],
                ];
                for kind in kinds {
                    let x: Vec<i32> = (0..n).map(|i| kind[i % 4]).collect();
                    assert_eq!(vector.dot(0, &x), sum(&|i| x[i]), "{n}");
                    let (bits, mut bytes) = (Packed::bits_of(&x), vec![]);
                    Packed::write(&x, bits, &mut bytes);
                    let packed = Packed::read(&bytes, n, bits).unwrap();
                    let found = vector.dot_floats(isa, 0, packed, Floats::High, &mut vec![0.0; n]);
                    assert_eq!(found, sum(&|i| x[i]), "{isa} {n} {kind:?}");
                }
                let narrow: Vec<i8> = (0..n).map(|i| [127, -127, -128, i as i8][i % 4]).collect();
                assert_eq!(vector.dot_levels(isa, Levels::Whole(&narrow)), sum(&|i| narrow[i].into()));
                let wide: Vec<i16> = (0..n).map(|i| [32_639, -32_639, 127, -129, i as i16][i % 5]).collect();
                let digit = |i: usize| digits(wide[i].into());
                assert_eq!(vector.dot_levels(isa, Levels::High(&wide)), sum(&|i| digit(i).0));
                assert_eq!(vector.dot_levels(isa, Levels::Low(&wide)), sum(&|i| digit(i).1));
            }
        }
    }

    #[test]
    fn no_form_overflows() {
        // A low half of −2³¹ in every element, and every number at its form's border.
        let vector = Vector::new(vec![1 << 31; 2048]);
        for isa in Isa::available() {
            for x in [-1 << 19, (1 << 19) - 1, -1 << 23, (1 << 23) - 1, i32::MIN, i32::MAX] {
                let sums = vec![x; 2048];
                let (bits, mut bytes) = (Packed::bits_of(&sums), vec![]);
                Packed::write(&sums, bits, &mut bytes);
                let packed = Packed::read(&bytes, sums.len(), bits).unwrap();
                let found = vector.dot_floats(isa, 0, packed, Floats::High, &mut vec![0.0; 2048]);
                assert_eq!(found, reduced(i128::from(x) * (2048 << 31)), "{isa} {x}");
            }
        }
    }

    #[test]
    fn numbers_where_they_lie_give_the_same_sum_and_the_floats_of_the_arithmetic() {
        for isa in Isa::available() {
            for (n, by) in [(1, 7), (15, 70_001), (1024, 77), (3001, 777), (700, 77_777)] {
                let vector = Vector::new((0..n as u64 + 3).map(element));
                let x = |salt: i32| (0..n as i32).map(|i| (i * by) ^ salt).collect::<Vec<i32>>();
                let (high, low) = (x(5), x(-9));
                let scales: Vec<f32> = (0..n).map(|i| 0.001 + i as f32 * 1e-5).collect();
                for bits in
                    [4u8, 8, 16].into_iter().filter(|bits| *bits >= Packed::bits_of(&[&high[..], &low].concat()))
                {
                    let write = |x: &[i32]| {
                        let mut bytes = vec![];
                        Packed::write(x, bits, &mut bytes);
                        bytes
                    };
                    let (high_bytes, low_bytes) = (write(&high), write(&low));
                    let [high_sums, low_sums] =
                        [&high_bytes, &low_bytes].map(|bytes| Packed::read(bytes, n, bits).unwrap());
                    let mut y = vec![0.0; n];
                    let found = vector.dot_floats(isa, 3, low_sums, Floats::Whole(0.3, &scales), &mut y);
                    assert_eq!(found, vector.dot(3, &low));
                    assert!((0..n).all(|i| y[i] == low[i] as f32 * (0.3 * scales[i])));
                    assert_eq!(vector.dot_floats(isa, 0, high_sums, Floats::High, &mut y), vector.dot(0, &high));
                    vector.dot_floats(isa, 0, low_sums, Floats::Low(0.3, &scales), &mut y);
                    let both = |i: usize| (high[i] as f32 * 256.0 + low[i] as f32) * (0.3 * scales[i]);
                    assert!((0..n).all(|i| y[i] == both(i)));
                }
            }
        }
    }

    #[test]
    fn a_projection_is_the_sum_of_its_rows() {
        for isa in Isa::available() {
            let rows: Vec<Vec<i8>> =
                (0..300).map(|r| (0..67).map(|k| ((r * 31 + k * 17) % 256 - 128) as i8).collect()).collect();
            let mut projection = Projection::new(67);
            rows.iter().enumerate().for_each(|(r, row)| projection.add(isa, element(r as u64), row));
            for (k, found) in projection.finish().into_iter().enumerate() {
                let want: i128 = (0..300).map(|r| i128::from(element(r as u64)) * i128::from(rows[r][k])).sum();
                assert_eq!(found, reduced(want));
            }
        }
    }
}
