//! Return on GPU.
//!
//! A [`Record`] says what a device did with a stretch of its time, a [`Device`] what an hour of it costs, and a [`Report`]
//! what came of both: revenue, cash margin, economic profit and goodput for each paid hour, idle ones included. The
//! definitions are in `docs/return-on-gpu.md`.

pub mod civil;
mod device;
mod error;
pub mod fleet;
mod record;
mod report;

pub use device::{Cost, Device};
pub use error::ReturnsError;
pub use record::{Bytes, Journal, Record, Time, Use, read};
pub use report::{ModelReport, Period, Report, Returns, Standing, Work};

#[cfg(test)]
mod tests;
