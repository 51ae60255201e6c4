//! Sums in the field of 2⁶¹ − 1 elements, exact and quick: what lets a verifier check a product with weights it no longer
//! holds (`docs/light-check.md`). Not part of the arithmetic: nothing here decides a bit of an answer.

use crate::Isa;
use crate::kernels::versions;

/// The field's size, a Mersenne prime.
pub const P: u64 = (1 << 61) - 1;

/// Bits of a limb: a limb times 32 bits, 1,024 times, stays below 2⁶³.
const BITS: u32 = 21;
const PART: usize = 1024;

/// Elements of the field, each in three limbs, so that products with 32-bit numbers are products of 32-bit numbers.
#[derive(Clone, Default, Debug)]
pub struct Vector {
    limbs: [Vec<i32>; 3],
}

/// One element in three limbs.
fn limbs(value: u64) -> [i32; 3] {
    let mask = (1 << BITS) - 1;
    [(value & mask) as i32, (value >> BITS & mask) as i32, (value >> (2 * BITS)) as i32]
}

fn joined(sums: [i64; 3]) -> i128 {
    i128::from(sums[0]) + (i128::from(sums[1]) << BITS) + (i128::from(sums[2]) << (2 * BITS))
}

fn reduced(value: i128) -> u64 {
    value.rem_euclid(i128::from(P)) as u64
}

impl Vector {
    /// Of elements below [`P`].
    pub fn new(values: impl IntoIterator<Item = u64>) -> Vector {
        let mut vector = Vector::default();
        for value in values {
            assert!(value < P);
            vector.limbs.iter_mut().zip(limbs(value)).for_each(|(to, limb)| to.push(limb));
        }
        vector
    }

    /// Elements there are.
    pub fn len(&self) -> usize {
        self.limbs[0].len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One element.
    pub fn get(&self, at: usize) -> u64 {
        (self.limbs[2][at] as u64) << (2 * BITS) | (self.limbs[1][at] as u64) << BITS | self.limbs[0][at] as u64
    }

    /// Σ of the elements from `first` on times `x`, modulo [`P`].
    pub fn dot(&self, isa: Isa, first: usize, x: &[i32]) -> u64 {
        assert!(first <= self.len() && x.len() <= self.len() - first);
        let mut sum = 0i128;
        for (number, part) in x.chunks(PART).enumerate() {
            let from = first + number * PART;
            let [a, b, c] = &self.limbs;
            let limbs = [a, b, c].map(|limb| &limb[from..from + part.len()]);
            let mut sums = [0i64; 3];
            dots(isa, limbs, part, &mut sums);
            sum += joined(sums);
        }
        reduced(sum)
    }
}

#[inline(always)]
fn dots_body(limbs: [&[i32]; 3], x: &[i32], sums: &mut [i64; 3]) {
    let n = x.len();
    let (a, b, c) = (&limbs[0][..n], &limbs[1][..n], &limbs[2][..n]);
    let (mut s0, mut s1, mut s2) = (0i64, 0i64, 0i64);
    for i in 0..n {
        let v = i64::from(x[i]);
        s0 = s0.wrapping_add(i64::from(a[i]).wrapping_mul(v));
        s1 = s1.wrapping_add(i64::from(b[i]).wrapping_mul(v));
        s2 = s2.wrapping_add(i64::from(c[i]).wrapping_mul(v));
    }
    *sums = [s0, s1, s2];
}

versions! {
    fn dots(limbs: [&[i32]; 3], x: &[i32], sums: &mut [i64; 3]) = dots_body;
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
        a.iter().zip(b).zip(c).map(|((a, b), c)| reduced(joined([*a, *b, *c]))).collect()
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
                let values: Vec<u64> = (0..n as u64).map(|i| if i % 3 == 0 { P - 1 } else { element(i) }).collect();
                let x: Vec<i32> = (0..n as i32).map(|i| [i32::MIN, i32::MAX, -1, i * 77_777][i as usize % 4]).collect();
                let want: i128 = values.iter().zip(&x).map(|(v, x)| i128::from(*v) * i128::from(*x)).sum();
                let vector = Vector::new(values.clone());
                assert_eq!(vector.dot(isa, 0, &x), reduced(want), "{isa} {n}");
                assert!((0..n).all(|i| vector.get(i) == values[i]));
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
