//! Keys and values of the positions before one: computed by the executor, which is fast, and read from its pages.

use cpu::{Config, Executor, PAGE, Pages, Segment, Wanted};
use exact::Isa;
use model::{Adapter, Model};
use std::sync::Arc;

/// Keys and values by position and layer, as layer digests hash them.
#[derive(Clone, Debug, Default)]
pub struct History {
    rows: Vec<Vec<Vec<u8>>>,
}

impl History {
    /// Positions there are.
    pub fn positions(&self) -> usize {
        self.rows.len()
    }

    /// Keys and values of a position in a layer.
    pub fn row(&self, position: usize, layer: usize) -> Option<&[u8]> {
        self.rows.get(position)?.get(layer).map(Vec::as_slice)
    }

    /// Appends a position's layers.
    pub fn push(&mut self, layers: Vec<Vec<u8>>) {
        self.rows.push(layers);
    }

    /// The same with one byte of a position's keys or values changed, as whoever forges a past would.
    pub fn forged(mut self, position: usize, layer: usize, byte: usize) -> History {
        self.rows[position][layer][byte] ^= 1;
        self
    }
}

/// A model, perhaps with an adapter, and how to run it.
#[derive(Clone)]
pub struct Run<'a> {
    /// Base.
    pub model: Arc<Model>,
    /// Added to its linear maps.
    pub adapter: Option<&'a Adapter>,
    /// Instruction set.
    pub isa: Isa,
    /// Threads that compute.
    pub threads: usize,
}

impl Run<'_> {
    /// Keys and values of all of `tokens`. An error if threads cannot be started.
    pub fn history(&self, tokens: &[u32]) -> std::io::Result<History> {
        let config = Config { threads: self.threads, isa: self.isa, trace: false };
        let mut executor = Executor::new(self.model.clone(), config)?;
        let count = tokens.len().div_ceil(PAGE);
        let mut pages = Pages::new(&self.model.shape, count);
        let ids: Vec<u32> = (0..count as u32).collect();
        for (number, chunk) in tokens.chunks(256).enumerate() {
            let (start, adapter) = (number * 256, self.adapter);
            let segment = Segment { tokens: chunk, start, pages: &ids, adapter, wanted: Wanted::None };
            executor.step(&mut pages, &[segment]);
        }
        let layers = |position: usize| {
            let row = |layer| pages.row((position / PAGE) as u32, layer, position % PAGE);
            (0..self.model.shape.layers).map(row).collect()
        };
        Ok(History { rows: (0..tokens.len()).map(layers).collect() })
    }
}
