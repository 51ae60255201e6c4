//! A pass as a series of launches: run, or recorded once and replayed with other tables.

use crate::areas::{Area, Limits};
use crate::arguments::Header;
use crate::batch::Batch;
use crate::executor::Executor;
use crate::launcher::{DeviceError, Launcher};
use crate::pass::{Extent, Pass};
use cpu::{PAGE, Segment};

/// The most rows of a recorded step.
const GRAPH_ROWS: usize = 256;
/// Positions of a span.
const SPAN: usize = PAGE * exact::attention::SPAN_BLOCKS;

impl<L: Launcher> Executor<L> {
    /// One pass: uploads the tables, then launches or replays.
    pub(crate) fn pass(&mut self, segments: &[Segment<'_>]) -> Result<Batch, DeviceError> {
        self.adapters.next_step();
        let mut tables = Vec::with_capacity(segments.len());
        for segment in segments {
            tables.push(match segment.adapter {
                Some(adapter) => self.adapters.table(&mut self.launcher, adapter)?,
                None => 0,
            });
        }
        self.launcher.join_aside()?;
        let batch = Batch::new(segments, &tables, self.heads);
        self.extend_rotary(batch.positions)?;
        self.upload(&batch)?;
        let mut extent = Extent {
            rows: batch.rows.len(),
            head_rows: batch.head_rows.len(),
            tiles: batch.tiles.len(),
            head_tiles: batch.head_tiles.len(),
            few_tiles: batch.few_tiles.len(),
            many_tiles: batch.many_tiles.len(),
            spans: batch.positions.div_ceil(SPAN),
        };
        let fits = |extent: &Extent| extent.spans == 1 || extent.few_tiles * extent.spans <= self.part_units();
        if self.graphs && batch.decoding && extent.rows <= GRAPH_ROWS.min(self.areas.limits.rows) {
            let rounded = round_up(extent, self.areas.limits);
            if fits(&rounded) {
                self.replay(rounded)?;
                return Ok(batch);
            }
        }
        if !fits(&extent) {
            // Tiles of both kinds lie one after another, so all may count as longer segments'.
            (extent.many_tiles, extent.few_tiles) = (extent.many_tiles + extent.few_tiles, 0);
            let header = Header { few_tiles: 0, many_tiles: extent.many_tiles as u32, ..batch.header };
            self.launcher.write(self.areas.at(Area::Header), bytemuck::bytes_of(&header))?;
        }
        self.run(extent)?;
        Ok(batch)
    }

    /// Query tiles times spans that the memory for parts holds.
    fn part_units(&self) -> usize {
        self.areas.bytes(Area::PartSums) / 64 / (self.shape.key_heads * self.heads.splits)
    }

    fn replay(&mut self, extent: Extent) -> Result<(), DeviceError> {
        let adapters = u64::from(extent.tiles > 0) | u64::from(extent.head_tiles > 0) << 1;
        let key =
            (extent.spans as u64) << 32 | (extent.rows as u64) << 8 | adapters << 1 | u64::from(extent.head_rows > 0);
        if self.launcher.replay(key)? {
            return Ok(());
        }
        let Err(error) = self.record(extent, key) else {
            if self.launcher.replay(key)? {
                return Ok(());
            }
            return Err(DeviceError::Unsupported("a step was recorded and is not there".to_owned()));
        };
        // What cannot be recorded is launched kernel by kernel, now and from now on: slower, and no less right.
        tracing::warn!("decoding steps are not recorded, and run slower: {error}");
        self.launcher.forget();
        self.graphs = false;
        self.unrecorded = Some(error);
        self.run(extent)
    }

    fn record(&mut self, extent: Extent, key: u64) -> Result<(), DeviceError> {
        self.launcher.record()?;
        let recorded = self.run(extent);
        // Recording ends whatever came of it; the first error is the one that says why.
        let kept = self.launcher.keep(key);
        recorded.and(kept)
    }

    fn run(&mut self, extent: Extent) -> Result<(), DeviceError> {
        let shared_max = self.launcher.shared_max() as usize;
        let mut pass = Pass {
            launcher: &mut self.launcher,
            shape: &self.shape,
            plan: &self.plan,
            activations: self.activations,
            weights: &self.weights,
            areas: &self.areas,
            heads: self.heads,
            pages: self.pages.address,
            page_bytes: self.memory.page_bytes,
            extent,
            shared_max,
        };
        pass.run(&self.sections)
    }

    fn upload(&mut self, batch: &Batch) -> Result<(), DeviceError> {
        let zeros = vec![0u8; batch.rows.len() * 4];
        let tiles = [&batch.few_tiles[..], &batch.many_tiles].concat();
        let tables: [(Area, &[u8]); 8] = [
            (Area::Header, bytemuck::bytes_of(&batch.header)),
            (Area::Failed, &zeros),
            (Area::Rows, bytemuck::cast_slice(&batch.rows)),
            (Area::QueryTiles, bytemuck::cast_slice(&tiles)),
            (Area::Tiles, bytemuck::cast_slice(&batch.tiles)),
            (Area::HeadTiles, bytemuck::cast_slice(&batch.head_tiles)),
            (Area::HeadRows, bytemuck::cast_slice(&batch.head_rows)),
            (Area::PageIds, bytemuck::cast_slice(&batch.page_ids)),
        ];
        for (area, bytes) in tables.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            self.launcher.write(self.areas.at(area), bytes)?;
        }
        Ok(())
    }

    /// Makes sure that cosines and sines of positions below `positions` are on the device.
    fn extend_rotary(&mut self, positions: usize) -> Result<(), DeviceError> {
        if positions <= self.rotary_positions {
            return Ok(());
        }
        let (from, to) =
            (self.rotary_positions, positions.next_power_of_two().max(1024).min(self.areas.limits.positions));
        let pairs = self.shape.rotary.inverse_frequencies.len();
        let (mut cosines, mut sines) = (vec![0.0f32; (to - from) * pairs], vec![0.0f32; (to - from) * pairs]);
        for (i, (cos, sin)) in cosines.chunks_exact_mut(pairs).zip(sines.chunks_exact_mut(pairs)).enumerate() {
            self.shape.rotary.at(from + i, cos, sin);
        }
        let at = (from * pairs * 4) as u64;
        self.launcher.write(self.areas.at(Area::Cosines) + at, bytemuck::cast_slice(&cosines))?;
        self.launcher.write(self.areas.at(Area::Sines) + at, bytemuck::cast_slice(&sines))?;
        self.rotary_positions = to;
        Ok(())
    }
}

/// The bounds of a recorded step that serves this one: rows and spans rounded up, tables' sizes taken from rows.
fn round_up(extent: Extent, limits: Limits) -> Extent {
    let rows = extent.rows.next_power_of_two().min(limits.rows);
    let some = |count: usize, most: usize| if count > 0 { most } else { 0 };
    Extent {
        rows,
        head_rows: some(extent.head_rows, rows.min(limits.logit_rows)),
        tiles: some(extent.tiles, rows),
        head_tiles: some(extent.head_tiles, rows.min(limits.logit_rows)),
        few_tiles: rows,
        many_tiles: 0,
        spans: extent.spans.next_power_of_two(),
    }
}
