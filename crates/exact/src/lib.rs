//! The arithmetic every machine agrees on, to the bit.
//!
//! A model run is a pure function of weights, adapter, tokens, sampling settings and seed. This crate holds the
//! operations such a run consists of, each defined in `docs/arithmetic.md`:
//!
//! - rows of floats become rows of small integers with one scale ([`quantise`]);
//! - integers are multiplied with int8 weights and summed exactly, in any order ([`linear`], [`matrix`]);
//! - what remains in floating point is element-wise or has one written order ([`norm`], [`rotary`], [`spread`](mod@spread), [`attention`]);
//! - the next token is drawn with integer probabilities and a counter-based generator ([`sample`]), under penalties, biases and masks if asked for
//!   ([`adjust`]), and told how likely it was ([`logprob`]).
//!
//! Beside the arithmetic stand what checks it ([`field`], [`elements`]) and what many short messages are hashed with ([`hash`]).
//!
//! Every operation takes an [`Isa`] first: the instruction set to use. All give the same bits.
//!
//! ```
//! use exact::{Activations, Isa, linear, matrix::Matrix, quantise::Quantised};
//!
//! let isa = Isa::best();
//! let mut weights = Matrix::zeroed(2, 3);
//! weights.quantise_row(isa, 0, &[1.0, 0.5, -0.25])?;
//! weights.quantise_row(isa, 1, &[0.0, 2.0, 0.0])?;
//! let mut x = Quantised::new(Activations::A8);
//! x.reshape(1, 3, Activations::A8);
//! x.write_row(isa, 0, &[1.0, 2.0, 3.0])?;
//! let mut y = [0.0f32; 2];
//! let out = linear::RowsMut::new(&mut y, 2);
//! linear::linear(isa, &x, 0..1, &weights, 0..1, linear::Epilogue::Store, out, 0, &mut Default::default());
//! assert!((y[0] - 1.25).abs() < 0.02 && (y[1] - 4.0).abs() < 0.04);
//! # Ok::<(), exact::NotFinite>(())
//! ```

mod elementary;
mod isa;
mod kernels;
mod levels;
mod weight_row;

pub mod adjust;
pub mod attention;
pub mod elements;
pub mod field;
pub mod generator;
pub mod hash;
pub mod limits;
pub mod linear;
pub mod logprob;
pub mod matrix;
pub mod memory;
pub mod mixture;
pub mod norm;
pub mod packed;
pub mod quantise;
pub mod rotary;
pub mod sample;
pub mod shared;
pub mod spread;
pub mod steps;

pub use elementary::{LOG2_E, exp2, log2, silu};
pub use isa::{Isa, IsaError, float_environment_is_standard};
pub use quantise::{Activations, NotFinite};

/// Version of the arithmetic that `docs/arithmetic.md` defines.
pub const VERSION: u32 = 2;

/// The most inputs a linear map may have: 128 · 128 · 131,071 still fits 32 bits.
pub const INPUTS_MAX: usize = 131_071;
