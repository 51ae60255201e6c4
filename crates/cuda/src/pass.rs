//! One pass over the plan as a series of launches. The series depends only on [`Extent`], so it can be recorded once and
//! replayed with other tables.

use crate::areas::{Area, Areas};
use crate::arguments::{Embed, Prepare};
use crate::batch::Heads;
use crate::kernel::{self, Kernel};
use crate::launcher::{DeviceError, Launch, Launcher};
use crate::sections::{Section, Source};
use crate::weights::DeviceWeights;
use bytemuck::Pod;
use exact::Activations;
use exact::spread::spread_block;
use model::{Plan, Register, Shape};

/// Upper bounds of a pass: what the grids are made for. The header on the device holds the counts themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) head_rows: usize,
    pub(crate) tiles: usize,
    pub(crate) head_tiles: usize,
    pub(crate) few_tiles: usize,
    pub(crate) many_tiles: usize,
    /// Spans of 1,024 positions that single tokens may see.
    pub(crate) spans: usize,
}

/// What every launch of a pass may need.
pub(crate) struct Pass<'a, L: Launcher> {
    pub(crate) launcher: &'a mut L,
    pub(crate) shape: &'a Shape,
    pub(crate) plan: &'a Plan,
    pub(crate) activations: Activations,
    pub(crate) weights: &'a DeviceWeights,
    pub(crate) areas: &'a Areas,
    pub(crate) heads: Heads,
    /// Address of the first page.
    pub(crate) pages: u64,
    pub(crate) page_bytes: usize,
    pub(crate) extent: Extent,
    pub(crate) shared_max: usize,
}

/// Up to this many rows a block of more threads prepares each, if it is wider than their number: most multiprocessors
/// have one row at most.
const FEW_ROWS: usize = 128;

/// The kernel that prepares so many rows of a width.
pub(crate) fn preparing(rows: usize, width: usize) -> Kernel {
    let few = kernel::PREPARE_FEW;
    if rows <= FEW_ROWS && width > few.threads as usize { few } else { kernel::PREPARE }
}

/// Bytes of shared memory for a row that is being prepared: its values lie anywhere within groups of 32.
pub(crate) fn row_bytes(width: usize) -> usize {
    width.next_multiple_of(32) * 4
}

/// Bytes of one head's keys and values of one page and layer: see heads.cu.
pub(crate) fn block_bytes(head_dim: usize) -> usize {
    head_dim.div_ceil(64) * 4096 + head_dim.div_ceil(16) * 1024 + 512
}

/// Bytes of one page of 64 positions on a device.
pub fn page_bytes(shape: &Shape) -> usize {
    block_bytes(shape.head_dim) * shape.key_heads * shape.layers
}

impl<L: Launcher> Pass<'_, L> {
    /// The whole pass.
    pub(crate) fn run(&mut self, sections: &[Section]) -> Result<(), DeviceError> {
        for section in sections {
            match section {
                Section::Embed => self.embed()?,
                Section::Prepare { source, keep } => self.prepare(*source, *keep)?,
                Section::Linear(targets) => self.linear(targets)?,
                Section::Attend { layer, query_norm, key_norm } => self.attend(*layer, *query_norm, *key_norm)?,
                Section::Experts { mixture } => self.experts(*mixture)?,
            }
        }
        if self.areas.limits.trace {
            self.leaves()?;
        }
        if self.extent.head_rows > 0 { self.head() } else { Ok(()) }
    }

    pub(crate) fn at(&self, area: Area) -> u64 {
        self.areas.at(area)
    }

    pub(crate) fn launch<T: Pod>(
        &mut self,
        kernel: Kernel,
        grid: [usize; 3],
        shared: usize,
        arguments: &T,
    ) -> Result<(), DeviceError> {
        let grid = grid.map(|n| n as u32);
        let arguments = bytemuck::bytes_of(arguments).to_vec();
        self.launcher.launch(Launch { kernel, grid, shared: shared as u32, arguments })
    }

    pub(crate) fn register(&self, register: Register) -> u64 {
        self.at(match register {
            Register::Residual => Area::Residual,
            Register::Normed => Area::Normed,
            Register::Query => Area::Query,
            Register::Key => Area::Key,
            Register::Value => Area::Value,
            Register::Mixed => Area::Mixed,
            Register::Gate | Register::Inner => Area::Gate,
            Register::Up => Area::Up,
            Register::Update => Area::Update,
            Register::Logits => Area::Logits,
        })
    }

    fn embed(&mut self) -> Result<(), DeviceError> {
        let arguments = Embed {
            header: self.at(Area::Header),
            rows: self.at(Area::Rows),
            table: self.weights.embedding,
            out: self.at(Area::Residual),
            width: self.shape.hidden as u32,
            brain: u32::from(self.weights.brain),
        };
        self.launch(kernel::EMBED, [self.extent.rows, 1, 1], 0, &arguments)
    }

    fn prepare(&mut self, source: Source, keep: bool) -> Result<(), DeviceError> {
        let mut arguments = Prepare { slots: 1, ..Prepare::default() };
        let width = match source {
            Source::Norm { norm, add } => {
                arguments.residual = self.at(Area::Residual);
                arguments.update = if add { self.at(Area::Update) } else { 0 };
                arguments.weight = self.weights.norms[norm];
                arguments.spread_out = if keep { self.at(Area::Normed) } else { 0 };
                self.shape.hidden
            }
            Source::Mixed => {
                arguments.source = self.at(Area::Mixed);
                self.shape.heads * self.shape.head_dim
            }
            Source::Gated { width } => {
                arguments.source = self.at(Area::Gate);
                arguments.up = self.at(Area::Up);
                width
            }
        };
        arguments.out = self.areas.input(width);
        self.prepare_rows(arguments, width, self.extent.rows)
    }

    pub(crate) fn prepare_rows(
        &mut self,
        mut arguments: Prepare,
        width: usize,
        bound: usize,
    ) -> Result<(), DeviceError> {
        arguments.header = self.at(Area::Header);
        arguments.rows = self.at(Area::Rows);
        arguments.failed = self.at(Area::Failed);
        arguments.width = width as u32;
        arguments.block = if self.shape.spread { spread_block(width) as u32 } else { 1 };
        arguments.eps = self.shape.norm_eps;
        let fits = row_bytes(width) <= self.shared_max;
        arguments.scratch = if fits { 0 } else { self.at(Area::Scratch) };
        self.launch(preparing(bound, width), [bound, 1, 1], if fits { row_bytes(width) } else { 0 }, &arguments)
    }
}
