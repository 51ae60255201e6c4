//! A quantised row, as linear maps read it and as their sums are checked.

use exact::field::Levels;
use exact::quantise::{quantise_i8, quantise_i16};
use exact::{Activations, Isa};

/// Levels of a row.
#[derive(Default)]
pub(crate) struct Input {
    mode: Option<Activations>,
    narrow: Vec<i8>,
    wide: Vec<i16>,
    pub(crate) scale: f32,
}

impl Input {
    /// Quantises `x`. If it is not finite, the row is zeros and the result false.
    pub(crate) fn quantise(&mut self, isa: Isa, x: &[f32], mode: Activations) -> bool {
        self.mode = Some(mode);
        let scale = match mode {
            Activations::A8 => {
                self.narrow.resize(x.len(), 0);
                quantise_i8(isa, x, &mut self.narrow)
            }
            Activations::A16 => {
                self.wide.resize(x.len(), 0);
                quantise_i16(isa, x, &mut self.wide)
            }
        };
        if scale.is_err() {
            self.narrow.fill(0);
            self.wide.fill(0);
        }
        self.scale = scale.unwrap_or(0.0);
        scale.is_ok()
    }

    /// What each plane of sums is of; nothing before it was quantised.
    pub(crate) fn planes(&self) -> &[fn(&Input) -> Levels<'_>] {
        match self.mode {
            None => &[],
            Some(Activations::A8) => &[|input| Levels::Whole(&input.narrow)],
            Some(Activations::A16) => &[|input| Levels::High(&input.wide), |input| Levels::Low(&input.wide)],
        }
    }

    /// Appends the levels, 16 bits each, little end first.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let levels: Vec<[u8; 2]> = match self.mode {
            None => return,
            Some(Activations::A8) => self.narrow.iter().map(|level| i16::from(*level).to_le_bytes()).collect(),
            Some(Activations::A16) => self.wide.iter().map(|level| level.to_le_bytes()).collect(),
        };
        bytes.extend_from_slice(levels.as_flattened());
    }
}
