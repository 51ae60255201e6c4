//! Every kernel and whole models against the CPU, bit for bit, on random shapes: `lockstep selftest --device cuda` on a
//! device, and the tests on the processor.

mod draws;
mod hashes;
mod models;
mod products;
mod routes;
mod rows;

pub use draws::draws;
pub use hashes::hashes;
pub use models::{given, models};
pub use products::products;
pub use routes::routes;
pub use rows::rows;

use crate::kernel::Kernel;
use crate::launcher::{Buffer, DeviceError, Launch, Launcher};
use bytemuck::Pod;
use exact::generator::philox;

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Results compared: rows, dot products, tokens, hashes.
    pub vectors: u64,
    /// Of them, those with other bits.
    pub differing: u64,
}

impl Tally {
    fn count(&mut self, same: bool) {
        self.vectors += 1;
        self.differing += u64::from(!same);
    }
}

/// A little of everything, in about a second on a device: what a program runs before it lets a device compute for it.
pub fn quick<L: Launcher>(launcher: &mut L, dice: &mut Dice) -> Result<Tally, DeviceError> {
    let parts = [
        rows(launcher, dice, 150, 3000)?,
        products(launcher, dice, 4000, [140, 150, 700])?,
        routes(launcher, dice, 60, 500)?,
        draws(launcher, dice, 150, 700)?,
        hashes(launcher, dice, 150, 9000)?,
        models(launcher, dice, 3, 70)?,
    ];
    let mut all = Tally::default();
    for part in parts {
        all.vectors += part.vectors;
        all.differing += part.differing;
    }
    Ok(all)
}

/// Random numbers from one seed.
pub struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    /// Another seed, other numbers.
    pub fn new(seed: u64) -> Dice {
        Dice { seed, drawn: 0 }
    }

    fn word(&mut self) -> u32 {
        self.drawn += 1;
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        philox(key, [self.drawn as u32, (self.drawn >> 32) as u32, 0, 3])[0]
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    /// A length: often one where something ends, else any up to `most`.
    fn length(&mut self, most: usize) -> usize {
        let edge = [1, 2, 4, 8, 15, 16, 17, 63, 64, 65, 80, 127, 128, 129, 192, 256, 768, 1024, 2048][self.below(19)];
        if self.below(2) == 0 { edge.min(most) } else { 1 + self.below(most) }
    }

    /// Mostly of ordinary size, now and then large, tiny, zero or denormal.
    fn float(&mut self) -> f32 {
        let x = (self.word() as i32) as f32 / (1u32 << 31) as f32;
        match self.below(64) {
            0 => x * 1e5,
            1 => x * 1e-9,
            2 => x * 1e-39,
            3 => -0.0,
            _ => x,
        }
    }

    /// A row of floats: now and then all tiny, all zero, huge, or with something that is not finite.
    fn row(&mut self, width: usize) -> Vec<f32> {
        let factor = match self.below(24) {
            0 => 0.0,
            1 => 1e-32,
            2 => 1e30,
            3 => 1e38,
            _ => 1.0,
        };
        let mut row: Vec<f32> = (0..width).map(|_| self.float() * factor).collect();
        if self.below(24) == 0 {
            let at = self.below(width);
            row[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][self.below(3)];
        }
        row
    }
}

/// Device memory of one trial, given back at its end.
struct Scratch<'a, L: Launcher> {
    launcher: &'a mut L,
    buffers: Vec<Buffer>,
}

impl<'a, L: Launcher> Scratch<'a, L> {
    fn new(launcher: &'a mut L) -> Self {
        Scratch { launcher, buffers: Vec::new() }
    }

    fn room(&mut self, bytes: usize) -> Result<u64, DeviceError> {
        let buffer = self.launcher.alloc(bytes.max(16))?;
        self.buffers.push(buffer);
        Ok(buffer.address)
    }

    fn put<T: Pod>(&mut self, values: &[T]) -> Result<u64, DeviceError> {
        let address = self.room(size_of_val(values))?;
        self.launcher.write(address, bytemuck::cast_slice(values))?;
        Ok(address)
    }

    fn get<T: Pod>(&mut self, address: u64, count: usize) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::zeroed(); count];
        self.launcher.read(address, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn launch<T: Pod>(
        &mut self,
        kernel: Kernel,
        grid: [usize; 3],
        shared: usize,
        arguments: &T,
    ) -> Result<(), DeviceError> {
        let arguments = bytemuck::bytes_of(arguments).to_vec();
        self.launcher.launch(Launch { kernel, grid: grid.map(|n| n as u32), shared: shared as u32, arguments })
    }
}

impl<L: Launcher> Drop for Scratch<'_, L> {
    fn drop(&mut self) {
        self.buffers.drain(..).for_each(|buffer| self.launcher.free(buffer));
    }
}

/// Equal bits, or both not a number: which NaN is nowhere promised, as a run that meets one fails.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}
