//! Sums in the field of 2⁶¹ − 1 elements, exact and quick: what lets a verifier check a product with weights it no longer
//! holds (`docs/light-check.md`). Not part of the arithmetic: nothing here decides a bit of an answer.

use crate::Isa;
use crate::kernels::{DOT_DIGITS, DOT_INPUTS, DOT_LANES, DigitBlock, dots, versions};
use crate::quantise::digits;

/// The field's size, a Mersenne prime.
pub const P: u64 = (1 << 61) - 1;

/// Bits of a limb of an element that rows of weights are multiplied with.
const BITS: u32 = 21;

/// Elements of the field in digits of 16 bits, from −2¹⁵ on, so that products with small numbers are products of small numbers.
#[derive(Clone, Default, Debug)]
pub struct Vector {
    len: usize,
    digits: Vec<DigitBlock>,
}

/// One element in three limbs.
fn limbs(value: u64) -> [i32; 3] {
    let mask = (1 << BITS) - 1;
    [(value & mask) as i32, (value >> BITS & mask) as i32, (value >> (2 * BITS)) as i32]
}

fn joined_limbs(sums: [i64; 3]) -> i128 {
    i128::from(sums[0]) + (i128::from(sums[1]) << BITS) + (i128::from(sums[2]) << (2 * BITS))
}

/// `value` modulo [`P`]: what is above 61 bits counts as much as what is below.
pub(crate) fn reduced(value: i128) -> u64 {
    let fold = |value: i128| (value & i128::from(P)) + (value >> 61);
    let rest = fold(fold(value)) as i64;
    let rest = if rest < 0 { rest + P as i64 } else { rest } as u64;
    if rest >= P { rest - P } else { rest }
}

/// The product of two elements.
pub(crate) fn product(a: u64, b: u64) -> u64 {
    reduced(i128::from(a) * i128::from(b))
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

impl Levels<'_> {
    fn len(&self) -> usize {
        match self {
            Levels::Whole(x) => x.len(),
            Levels::High(x) | Levels::Low(x) => x.len(),
        }
    }
}

impl Vector {
    /// Of elements below [`P`].
    pub fn new(values: &[u64]) -> Vector {
        assert!(values.iter().all(|value| *value < P));
        let block = |values: &[u64]| {
            let mut block = DigitBlock::default();
            for (lane, value) in values.iter().enumerate() {
                let mut rest = *value as i64;
                for digits in &mut block {
                    digits[lane] = rest as i16;
                    rest = (rest - i64::from(rest as i16)) >> 16;
                }
            }
            block
        };
        Vector { len: values.len(), digits: values.chunks(DOT_LANES).map(block).collect() }
    }

    /// Elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One element.
    pub fn get(&self, at: usize) -> u64 {
        let digits = self.digits[at / DOT_LANES].iter().rev().map(|digits| i64::from(digits[at % DOT_LANES]));
        digits.fold(0, |value, digit| (value << 16) + digit) as u64
    }

    /// Σ of all elements times quantised inputs, modulo [`P`].
    pub fn dot_levels(&self, isa: Isa, x: Levels<'_>) -> u64 {
        assert!(x.len() == self.len);
        let (mut total, mut part) = ([0i64; DOT_DIGITS], [[0i16; DOT_LANES]; DOT_INPUTS / DOT_LANES]);
        for (number, digits) in self.digits.chunks(part.len()).enumerate() {
            let all = number * DOT_INPUTS..((number + 1) * DOT_INPUTS).min(self.len);
            // What is left beyond the last input meets digits that are zeros.
            let flat = &mut part.as_flattened_mut()[..all.len()];
            match x {
                Levels::Whole(x) => widen(isa, &x[all], flat),
                Levels::High(x) => high_digits(isa, &x[all], flat),
                Levels::Low(x) => low_digits(isa, &x[all], flat),
            }
            let mut sums = [0; DOT_DIGITS];
            dots(isa, digits, &part[..digits.len()], &mut sums);
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        reduced(total.iter().rev().fold(0, |value, sum| (value << 16) + i128::from(*sum)))
    }
}

#[inline(always)]
fn widen_body(x: &[i8], to: &mut [i16]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to = i16::from(*x));
}

versions! {
    fn widen(x: &[i8], to: &mut [i16]) = widen_body;
}

#[inline(always)]
fn high_digits_body(x: &[i16], to: &mut [i16]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to = digits(i32::from(*x)).0 as i16);
}

versions! {
    fn high_digits(x: &[i16], to: &mut [i16]) = high_digits_body;
}

#[inline(always)]
fn low_digits_body(x: &[i16], to: &mut [i16]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to = digits(i32::from(*x)).1 as i16);
}

versions! {
    fn low_digits(x: &[i16], to: &mut [i16]) = low_digits_body;
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
                let vector = Vector::new(&values);
                assert!((0..n).all(|i| vector.get(i) == values[i]));
                let sum =
                    |x: &dyn Fn(usize) -> i32| reduced((0..n).map(|i| i128::from(values[i]) * i128::from(x(i))).sum());
                let narrow: Vec<i8> = (0..n).map(|i| [127, -127, -128, i as i8][i % 4]).collect();
                assert_eq!(vector.dot_levels(isa, Levels::Whole(&narrow)), sum(&|i| narrow[i].into()));
                let wide: Vec<i16> = (0..n).map(|i| [32_639, -32_639, 127, -129, i as i16][i % 5]).collect();
                let digit = |i: usize| digits(wide[i].into());
                assert_eq!(vector.dot_levels(isa, Levels::High(&wide)), sum(&|i| digit(i).0));
                assert_eq!(vector.dot_levels(isa, Levels::Low(&wide)), sum(&|i| digit(i).1));
                // Every digit but the highest, and every input, at its border.
                let least = 0x1ffe_7fff_7fff_8000;
                let sum = reduced(i128::from(least) * -128 * n as i128);
                assert_eq!(Vector::new(&vec![least; n]).dot_levels(isa, Levels::Whole(&vec![-128; n])), sum);
            }
        }
    }

    #[test]
    fn numbers_are_brought_into_the_field_as_division_does() {
        let p = i128::from(P);
        let borders =
            [0, 1, p - 1, p, p + 1, p * p, 64 * p, i128::MAX, 1 << 126, 0x1234_5678_9abc_def0_1122_3344_5566_7788];
        for value in borders.into_iter().flat_map(|value| [value, -value, value - 1, !value]) {
            assert_eq!(i128::from(reduced(value)), value.rem_euclid(p), "{value}");
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
