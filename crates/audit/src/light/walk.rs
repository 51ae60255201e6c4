//! Takes a tile of positions through the plan, with the sums of linear maps given by somebody: by weights when an opening is
//! made, by the opening when it is checked. Everything else is computed here, for both.

use crate::light::attend::{self, Scratch, Store, lock};
use crate::light::frame::Frame;
use crate::light::row::{Input, Row, scaled};
use crate::light::sections::Sections;
use crate::light::verdict::LightFault;
use cpu::Pool;
use exact::{Isa, norm, spread};
use model::{Adapter, Op, Register};
use std::sync::Mutex;

/// Sums of a section for one row, or what is wrong with them.
pub(crate) type Found = Result<Vec<i32>, LightFault>;

/// Gives the sums of linear maps.
pub(crate) trait Sums: Sync {
    /// The sums of a section's maps for some inputs, each of the position with this number in the span: map by map, plane by
    /// plane. A row that fails gets zeros.
    fn sums(&self, pool: &mut Pool, section: usize, rows: &[(usize, &Input)]) -> Vec<Found>;
}

/// Everything a walk needs.
pub(crate) struct Walk<'a> {
    pub(crate) isa: Isa,
    pub(crate) pool: Pool,
    pub(crate) frame: &'a Frame,
    pub(crate) adapter: Option<&'a Adapter>,
    pub(crate) sections: Sections,
    pub(crate) store: Store,
    pub(crate) start: usize,
    scratch: Vec<Mutex<Scratch>>,
}

impl<'a> Walk<'a> {
    /// For an answer of so many positions, of which those from `start` on are walked.
    pub(crate) fn new(
        isa: Isa,
        threads: usize,
        frame: &'a Frame,
        adapter: Option<&'a Adapter>,
        start: usize,
        positions: usize,
    ) -> std::io::Result<Walk<'a>> {
        let pool = Pool::new(threads)?;
        let scratch = (0..pool.threads()).map(|_| Mutex::default()).collect();
        let sections = Sections::new(frame.shape(), &frame.plan);
        let store = Store::new(frame.shape(), positions);
        Ok(Walk { isa, pool, frame, adapter, sections, store, start, scratch })
    }

    /// Takes consecutive positions through the plan's body. Their leaves are theirs then.
    pub(crate) fn body(&mut self, rows: &mut [Row], products: &dyn Sums) {
        let frame = self.frame;
        let mut ops = &frame.plan.body[..];
        while let Some(op) = ops.first() {
            let length = match *op {
                Op::Linear { .. } => {
                    let length = ops.iter().take_while(|op| matches!(op, Op::Linear { .. })).count();
                    self.linears(&ops[..length], rows, products);
                    length
                }
                Op::Experts { mixture } => {
                    self.experts(mixture, rows, products);
                    1
                }
                Op::Attend { layer } => {
                    self.attend(layer, rows);
                    1
                }
                _ => {
                    let alone = |op: &&Op| !matches!(op, Op::Linear { .. } | Op::Experts { .. } | Op::Attend { .. });
                    let length = ops.iter().take_while(alone).count();
                    self.alone(&ops[..length], rows);
                    length
                }
            };
            ops = &ops[length..];
        }
    }

    /// Operations that treat each position by itself.
    fn alone(&mut self, ops: &[Op], rows: &mut [Row]) {
        let (isa, frame) = (self.isa, self.frame);
        let shape = frame.shape();
        let cells: Vec<Mutex<&mut Row>> = rows.iter_mut().map(Mutex::new).collect();
        self.pool.each(cells.len(), |_, number| {
            let row = &mut **lock(&cells[number]);
            let norms = &frame.parts.norms;
            for op in ops {
                match *op {
                    Op::Norm { norm, from, to } => row.norm(isa, &norms[norm], shape.norm_eps, from, to),
                    Op::HeadNorm { norm, register } => row.head_norm(isa, &norms[norm], shape.norm_eps, register),
                    Op::Spread { register } => row.spread(isa, register),
                    Op::Quantise { from } => row.quantise(isa, from, frame.activations()),
                    Op::Rotate { register } => row.rotate(isa, shape.head_dim, &shape.rotary, register),
                    Op::Gate => row.gate(isa),
                    Op::Add => row.add(isa),
                    Op::Embed | Op::Linear { .. } | Op::Experts { .. } | Op::Attend { .. } => {}
                }
            }
        });
    }

    fn linears(&mut self, ops: &[Op], rows: &mut [Row], products: &dyn Sums) {
        let targets: Vec<(usize, Register)> = ops
            .iter()
            .filter_map(|op| if let Op::Linear { site, to } = *op { Some((site, to)) } else { None })
            .collect();
        let Some(section) = targets.first().and_then(|(site, _)| self.sections.of_site(*site)) else { return };
        let wanted: Vec<(usize, &Input)> = rows.iter().map(|row| (row.position - self.start, &row.input)).collect();
        let sums = products.sums(&mut self.pool, section, &wanted);
        self.apply(&targets, rows, sums);
    }

    fn apply(&mut self, targets: &[(usize, Register)], rows: &mut [Row], sums: Vec<Found>) {
        let (isa, frame, adapter) = (self.isa, self.frame, self.adapter);
        let cells: Vec<Mutex<(&mut Row, Found)>> = rows.iter_mut().zip(sums).map(Mutex::new).collect();
        self.pool.each(cells.len(), |_, number| {
            let (row, sums) = &mut *lock(&cells[number]);
            let all: usize = targets.iter().map(|(site, _)| frame.plan.sites[*site].outputs).sum();
            let zeros;
            let sums = match sums {
                Ok(sums) => &sums[..],
                Err(fault) => {
                    row.fail(fault.clone());
                    zeros = vec![0; all * row.input.planes.len()];
                    &zeros[..]
                }
            };
            let mut at = 0;
            for (site, to) in targets {
                let count = frame.plan.sites[*site].outputs * row.input.planes.len();
                let low_rank = adapter.and_then(|adapter| adapter.sites[*site].as_ref());
                row.linear(isa, frame, *site, *to, &sums[at..at + count], low_rank);
                at += count;
            }
        });
    }

    fn attend(&mut self, layer: usize, rows: &mut [Row]) {
        let (isa, head_dim) = (self.isa, self.frame.shape().head_dim);
        {
            let cells: Vec<Mutex<&mut Row>> = rows.iter_mut().map(Mutex::new).collect();
            self.pool.each(cells.len(), |_, number| lock(&cells[number]).store(isa, head_dim));
        }
        for row in rows.iter() {
            self.store.write(layer, row.position, &row.keys_and_values);
        }
        attend::run(isa, &mut self.pool, self.frame.shape(), &self.store, layer, rows, &self.scratch);
    }

    fn experts(&mut self, mixture: usize, rows: &mut [Row], products: &dyn Sums) {
        let (isa, frame) = (self.isa, self.frame);
        let shape = frame.shape();
        let mixtures = shape.mlps.iter().filter_map(|mlp| match *mlp {
            model::Mlp::Experts { experts, chosen, renormalise, .. } => Some((experts, chosen, renormalise)),
            model::Mlp::Gated { .. } => None,
        });
        let Some((experts, chosen, renormalise)) = mixtures.clone().nth(mixture) else { return };
        for row in rows.iter_mut() {
            let route = frame.parts.routers[mixture].route(isa, row.get(Register::Normed), chosen, renormalise);
            row.choices = route.unwrap_or_else(|_| {
                row.fail(LightFault::NotFinite);
                vec![]
            });
            row.get_mut(Register::Update).clear();
            row.get_mut(Register::Update).resize(shape.hidden, 0.0);
        }
        for expert in 0..experts {
            let weight = |row: &Row| row.choices.iter().position(|choice| choice.expert as usize == expert);
            let using: Vec<usize> = (0..rows.len()).filter(|number| weight(&rows[*number]).is_some()).collect();
            if using.is_empty() {
                continue;
            }
            let scales = &frame.parts.experts[mixture][expert];
            let first = self.sections.of_expert(mixture, expert, false);
            let wanted: Vec<_> = using.iter().map(|n| (rows[*n].position - self.start, &rows[*n].input)).collect();
            let sums = products.sums(&mut self.pool, first, &wanted);
            let mut inner = vec![];
            for (number, sums) in using.iter().zip(sums) {
                inner.push(inner_row(isa, frame, &mut rows[*number], &scales[..2], sums));
            }
            let wanted: Vec<_> = using.iter().zip(&inner).map(|(n, i)| (rows[*n].position - self.start, i)).collect();
            let sums = products.sums(&mut self.pool, first + 1, &wanted);
            for ((number, sums), inner) in using.iter().zip(sums).zip(&inner) {
                let row = &mut rows[*number];
                let sums = sums.unwrap_or_else(|fault| {
                    row.fail(fault);
                    vec![0; shape.hidden * inner.planes.len()]
                });
                let mut d = vec![];
                scaled(inner, &scales[2], &sums, &mut d);
                if let Some(at) = weight(row) {
                    let weight = row.choices[at].weight;
                    norm::add_weighted(isa, row.get_mut(Register::Update), &d, weight, at == 0);
                }
            }
        }
    }

    /// Logits of positions that went through the body.
    pub(crate) fn head(&mut self, rows: &mut [Row], products: &dyn Sums) {
        let wanted: Vec<(usize, &Input)> = rows.iter().map(|row| (row.position - self.start, &row.input)).collect();
        let sums = products.sums(&mut self.pool, self.sections.head(), &wanted);
        self.apply(&[(self.frame.plan.head, Register::Logits)], rows, sums);
    }
}

/// The quantised row between an expert's maps.
fn inner_row(isa: Isa, frame: &Frame, row: &mut Row, scales: &[Vec<f32>], sums: Result<Vec<i32>, LightFault>) -> Input {
    let (width, planes) = (scales[0].len(), row.input.planes.len());
    let sums = sums.unwrap_or_else(|fault| {
        row.fail(fault);
        vec![0; 2 * width * planes]
    });
    let (mut gate, mut up) = (vec![], vec![]);
    scaled(&row.input, &scales[0], &sums[..width * planes], &mut gate);
    scaled(&row.input, &scales[1], &sums[width * planes..], &mut up);
    let mut inner = vec![0.0f32; width];
    norm::gated(isa, &gate, &up, &mut inner);
    if frame.shape().spread {
        spread::spread(isa, &mut inner);
    }
    Input::quantise(isa, &inner, frame.activations()).unwrap_or_else(|| {
        row.fail(LightFault::NotFinite);
        Input::quantise(isa, &vec![0.0; width], frame.activations()).unwrap_or_default()
    })
}
