//! Takes a tile of positions through the plan, with the outputs of linear maps given by somebody: by weights when an opening is
//! made, by the opening when it is checked. Everything else is computed here, for both.
//!
//! A position passes through everything between two attentions on one thread, while it is in that thread's cache.

use crate::light::attend::{self, Scratch, Store, lock};
use crate::light::row::{Desk, Products, Row, Setting};
use cpu::Pool;
use model::Op;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Positions that go through the plan together.
pub(crate) const TILE: usize = 32;

/// Threads, their memory, and keys and values so far.
pub(crate) struct Walk {
    pool: Pool,
    pub(crate) store: Store,
    desks: Vec<Mutex<Desk>>,
    scratch: Vec<Mutex<Scratch>>,
}

impl Walk {
    /// For an answer of so many positions.
    pub(crate) fn new(with: Setting<'_>, threads: usize, positions: usize) -> std::io::Result<Walk> {
        let pool = Pool::new(threads)?;
        let desks = (0..pool.threads()).map(|_| Mutex::default()).collect();
        let scratch = (0..pool.threads()).map(|_| Mutex::default()).collect();
        Ok(Walk { pool, store: Store::new(with.frame.shape(), positions), desks, scratch })
    }

    /// Threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Whether all numbers below `count` are such; the threads share them.
    pub(crate) fn all(&mut self, count: usize, such: impl Fn(usize) -> bool + Sync) -> bool {
        let found = AtomicUsize::new(0);
        self.pool.each(count, |_, number| {
            found.fetch_add(usize::from(such(number)), Ordering::Relaxed);
        });
        found.into_inner() == count
    }

    /// Takes consecutive positions through the plan's body, and each to `then` when its last operation is done.
    pub(crate) fn tile(
        &mut self,
        with: Setting<'_>,
        rows: &mut [Row],
        products: &dyn Products,
        then: &(dyn Fn(usize, &mut Desk) + Sync),
    ) {
        let (shape, mut ops) = (with.frame.shape(), &with.frame.plan.body[..]);
        loop {
            let end = ops.iter().position(|op| matches!(op, Op::Attend { .. }));
            let (run, rest) = ops.split_at(end.unwrap_or(ops.len()));
            let layer = rest.first().and_then(|op| if let Op::Attend { layer } = op { Some(*layer) } else { None });
            {
                let writer = layer.map(|layer| self.store.writer(layer));
                let desks = &self.desks;
                let cells: Vec<Mutex<&mut Row>> = rows.iter_mut().map(Mutex::new).collect();
                self.pool.each(cells.len(), |thread, number| {
                    let row = &mut **lock(&cells[number]);
                    let position = row.position;
                    lock(&desks[thread]).with(thread, row, |desk| {
                        desk.run(with, products, run);
                        match &writer {
                            Some(writer) => {
                                writer.write(position, desk.store(with.isa, shape));
                            }
                            None => then(number, desk),
                        }
                    });
                });
            }
            let Some(layer) = layer else { return };
            attend::run(with.isa, &mut self.pool, shape, &self.store, layer, rows, &self.scratch);
            ops = &rest[1..];
        }
    }
}
