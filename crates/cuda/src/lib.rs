//! Executes a [`model::Plan`] on a ragged batch of sequences, on a CUDA device.
//!
//! - [`Driver`] finds a device at run time: a machine needs NVIDIA's driver (525 or newer) and nothing else, and without
//!   one [`Driver::open`] says what is missing. No CUDA toolkit is needed, neither to build nor to run.
//! - [`Executor`] has the interface of [`cpu::Executor`]: steps on ragged segments, draws, leaves, failures by segment.
//! - The kernels lie in `kernels/`, compiled to PTX that is kept in `ptx/` (`tools/ptx.py`). The tests run the same
//!   sources on the processor, through a second [`Launcher`].
//!
//! Layouts, kernels and which sums have an order: docs/cuda.md.

pub mod arguments;
pub mod bench;
pub mod check;
pub mod kernel;

mod adapters;
mod areas;
mod attention;
mod batch;
mod compile;
mod driver;
mod executor;
mod launcher;
mod linears;
mod memory;
mod outcome;
mod packing;
mod pass;
mod sections;
mod series;
mod single;
mod split;
mod staging;
mod weights;

pub use adapters::{RANK_MAX, adapter_bytes};
pub use areas::Limits;
pub use driver::Driver;
pub use executor::{Config, Executor};
pub use launcher::{Buffer, DeviceError, Launch, Launcher};
pub use memory::MemoryPlan;
pub use outcome::Outcome;
pub use pass::page_bytes;
pub use single::Single;
