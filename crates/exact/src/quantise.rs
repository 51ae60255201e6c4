//! Rows of floats become rows of small integers with one scale (specification, section 1).

use crate::elementary::round_small;
use crate::kernels::versions;
use crate::memory::AlignedBytes;
use crate::shared::Shared;
pub use crate::weight_row::quantise_weights;

/// Whether the inputs of linear maps are rounded to 8 or to 16 bits. Part of a served model's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activations {
    /// 8 bits: one integer product.
    A8,
    /// 16 bits as two balanced digits: two integer products, an eighth to a thirtieth of the error.
    A16,
}

impl Activations {
    /// Planes of digits a value is stored in.
    pub fn planes(self) -> usize {
        match self {
            Activations::A8 => 1,
            Activations::A16 => 2,
        }
    }

    /// `a8` or `a16`.
    pub fn name(self) -> &'static str {
        match self {
            Activations::A8 => "a8",
            Activations::A16 => "a16",
        }
    }

    fn largest(self) -> f32 {
        match self {
            Activations::A8 => 127.0,
            Activations::A16 => 32_639.0,
        }
    }
}

impl std::str::FromStr for Activations {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "a8" => Ok(Activations::A8),
            "a16" => Ok(Activations::A16),
            _ => Err(format!("unknown activation mode {name:?}: use a8 or a16")),
        }
    }
}

/// A value was infinite or NaN where the arithmetic needs a finite one: the sequence it belongs to fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value became infinite or not a number")]
pub struct NotFinite;

/// Magnitudes below this quantise to zero with scale zero.
pub(crate) const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// The two numbers a row is quantised with: multiplier and resulting scale.
#[inline(always)]
pub(crate) fn scale_of(bits_max: u32, largest: f32) -> Result<(f32, f32), NotFinite> {
    if bits_max >= 0x7f80_0000 {
        return Err(NotFinite);
    }
    let a = f32::from_bits(bits_max);
    if a < TINY { Ok((0.0, 0.0)) } else { Ok((largest / a, a / largest)) }
}

#[inline(always)]
pub(crate) fn magnitude_bits(values: &[f32]) -> u32 {
    values.iter().fold(0, |a, x| a.max(x.to_bits() & 0x7fff_ffff))
}

#[inline(always)]
pub(crate) fn level(x: f32, multiplier: f32, largest: f32) -> i32 {
    round_small((x * multiplier).max(-largest).min(largest))
}

/// Digits (high, low) of a 16-bit level, both within −128…127.
#[inline(always)]
pub(crate) fn digits(q: i32) -> (i32, i32) {
    let low = ((q + 128) & 255) - 128;
    ((q - low) >> 8, low)
}

#[inline(always)]
fn levels_i8_body(x: &[f32], q: &mut [i8]) -> Result<f32, NotFinite> {
    let (multiplier, scale) = scale_of(magnitude_bits(x), 127.0)?;
    for (q, x) in q.iter_mut().zip(x) {
        *q = level(*x, multiplier, 127.0) as i8;
    }
    Ok(scale)
}

#[inline(always)]
fn levels_i16_body(x: &[f32], q: &mut [i16]) -> Result<f32, NotFinite> {
    let (multiplier, scale) = scale_of(magnitude_bits(x), 32_639.0)?;
    for (q, x) in q.iter_mut().zip(x) {
        *q = level(*x, multiplier, 32_639.0) as i16;
    }
    Ok(scale)
}

versions! {
    /// Quantises a row to 8 bits (a8): levels into `q`, the scale returned.
    pub fn quantise_i8(x: &[f32], q: &mut [i8]) -> Result<f32, NotFinite> = levels_i8_body;
}

versions! {
    /// Quantises a row to 16 bits (a16): levels into `q`, the scale returned.
    pub fn quantise_i16(x: &[f32], q: &mut [i16]) -> Result<f32, NotFinite> = levels_i16_body;
}

/// Rows in a tile of [`Quantised`].
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes of one row's slice in a tile.
pub(crate) const CHUNK: usize = 64;
/// Bytes between consecutive chunks of a row.
pub(crate) const CHUNK_STRIDE: usize = TILE_ROWS * CHUNK;

/// A batch of quantised rows, in the layout the product kernels read:
/// `[row / 16][plane][input / 64][row % 16][input % 64]`, each digit stored with 128 added.
/// Plane 0 holds the 8-bit levels (a8) or the high digits (a16), plane 1 the low digits.
#[derive(Clone)]
pub struct Quantised {
    bytes: AlignedBytes,
    scales: Vec<f32>,
    rows: usize,
    inputs: usize,
    activations: Activations,
}

impl Quantised {
    /// Room for nothing yet; see [`Quantised::reshape`].
    pub fn new(activations: Activations) -> Self {
        Quantised { bytes: AlignedBytes::default(), scales: Vec::new(), rows: 0, inputs: 0, activations }
    }

    /// Takes the shape `rows × inputs`. Contents are unspecified until rows are written.
    pub fn reshape(&mut self, rows: usize, inputs: usize, activations: Activations) {
        self.rows = rows;
        self.inputs = inputs;
        self.activations = activations;
        self.bytes.grow(rows.div_ceil(TILE_ROWS) * self.tile_stride());
        if self.scales.len() < rows {
            self.scales.resize(rows.next_multiple_of(TILE_ROWS), 0.0);
        }
    }

    /// Rows in use.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The mode its rows were quantised in.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// One scale per row.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.rows]
    }

    /// The integer level of one value.
    pub fn level(&self, row: usize, input: usize) -> i32 {
        let digit = |plane| {
            let at = self.offset(row, plane) + input / CHUNK * CHUNK_STRIDE + input % CHUNK;
            i32::from(self.bytes.as_bytes()[at]) - 128
        };
        match self.activations {
            Activations::A8 => digit(0),
            Activations::A16 => 256 * digit(0) + digit(1),
        }
    }

    /// Makes row `row` a copy of row `from` of `other`, which has the same width and mode.
    pub fn copy_row(&mut self, row: usize, other: &Quantised, from: usize) {
        assert!(self.inputs == other.inputs && self.activations == other.activations);
        assert!(row < self.rows && from < other.rows);
        for plane in 0..self.activations.planes() {
            let (to, from) = (self.offset(row, plane), other.offset(from, plane));
            for chunk in 0..self.inputs.div_ceil(CHUNK) {
                let source = &other.bytes.as_bytes()[from + chunk * CHUNK_STRIDE..][..CHUNK];
                self.bytes.as_bytes_mut()[to + chunk * CHUNK_STRIDE..][..CHUNK].copy_from_slice(source);
            }
        }
        self.scales[row] = other.scales[from];
    }

    /// Quantises `x` into row `row`.
    pub fn write_row(&mut self, isa: crate::Isa, row: usize, x: &[f32]) -> Result<(), NotFinite> {
        self.rows_mut().write(isa, row, x)
    }

    /// A handle through which several threads may write different rows at once (see [`Shared`] for the contract).
    pub fn rows_mut(&mut self) -> QuantisedRows<'_> {
        QuantisedRows {
            bytes: Shared::new(self.bytes.as_bytes_mut()),
            scales: Shared::new(&mut self.scales),
            rows: self.rows,
            inputs: self.inputs,
            activations: self.activations,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    pub(crate) fn offset(&self, row: usize, plane: usize) -> usize {
        row / TILE_ROWS * self.tile_stride() + plane * self.plane_stride() + row % TILE_ROWS * CHUNK
    }

    pub(crate) fn plane_stride(&self) -> usize {
        self.inputs.div_ceil(CHUNK) * CHUNK_STRIDE
    }

    pub(crate) fn tile_stride(&self) -> usize {
        self.activations.planes() * self.plane_stride()
    }
}

/// The rows of a [`Quantised`], writable from several threads as long as no two write the same row.
#[derive(Clone, Copy)]
pub struct QuantisedRows<'a> {
    bytes: Shared<'a, u8>,
    scales: Shared<'a, f32>,
    rows: usize,
    inputs: usize,
    activations: Activations,
}

impl QuantisedRows<'_> {
    /// Quantises `x` into row `row`. Two threads must not write the same row at the same time.
    pub fn write(&self, isa: crate::Isa, row: usize, x: &[f32]) -> Result<(), NotFinite> {
        assert!(row < self.rows && x.len() == self.inputs);
        let plane_stride = self.inputs.div_ceil(CHUNK) * CHUNK_STRIDE;
        let start = row / TILE_ROWS * self.activations.planes() * plane_stride + row % TILE_ROWS * CHUNK;
        let scale = write_chunks(isa, x, self.activations, &self.bytes, start, plane_stride)?;
        self.scales.set(row, scale);
        Ok(())
    }

    /// Gives row `row` the scale 0, so that every product of it is 0.
    pub fn clear(&self, row: usize) {
        assert!(row < self.rows);
        self.scales.set(row, 0.0);
    }
}

#[inline(always)]
fn write_chunks_body(
    x: &[f32],
    activations: Activations,
    bytes: &Shared<'_, u8>,
    start: usize,
    plane_stride: usize,
) -> Result<f32, NotFinite> {
    let largest = activations.largest();
    let (multiplier, scale) = scale_of(magnitude_bits(x), largest)?;
    for (i, values) in x.chunks(CHUNK).enumerate() {
        let at = start + i * CHUNK_STRIDE;
        let mut padded = [0.0f32; CHUNK];
        let full: &[f32; CHUNK] = match values.try_into() {
            Ok(full) => full,
            Err(_) => {
                padded[..values.len()].copy_from_slice(values);
                &padded
            }
        };
        match activations {
            Activations::A8 => {
                // In place: a copy from the stack would wait for the quarters that were stored there just before.
                for (out, x) in bytes.part_mut(at, CHUNK).iter_mut().zip(full) {
                    *out = (level(*x, multiplier, largest) + 128) as u8;
                }
            }
            Activations::A16 => {
                let (high, low) = (bytes.part_mut(at, CHUNK), bytes.part_mut(at + plane_stride, CHUNK));
                for ((high, low), x) in high.iter_mut().zip(low).zip(full) {
                    let (h, l) = digits(level(*x, multiplier, largest));
                    *high = (h + 128) as u8;
                    *low = (l + 128) as u8;
                }
            }
        }
    }
    Ok(scale)
}

versions! {
    fn write_chunks(
        x: &[f32],
        activations: Activations,
        bytes: &Shared<'_, u8>,
        start: usize,
        plane_stride: usize
    ) -> Result<f32, NotFinite> = write_chunks_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn levels_round_half_to_even_and_fill_the_range() {
        for isa in Isa::available() {
            let mut q = [0i8; 6];
            let s = quantise_i8(isa, &[127.0, -127.0, 0.5, 1.5, -0.5, 2.5], &mut q).unwrap();
            assert_eq!((q, s), ([127, -127, 0, 2, 0, 2], 1.0));
        }
    }

    #[test]
    fn tiny_rows_become_zero_and_infinite_ones_fail() {
        for isa in Isa::available() {
            let mut q = [7i8; 2];
            assert_eq!(quantise_i8(isa, &[1e-31, -1e-32], &mut q), Ok(0.0));
            assert_eq!(q, [0, 0]);
            assert_eq!(quantise_i8(isa, &[1.0, f32::NAN], &mut q), Err(NotFinite));
            assert_eq!(quantise_i8(isa, &[f32::NEG_INFINITY, 0.0], &mut q), Err(NotFinite));
        }
    }

    #[test]
    fn digits_are_balanced_and_add_up() {
        for q in -32_639..=32_639 {
            let (high, low) = digits(q);
            assert_eq!(256 * high + low, q);
            assert!((-128..128).contains(&high) && (-128..128).contains(&low));
        }
    }
}
