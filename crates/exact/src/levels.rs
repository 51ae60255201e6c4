//! Levels of a quantised row in their order, for whoever hashes or compares them.

use crate::Activations;
use crate::quantise::{CHUNK, CHUNK_STRIDE, Quantised};

impl Quantised {
    /// Writes the integer levels of a row, 16 bits each, little end first; `bytes` has room for just these.
    pub fn write_levels(&self, row: usize, bytes: &mut [u8]) {
        assert!(row < self.rows() && bytes.len() == 2 * self.inputs());
        let plane = |plane| &self.bytes()[self.offset(row, plane)..];
        let (high, wide) = (plane(0), self.activations() == Activations::A16);
        let low = if wide { plane(1) } else { high };
        for (chunk, bytes) in bytes.as_chunks_mut::<2>().0.chunks_mut(CHUNK).enumerate() {
            let at = chunk * CHUNK_STRIDE..chunk * CHUNK_STRIDE + bytes.len();
            for ((bytes, high), low) in bytes.iter_mut().zip(&high[at.clone()]).zip(&low[at]) {
                let high = i16::from(*high) - 128;
                let level = if wide { 256 * high + i16::from(*low) - 128 } else { high };
                *bytes = level.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn written_levels_are_the_levels_one_by_one() {
        for mode in [Activations::A8, Activations::A16] {
            for inputs in [1usize, 63, 64, 65, 300] {
                let mut rows = Quantised::new(mode);
                rows.reshape(20, inputs, mode);
                for row in 0..20 {
                    let x: Vec<f32> = (0..inputs).map(|i| ((i * 37 + row * 11) % 201) as f32 - 100.0).collect();
                    rows.write_row(Isa::best(), row, &x).unwrap();
                }
                for row in [0, 3, 16, 19] {
                    let mut bytes = vec![7; 2 * inputs];
                    rows.write_levels(row, &mut bytes);
                    let one_by_one = (0..inputs).flat_map(|i| (rows.level(row, i) as i16).to_le_bytes());
                    assert!(bytes.into_iter().eq(one_by_one), "{mode:?} {inputs} {row}");
                }
            }
        }
    }
}
