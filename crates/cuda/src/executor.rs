//! Runs a plan on a batch, on a device.

use crate::adapters::Adapters;
use crate::areas::{Area, Areas, Limits, Sizes};
use crate::attention;
use crate::batch::{Batch, Heads};
use crate::launcher::{Buffer, DeviceError, Launcher};
use crate::memory::{MemoryPlan, Wishes, plan};
use crate::outcome::{Logits, Outcome};
use crate::pass::page_bytes;
use crate::sections::{Section, sections};
use crate::split::{Piece, passes};
use crate::weights::{Contents, DeviceWeights};
use cpu::{Hash, PAGE, Segment};
use exact::Activations;
use model::{Adapter, Model, Plan, Shape};
use std::collections::VecDeque;

/// How an executor runs. Nothing here changes a bit of any result.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether each step returns the trace's leaves.
    pub trace: bool,
    /// The most rows of one pass; larger steps take several. Fewer if memory is short.
    pub rows: usize,
    /// The most rows of logits kept on the device.
    pub logit_rows: usize,
    /// The most positions of a sequence; the model's context if that is less.
    pub positions: usize,
    /// Pages; none takes what memory is left.
    pub pages: Option<usize>,
    /// Bytes for adapters; none lets the memory plan decide.
    pub adapter_bytes: Option<usize>,
    /// Whether decoding steps are recorded once and replayed.
    pub graphs: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            trace: true,
            rows: 2048,
            logit_rows: 256,
            positions: 131_072,
            pages: None,
            adapter_bytes: None,
            graphs: true,
        }
    }
}

/// Bytes for spans that are joined later (see attend_few.cu): at least and at most, between them a part of what is free.
const PART_BYTES: [usize; 2] = [64 << 20, 1 << 30];
const PART_SHARE: usize = 128;

/// Executes one model's plan on one device, with the memory that takes.
pub struct Executor<L: Launcher> {
    pub(crate) launcher: L,
    pub(crate) shape: Shape,
    pub(crate) plan: Plan,
    pub(crate) activations: Activations,
    pub(crate) sections: Vec<Section>,
    pub(crate) weights: DeviceWeights,
    pub(crate) areas: Areas,
    pub(crate) adapters: Adapters,
    pub(crate) pages: Buffer,
    pub(crate) memory: MemoryPlan,
    pub(crate) heads: Heads,
    pub(crate) graphs: bool,
    /// Why a step could not be recorded.
    pub(crate) unrecorded: Option<DeviceError>,
    /// Positions whose cosines and sines are on the device.
    pub(crate) rotary_positions: usize,
}

impl<L: Launcher> Executor<L> {
    /// An executor for `model`, its weights copied to the device.
    ///
    /// # Errors
    /// The device has too little memory, or the model is beyond what the kernels take.
    pub fn new(launcher: L, model: &Model, config: Config) -> Result<Self, DeviceError> {
        Executor::build(launcher, &model.shape, &model.plan, model.activations, &Contents::Model(model), config)
    }

    /// An executor for weights without meaning of some shape: for measurements.
    pub fn noise(launcher: L, shape: &Shape, activations: Activations, config: Config) -> Result<Self, DeviceError> {
        let mut word = 1u32;
        let noise = (0..64 << 20).map(|_| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as i8
        });
        let contents = Contents::Noise(noise.collect());
        Executor::build(launcher, shape, &Plan::new(shape), activations, &contents, config)
    }

    fn build(
        mut launcher: L,
        shape: &Shape,
        forward: &Plan,
        activations: Activations,
        contents: &Contents<'_>,
        config: Config,
    ) -> Result<Self, DeviceError> {
        attention::check(shape)?;
        let free = launcher.memory()?.0;
        let page_bytes = page_bytes(shape);
        let limits = Limits {
            rows: config.rows.max(1),
            logit_rows: config.logit_rows.clamp(1, config.rows.max(1)),
            positions: config.positions.min(shape.context).next_multiple_of(PAGE),
            part_bytes: (free / PART_SHARE).clamp(PART_BYTES[0], PART_BYTES[1]),
            trace: config.trace,
        };
        let shared_max = launcher.shared_max() as usize;
        let sizes = |limits| Sizes { shape, plan: forward, activations, limits, shared_max };
        let wishes = Wishes { pages: config.pages, adapter_bytes: config.adapter_bytes };
        let mut memory = plan(free, DeviceWeights::bytes_of(shape, forward), page_bytes, sizes(limits), wishes)?;
        let mut weights = DeviceWeights::new(&mut launcher, shape, forward, contents)?;
        let placed = place(&mut launcher, &mut memory, sizes);
        let (areas, pages) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                weights.free(&mut launcher);
                return Err(error);
            }
        };
        Ok(Executor {
            launcher,
            shape: shape.clone(),
            plan: forward.clone(),
            activations,
            sections: sections(forward),
            weights,
            areas,
            adapters: Adapters::new(memory.adapters),
            pages,
            memory,
            heads: Heads::new(shape),
            graphs: config.graphs,
            unrecorded: None,
            rotary_positions: 0,
        })
    }

    /// How memory was divided.
    pub fn memory(&self) -> &MemoryPlan {
        &self.memory
    }

    /// Whether decoding steps are recorded and replayed: not if that was not asked for, or failed once.
    pub fn records(&self) -> bool {
        self.graphs
    }

    /// Why the first step that could not be recorded could not.
    pub fn unrecorded(&self) -> Option<&DeviceError> {
        self.unrecorded.as_ref()
    }

    /// The device.
    pub fn launcher(&mut self) -> &mut L {
        &mut self.launcher
    }

    /// Adapters on the device, and their bytes.
    pub fn adapters(&self) -> (usize, usize) {
        self.adapters.resident()
    }

    /// Copies an adapter to the device beside the work under way, so that no later step has to wait for it.
    pub fn prefetch(&mut self, adapter: &Adapter) -> Result<(), DeviceError> {
        self.adapters.table(&mut self.launcher, adapter).map(|_| ())
    }

    /// Gives an adapter's memory back; a later step that names it brings it again.
    pub fn evict(&mut self, digest: &[u8; 32]) {
        self.adapters.remove(&mut self.launcher, digest);
    }

    /// Registers adapters of meaningless integers under these digests, as many as there is room for: for measurements.
    ///
    /// # Errors
    /// There is no room for the next one; those before it are there.
    pub fn noise_adapters(&mut self, digests: &[[u8; 32]], rank: usize) -> Result<(), DeviceError> {
        self.adapters.insert_noise(&mut self.launcher, &self.plan, digests, rank)
    }

    /// A page's bytes, to keep them elsewhere.
    pub fn read_page(&mut self, page: u32) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = vec![0; self.memory.page_bytes];
        let at = self.page_address(page)?;
        // It may have been written aside just now.
        self.launcher.join_aside()?;
        self.launcher.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a page that [`Executor::read_page`] gave.
    pub fn write_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.len() != self.memory.page_bytes {
            return Err(DeviceError::Unsupported(format!(
                "a page has {} bytes, not {}",
                self.memory.page_bytes,
                bytes.len()
            )));
        }
        let at = self.page_address(page)?;
        self.launcher.write_aside(at, bytes)
    }

    fn page_address(&self, page: u32) -> Result<u64, DeviceError> {
        if page as usize >= self.memory.pages {
            return Err(DeviceError::Unsupported(format!("page {page}: there are {}", self.memory.pages)));
        }
        Ok(self.pages.address + (page as usize * self.memory.page_bytes) as u64)
    }

    /// Runs every segment's tokens through the model, writing their keys and values to its pages, and computes the
    /// logits that are wanted.
    ///
    /// Every segment needs at least one token, tokens below the vocabulary, and pages up to its last position; no two
    /// segments may write the same page.
    ///
    /// # Errors
    /// The device failed, or a segment is not as said; then nothing was computed.
    pub fn step(&mut self, segments: &[Segment<'_>]) -> Result<Outcome<'_, L>, DeviceError> {
        segments.iter().try_for_each(|segment| self.check(segment))?;
        let limits = self.areas.limits;
        let mut waiting: VecDeque<Vec<Piece>> = passes(segments, limits.rows, limits.logit_rows).into();
        let mut failed = vec![false; segments.len()];
        let mut leaves: Vec<Vec<Hash>> = vec![Vec::new(); segments.len()];
        let mut logits = Logits::Device(vec![0..0; segments.len()]);
        if waiting.len() > 1 {
            logits = Logits::Host(vec![Vec::new(); segments.len()]);
        }
        while let Some(mut pass) = waiting.pop_front() {
            let parts: Vec<Segment<'_>> = pass
                .iter()
                .map(|piece| Segment {
                    tokens: &segments[piece.segment].tokens[piece.tokens.clone()],
                    start: segments[piece.segment].start + piece.tokens.start,
                    wanted: piece.wanted,
                    ..segments[piece.segment]
                })
                .collect();
            let batch = match self.pass(&parts) {
                Err(DeviceError::Memory(_)) if pass.len() > 1 => {
                    // The adapters are not there all at once: half of the segments, then the other half.
                    let rest = pass.split_off(pass.len() / 2);
                    waiting.push_front(rest);
                    waiting.push_front(pass);
                    if let Logits::Device(_) = logits {
                        logits = Logits::Host(vec![Vec::new(); segments.len()]);
                    }
                    continue;
                }
                batch => batch?,
            };
            self.collect(&batch, &parts, |part, fails, hashes| {
                failed[pass[part].segment] |= fails;
                leaves[pass[part].segment].extend_from_slice(hashes);
            })?;
            match &mut logits {
                Logits::Device(rows) => {
                    pass.iter().zip(batch.head_part).for_each(|(piece, part)| rows[piece.segment] = part)
                }
                Logits::Host(rows) => {
                    for (piece, part) in pass.iter().zip(batch.head_part) {
                        for row in part {
                            rows[piece.segment].push(self.logits(row)?);
                        }
                    }
                }
            }
        }
        Ok(Outcome { executor: self, logits, failed, leaves })
    }

    fn check(&self, segment: &Segment<'_>) -> Result<(), DeviceError> {
        let end = segment.start + segment.tokens.len();
        let pages = end.div_ceil(PAGE);
        let wrong = if segment.tokens.is_empty() {
            "a segment has no tokens".to_owned()
        } else if segment.tokens.iter().any(|token| *token as usize >= self.shape.vocabulary) {
            "a token is not in the vocabulary".to_owned()
        } else if segment.pages.len() < pages
            || segment.pages[..pages].iter().any(|page| *page as usize >= self.memory.pages)
        {
            format!("a segment of {end} positions lacks pages")
        } else if end > self.areas.limits.positions {
            format!("a sequence of {end} positions: the executor was made for {}", self.areas.limits.positions)
        } else {
            return Ok(());
        };
        Err(DeviceError::Unsupported(wrong))
    }

    /// Waits for the pass and hands each segment's failure and leaves over.
    fn collect(
        &mut self,
        batch: &Batch,
        segments: &[Segment<'_>],
        mut take: impl FnMut(usize, bool, &[Hash]),
    ) -> Result<(), DeviceError> {
        let mut flags = vec![0u32; segments.len()];
        self.launcher.read(self.areas.at(Area::Failed), bytemuck::cast_slice_mut(&mut flags))?;
        let mut leaves: Vec<Hash> = vec![[0; 32]; if self.areas.limits.trace { batch.rows.len() } else { 0 }];
        if !leaves.is_empty() {
            self.launcher.read(self.areas.at(Area::Leaves), leaves.as_flattened_mut())?;
        }
        for (s, segment) in segments.iter().enumerate() {
            let rows = batch.first_row[s]..batch.first_row[s] + segment.tokens.len();
            take(s, flags[s] != 0, leaves.get(rows).unwrap_or(&[]));
        }
        Ok(())
    }

    /// One row of logits.
    pub(crate) fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
        let mut values = vec![0.0f32; self.shape.vocabulary];
        let at = self.areas.at(Area::Logits) + (row * self.shape.vocabulary * 4) as u64;
        self.launcher.read(at, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

impl<L: Launcher> Drop for Executor<L> {
    fn drop(&mut self) {
        self.launcher.forget();
        self.launcher.free(self.pages);
        self.areas.free(&mut self.launcher);
        self.adapters.free(&mut self.launcher);
        self.weights.free(&mut self.launcher);
    }
}

/// Takes the planned memory; what cannot be had becomes fewer rows and fewer pages.
fn place<'a, L: Launcher>(
    launcher: &mut L,
    memory: &mut MemoryPlan,
    sizes: impl Fn(Limits) -> Sizes<'a>,
) -> Result<(Areas, Buffer), DeviceError> {
    let mut areas = loop {
        match Areas::new(launcher, &sizes(memory.limits)) {
            Err(DeviceError::Memory(_)) if memory.limits.rows > 16 => {
                memory.limits.rows /= 2;
                memory.limits.logit_rows = memory.limits.logit_rows.min(memory.limits.rows);
            }
            other => break other?,
        }
    };
    loop {
        match launcher.alloc(memory.pages * memory.page_bytes) {
            Ok(pages) => return Ok((areas, pages)),
            Err(DeviceError::Memory(_)) if memory.pages > 1 => memory.pages -= memory.pages.div_ceil(8),
            Err(error) => {
                areas.free(launcher);
                return Err(error);
            }
        }
    }
}
