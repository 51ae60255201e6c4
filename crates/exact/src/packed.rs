//! Sums of linear maps as openings of light checks keep them: the low sixteen bits of each, and of what is above them only as
//! much as the largest needs (`docs/light-check.md`). And the floats that they become.

use crate::kernels::versions;
use crate::{Activations, Isa};
use std::ops::Range;

/// The sums of one map, or of one of its planes of digits, where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    low: &'a [[u8; 2]],
    high: Above<'a>,
}

/// What is above the low sixteen bits.
#[derive(Clone, Copy, Debug)]
enum Above<'a> {
    /// Four bits each: byte j has sum j's below those of the sum that comes half of all, rounded up, later.
    Four(&'a [u8]),
    Eight(&'a [u8]),
    Sixteen(&'a [[u8; 2]]),
}

/// Sums that follow each other and are kept alike.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    /// Number of the first.
    pub(crate) at: usize,
    pub(crate) low: &'a [[u8; 2]],
    pub(crate) high: High<'a>,
}

/// What is above the low sixteen bits of a part's sums, one item each.
#[derive(Clone, Copy)]
pub(crate) enum High<'a> {
    /// The four bits from this one on.
    Four(&'a [u8], u32),
    Eight(&'a [u8]),
    Sixteen(&'a [[u8; 2]]),
}

impl<'a> Packed<'a> {
    /// Fewest bits above the low sixteen that these sums can be kept with: 4, 8 or 16.
    pub fn bits_of(sums: &[i32]) -> u8 {
        let most = sums.iter().fold(0, |bits, sum| bits | (sum ^ sum >> 31) as u32);
        [4, 8].into_iter().find(|bits| most >> (15 + bits) == 0).unwrap_or(16)
    }

    /// Bytes that so many sums take with so many bits each above the low sixteen; nothing if there is no such form.
    pub fn bytes(count: usize, bits: u8) -> Option<usize> {
        let above = match bits {
            4 => count.div_ceil(2),
            8 => count,
            16 => count.checked_mul(2)?,
            _ => return None,
        };
        count.checked_mul(2)?.checked_add(above)
    }

    /// Appends `sums` with so many bits each above the low sixteen, no fewer than [`Packed::bits_of`] says.
    pub fn write(sums: &[i32], bits: u8, to: &mut Vec<u8>) {
        debug_assert!(bits >= Packed::bits_of(sums));
        to.extend(sums.iter().flat_map(|sum| (*sum as u16).to_le_bytes()));
        let (first, second) = sums.split_at(sums.len().div_ceil(2));
        match bits {
            4 => {
                let above = |sum: Option<&i32>| sum.map_or(0, |sum| (sum >> 16) as u8 & 15);
                to.extend(first.iter().enumerate().map(|(i, sum)| above(Some(sum)) | above(second.get(i)) << 4));
            }
            8 => to.extend(sums.iter().map(|sum| (sum >> 16) as u8)),
            _ => to.extend(sums.iter().flat_map(|sum| ((sum >> 16) as u16).to_le_bytes())),
        }
    }

    /// The sums in these bytes; nothing unless there are as many bytes as they take, and none of these says anything else.
    pub fn read(bytes: &'a [u8], count: usize, bits: u8) -> Option<Packed<'a>> {
        if Packed::bytes(count, bits)? != bytes.len() {
            return None;
        }
        let (low, above) = bytes.split_at(2 * count);
        let spare = bits == 4 && count % 2 == 1 && above.last().is_some_and(|byte| byte >> 4 != 0);
        if spare {
            return None;
        }
        let high = match bits {
            4 => Above::Four(above),
            8 => Above::Eight(above),
            _ => Above::Sixteen(above.as_chunks().0),
        };
        Some(Packed { low: low.as_chunks().0, high })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.low.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.low.is_empty()
    }

    /// The sums.
    pub fn unpacked(&self) -> Vec<i32> {
        let mut sums = vec![0; self.len()];
        for part in self.parts(self.len().max(1)) {
            part.unpack(Isa::SCALAR, &mut sums[part.at..part.at + part.low.len()]);
        }
        sums
    }

    /// All of them in parts, which end wherever their numbers reach a multiple of `most`.
    pub(crate) fn parts(self, most: usize) -> impl Iterator<Item = Part<'a>> {
        let half = if let Above::Four(_) = self.high { self.len().div_ceil(2) } else { self.len() };
        let mut at = 0;
        std::iter::from_fn(move || {
            let (all, shift) = if at < half { (0..half, 0) } else { (half..self.len(), 4) };
            let end = ((at / most + 1) * most).min(all.end);
            let part = (at < end).then(|| self.part(at..end, at - all.start, shift));
            at = end;
            part
        })
    }

    fn part(&self, sums: Range<usize>, from: usize, shift: u32) -> Part<'a> {
        let above = from..from + sums.len();
        let high = match self.high {
            Above::Four(high) => High::Four(&high[above], shift),
            Above::Eight(high) => High::Eight(&high[above]),
            Above::Sixteen(high) => High::Sixteen(&high[above]),
        };
        Part { at: sums.start, low: &self.low[sums], high }
    }
}

impl Part<'_> {
    /// Writes the sums to `to`, which has as many places.
    pub(crate) fn unpack(self, isa: Isa, to: &mut [i32]) {
        match self.high {
            High::Four(high, shift) => unpack_four(isa, self.low, high, shift, to),
            High::Eight(high) => unpack_eight(isa, self.low, high, to),
            High::Sixteen(high) => unpack_sixteen(isa, self.low, high, to),
        }
    }
}

/// Each sum of its low bits and what is above them, sign included.
#[inline(always)]
fn unpack_with(low: &[[u8; 2]], high: impl Fn(usize) -> i32, to: &mut [i32]) {
    let to = &mut to[..low.len()];
    for (i, (to, low)) in to.iter_mut().zip(low).enumerate() {
        *to = high(i) << 16 | i32::from(u16::from_le_bytes(*low));
    }
}

#[inline(always)]
fn unpack_four_body(low: &[[u8; 2]], high: &[u8], shift: u32, to: &mut [i32]) {
    let high = &high[..low.len()];
    unpack_with(low, |i| (i32::from(high[i] >> shift) << 28) >> 28, to);
}

#[inline(always)]
fn unpack_eight_body(low: &[[u8; 2]], high: &[u8], to: &mut [i32]) {
    let high = &high[..low.len()];
    unpack_with(low, |i| i32::from(high[i] as i8), to);
}

#[inline(always)]
fn unpack_sixteen_body(low: &[[u8; 2]], high: &[[u8; 2]], to: &mut [i32]) {
    let high = &high[..low.len()];
    unpack_with(low, |i| i32::from(i16::from_le_bytes(high[i])), to);
}

versions! {
    fn unpack_four(low: &[[u8; 2]], high: &[u8], shift: u32, to: &mut [i32]) = unpack_four_body;
}

versions! {
    fn unpack_eight(low: &[[u8; 2]], high: &[u8], to: &mut [i32]) = unpack_eight_body;
}

versions! {
    fn unpack_sixteen(low: &[[u8; 2]], high: &[[u8; 2]], to: &mut [i32]) = unpack_sixteen_body;
}

/// What becomes of the sums of a linear map (docs/arithmetic.md, section 2).
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// y = x · (scale · scales): 8-bit inputs.
    Whole(f32, &'a [f32]),
    /// y = 256 · x: the sums of high digits.
    High,
    /// y = (y + x) · (scale · scales): those of the low digits complete them.
    Low(f32, &'a [f32]),
}

impl<'a> Floats<'a> {
    /// What the sums of a plane of digits become: of the only one (a8), the high or the low one (a16).
    pub fn of(mode: Activations, plane: usize, scale: f32, scales: &'a [f32]) -> Floats<'a> {
        match (mode, plane) {
            (Activations::A8, _) => Floats::Whole(scale, scales),
            (Activations::A16, 0) => Floats::High,
            (Activations::A16, _) => Floats::Low(scale, scales),
        }
    }

    pub(crate) fn part(&self, at: Range<usize>) -> Floats<'a> {
        match self {
            Floats::Whole(scale, scales) => Floats::Whole(*scale, &scales[at]),
            Floats::High => Floats::High,
            Floats::Low(scale, scales) => Floats::Low(*scale, &scales[at]),
        }
    }
}

#[inline(always)]
fn to_floats_body(x: &[i32], floats: Floats<'_>, y: &mut [f32]) {
    let n = x.len();
    let y = &mut y[..n];
    let value = |i: usize| x[i] as f32;
    match floats {
        Floats::Whole(scale, scales) => {
            let scales = &scales[..n];
            (0..n).for_each(|i| y[i] = value(i) * (scale * scales[i]));
        }
        Floats::High => (0..n).for_each(|i| y[i] = value(i) * 256.0),
        Floats::Low(scale, scales) => {
            let scales = &scales[..n];
            (0..n).for_each(|i| y[i] = (y[i] + value(i)) * (scale * scales[i]));
        }
    }
}

versions! {
    /// The floats of sums.
    pub fn to_floats(x: &[i32], floats: Floats<'_>, y: &mut [f32]) = to_floats_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_back_in_every_form_that_holds_them() {
        for bits in [4u8, 8, 16] {
            let (least, most) = (i32::MIN >> (16 - bits), i32::MAX >> (16 - bits));
            for count in [0usize, 1, 2, 3, 16, 17, 255, 1000] {
                let sums: Vec<i32> =
                    (0..count as i32).map(|i| [least, most, -1, 0, i, -65_536, 65_535][i as usize % 7]).collect();
                assert!(Packed::bits_of(&sums) <= bits);
                let mut bytes = vec![];
                Packed::write(&sums, bits, &mut bytes);
                assert_eq!(Some(bytes.len()), Packed::bytes(count, bits));
                let packed = Packed::read(&bytes, count, bits).unwrap();
                assert_eq!((packed.unpacked(), packed.len()), (sums, count));
                assert!(Packed::read(&bytes, count + 1, bits).is_none());
            }
            for beyond in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten() {
                assert!(Packed::bits_of(&[0, beyond, 3]) > bits);
            }
        }
        assert!(Packed::bytes(1, 5).is_none() && Packed::read(&[0; 4], 1, 0).is_none());
        assert!(Packed::read(&[1, 2, 0x0f], 1, 4).is_some() && Packed::read(&[1, 2, 0x1f], 1, 4).is_none());
    }
}
