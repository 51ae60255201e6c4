//! Runs a plan on a batch.

use crate::attention::{AttentionScratch, AttentionSection, Tiles, pages_used};
use crate::batch::{Group, Layout, Segment, Wanted};
use crate::experts::{self, ExpertScratch, ExpertWorkspace};
use crate::failures::Failures;
use crate::linears::{self, LinearScratch, LinearWorkspace, Outputs, Target, lock};
use crate::pages::{Pages, PagesView};
use crate::pool::Pool;
use crate::registers::Registers;
use crate::rows::{RotaryTable, RowScratch, RowSection};
use crate::trace::{Due, Hash, Trace};
use exact::adjust::{Choice, sample_under};
use exact::logprob::{Logprobs, logprobs};
use exact::quantise::Quantised;
use exact::sample::Sampling;
use exact::{Activations, Isa, NotFinite};
use model::{Model, Op, Register};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// How an executor runs. Nothing here changes a bit of any result.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads that compute.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// Whether each step returns the trace's leaves.
    pub trace: bool,
}

/// Executes one model's plan, with the buffers and threads that takes.
pub struct Executor {
    model: Arc<Model>,
    config: Config,
    pool: Pool,
    registers: Registers,
    input: Quantised,
    head_input: Quantised,
    queries: Quantised,
    table: RotaryTable,
    trace: Trace,
    linears: LinearScratch,
    experts: ExpertScratch,
    threads: Threads,
}

/// Memory of each thread, locked for the time of a unit and never contended.
struct Threads {
    rows: Vec<Mutex<RowScratch>>,
    attention: Vec<Mutex<AttentionScratch>>,
    products: Vec<Mutex<LinearWorkspace>>,
    experts: Vec<Mutex<ExpertWorkspace>>,
}

/// A token to draw after a step.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The segment whose last logits it is drawn from.
    pub segment: usize,
    /// How.
    pub sampling: Sampling,
    /// Under what penalties and masks.
    pub choice: Choice<'a>,
    /// Tokens before it.
    pub position: u64,
}

/// What a step produced.
pub struct Outcome<'a> {
    registers: &'a Registers,
    pool: &'a mut Pool,
    isa: Isa,
    logit_rows: Vec<Range<usize>>,
    /// By segment: whether a value was not finite. Its logits mean nothing then.
    pub failed: Vec<bool>,
    /// By segment, the trace's leaf of each token; empty without tracing.
    pub leaves: Vec<Vec<Hash>>,
    /// By mixture and row of the batch, the experts chosen: for whoever compares routes.
    pub routes: Vec<Vec<Vec<u32>>>,
}

impl Outcome<'_> {
    /// The logits a segment asked for, one slice per token.
    pub fn logits(&self, segment: usize) -> impl ExactSizeIterator<Item = &[f32]> {
        self.logit_rows[segment].clone().map(|row| self.registers.logits(row))
    }

    /// Draws tokens, each from the last logits of its segment.
    pub fn draw(&mut self, draws: &[Draw<'_>]) -> Vec<Result<u32, NotFinite>> {
        let last = |draw: &Draw<'_>| self.logit_rows[draw.segment].len().saturating_sub(1);
        let rows: Vec<usize> = draws.iter().map(last).collect();
        let draws: Vec<(Draw<'_>, usize)> = draws.iter().copied().zip(rows).collect();
        self.draw_at(&draws)
    }

    /// Draws tokens, each from the logits of its segment that are numbered beside it, counted from the segment's first.
    pub fn draw_at(&mut self, draws: &[(Draw<'_>, usize)]) -> Vec<Result<u32, NotFinite>> {
        let drawn: Vec<Mutex<Result<u32, NotFinite>>> = draws.iter().map(|_| Mutex::new(Err(NotFinite))).collect();
        let (registers, rows, isa) = (self.registers, &self.logit_rows, self.isa);
        self.pool.each(draws.len(), |_, i| {
            let (draw, number) = &draws[i];
            if let Some(row) = rows[draw.segment].clone().nth(*number) {
                *lock(&drawn[i]) =
                    sample_under(isa, registers.logits(row), &draw.sampling, &draw.choice, draw.position);
            }
        });
        drawn.into_iter().map(|token| token.into_inner().unwrap_or(Err(NotFinite))).collect()
    }

    /// How likely tokens were: segment, number of its logits counted from the first, token, and how many of the likeliest.
    pub fn logprobs(&mut self, asked: &[(usize, usize, u32, usize)]) -> Vec<Result<Logprobs, NotFinite>> {
        let found: Vec<Mutex<Result<Logprobs, NotFinite>>> = asked.iter().map(|_| Mutex::new(Err(NotFinite))).collect();
        let (registers, rows, isa) = (self.registers, &self.logit_rows, self.isa);
        self.pool.each(asked.len(), |_, i| {
            let (segment, number, token, top) = asked[i];
            if let Some(row) = rows[segment].clone().nth(number) {
                *lock(&found[i]) = logprobs(isa, registers.logits(row), token, top);
            }
        });
        found.into_iter().map(|logprobs| logprobs.into_inner().unwrap_or(Err(NotFinite))).collect()
    }
}

impl Executor {
    /// An executor for `model`.
    pub fn new(model: Arc<Model>, config: Config) -> std::io::Result<Executor> {
        fn each<T: Default>(threads: usize) -> Vec<Mutex<T>> {
            (0..threads).map(|_| Mutex::default()).collect()
        }
        let pool = Pool::new(config.threads)?;
        let n = pool.threads();
        Ok(Executor {
            registers: Registers::new(&model.shape),
            input: Quantised::new(model.activations),
            head_input: Quantised::new(model.activations),
            queries: Quantised::new(Activations::A16),
            table: RotaryTable::default(),
            trace: Trace::default(),
            linears: LinearScratch::default(),
            experts: ExpertScratch::default(),
            threads: Threads { rows: each(n), attention: each(n), products: each(n), experts: each(n) },
            pool,
            model,
            config,
        })
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Runs every segment's tokens through the model, writing their keys and values to `pages`, and computes the logits
    /// that are wanted.
    ///
    /// Every segment needs at least one token, tokens below the vocabulary, and pages up to its last position; no two
    /// segments may write the same page.
    pub fn step(&mut self, pages: &mut Pages, segments: &[Segment<'_>]) -> Outcome<'_> {
        let model = self.model.clone();
        let layout = Layout::new(segments);
        let rows = layout.rows();
        let head = HeadRows::new(&layout);
        let end = segments.iter().map(|s| s.start + s.tokens.len()).max().unwrap_or(0);
        self.table.extend(&model.shape.rotary, end);
        self.registers.reserve(rows, head.rows.len());
        let tiles = Tiles::new(&model.shape, &layout);
        self.queries.reshape(tiles.rows(), model.shape.head_dim, Activations::A16);
        if self.config.trace {
            self.trace.begin(&model.shape, &layout);
        }
        let used = segments.iter().flat_map(|s| s.pages[..pages_used(s.start, s.tokens.len())].iter().copied());
        let pages = pages.view(used);
        let failures = Failures::new(segments.len());
        let mut routes = Vec::new();
        let step = StepContext { model: &model, layout: &layout, tiles: &tiles, pages: &pages, failures: &failures };
        let mut ops = &model.plan.body[..];
        while let Some(op) = ops.first() {
            let length = match op {
                Op::Linear { .. } => self.linear_section(&step, ops),
                Op::Experts { mixture } => {
                    let choices = experts::run(
                        self.config.isa,
                        &mut self.pool,
                        &model.weights.mixtures[*mixture],
                        model.shape.spread,
                        &self.input,
                        self.registers.view(),
                        &layout.segment_of,
                        &failures,
                        &mut self.experts,
                        &self.threads.experts,
                    );
                    routes.push(choices.iter().map(|row| row.iter().map(|c| c.expert).collect()).collect());
                    1
                }
                _ => {
                    let length = row_run(ops);
                    self.row_section(&step, &ops[..length]);
                    if let Op::Attend { layer } = ops[length - 1] {
                        self.attention_section(&step, layer);
                    }
                    length
                }
            };
            ops = &ops[length..];
        }
        let leaves = if self.config.trace { self.leaves(&layout) } else { vec![Vec::new(); segments.len()] };
        self.head_section(&step, &head);
        Outcome {
            registers: &self.registers,
            pool: &mut self.pool,
            isa: self.config.isa,
            logit_rows: head.of_segment,
            failed: failures.into_flags(),
            leaves,
            routes,
        }
    }

    fn row_section(&mut self, step: &StepContext<'_>, ops: &[Op]) {
        let rows = step.layout.rows();
        for op in ops {
            if let Op::Quantise { from } = op {
                let width = self.registers.view().width(*from);
                self.input.reshape(rows, width, step.model.activations);
            }
        }
        let trace = match ops.last() {
            Some(Op::Attend { layer }) if self.config.trace => Some(self.trace.layer(*layer)),
            _ => None,
        };
        let section = RowSection {
            isa: self.config.isa,
            model: step.model,
            layout: step.layout,
            views: self.registers.view(),
            input: self.input.rows_mut(),
            queries: self.queries.rows_mut(),
            tiles: step.tiles,
            pages: step.pages,
            table: &self.table,
            failures: step.failures,
            trace,
        };
        let scratch = &self.threads.rows;
        self.pool.each(rows, |thread, row| section.run(ops, row, &mut lock(&scratch[thread])));
    }

    fn attention_section(&mut self, step: &StepContext<'_>, layer: usize) {
        let section = AttentionSection {
            isa: self.config.isa,
            model: step.model,
            layer,
            layout: step.layout,
            tiles: step.tiles,
            queries: &self.queries,
            pages: step.pages,
            views: self.registers.view(),
            failures: step.failures,
        };
        let (scratch, isa) = (&self.threads.attention, self.config.isa);
        let (units, due) = (step.tiles.units(), self.config.trace.then(|| self.trace.due(layer)));
        let hashes = due.as_ref().map_or(0, Due::units);
        self.pool.each(units + hashes, |thread, unit| match &due {
            Some(due) if unit >= units => due.run(isa, unit - units),
            _ => section.run(unit, &mut lock(&scratch[thread])),
        });
    }

    /// The run of linear maps at the start of `ops`, and what follows it if that takes its values from the cache. Gives
    /// the number of operations done.
    fn linear_section(&mut self, step: &StepContext<'_>, ops: &[Op]) -> usize {
        let views = self.registers.view();
        let maps = ops.iter().map_while(|op| if let Op::Linear { site, to } = *op { Some((site, to)) } else { None });
        let (sites, to): (Vec<usize>, Vec<Register>) = maps.unzip();
        let (outputs, done) = match (&to[..], ops.get(to.len())) {
            ([Register::Gate, Register::Up], Some(Op::Gate)) => (Outputs::Gated(views.all(Register::Inner)), 3),
            ([Register::Update], Some(Op::Add)) => (Outputs::Added(views.all(Register::Residual)), 2),
            _ => (Outputs::Each(to.iter().map(|to| views.all(*to)).collect()), to.len()),
        };
        let target = |site: usize| Target { site, linear: &step.model.weights.linears[site] };
        linears::run(
            self.config.isa,
            &mut self.pool,
            &self.input,
            &sites.into_iter().map(target).collect::<Vec<_>>(),
            &outputs,
            &step.layout.groups,
            |row| step.layout.segment_of[row],
            step.failures,
            &mut self.linears,
            &self.threads.products,
        );
        done
    }

    /// The output head, for the rows whose logits are wanted.
    fn head_section(&mut self, step: &StepContext<'_>, head: &HeadRows<'_>) {
        if head.rows.is_empty() {
            return;
        }
        self.head_input.reshape(head.rows.len(), self.input.inputs(), self.input.activations());
        for (to, from) in head.rows.iter().enumerate() {
            self.head_input.copy_row(to, &self.input, *from);
        }
        let site = step.model.plan.head;
        let linear = &step.model.weights.linears[site];
        let outputs = Outputs::Each(vec![self.registers.view().all(Register::Logits)]);
        linears::run(
            self.config.isa,
            &mut self.pool,
            &self.head_input,
            &[Target { site, linear }],
            &outputs,
            &head.groups,
            |row| step.layout.segment_of[head.rows[row]],
            step.failures,
            &mut self.linears,
            &self.threads.products,
        );
    }

    fn leaves(&mut self, layout: &Layout<'_>) -> Vec<Vec<Hash>> {
        let leaves = self.trace.finish(self.config.isa, &mut self.pool, &self.input);
        let of = |(segment, first): (&Segment<'_>, &usize)| leaves[*first..*first + segment.tokens.len()].to_vec();
        layout.segments.iter().zip(&layout.first_row).map(of).collect()
    }
}

/// What every section of a step reads.
struct StepContext<'a> {
    model: &'a Model,
    layout: &'a Layout<'a>,
    tiles: &'a Tiles,
    pages: &'a PagesView<'a>,
    failures: &'a Failures,
}

/// Length of the run of row operations at the start of `ops`; attention ends a run.
fn row_run(ops: &[Op]) -> usize {
    let rows = ops.iter().take_while(|op| !matches!(op, Op::Linear { .. } | Op::Experts { .. }));
    let until_attention = rows.clone().position(|op| matches!(op, Op::Attend { .. }));
    until_attention.map_or(rows.count(), |at| at + 1)
}

/// The rows whose logits are wanted, gathered.
struct HeadRows<'a> {
    /// Rows of the batch.
    rows: Vec<usize>,
    /// By segment, its part of `rows`.
    of_segment: Vec<Range<usize>>,
    /// Adapters' parts of `rows`.
    groups: Vec<Group<'a>>,
}

impl<'a> HeadRows<'a> {
    fn new(layout: &Layout<'a>) -> Self {
        let mut rows = Vec::new();
        for row in 0..layout.rows() {
            let segment = layout.segment(row);
            let last = layout.first_row[layout.segment_of[row] as usize] + segment.tokens.len() - 1;
            if segment.wanted == Wanted::All || (segment.wanted == Wanted::Last && row == last) {
                rows.push(row);
            }
        }
        let part = |range: Range<usize>| {
            rows.partition_point(|row| *row < range.start)..rows.partition_point(|row| *row < range.end)
        };
        let of_segment = layout
            .segments
            .iter()
            .zip(&layout.first_row)
            .map(|(segment, first)| part(*first..*first + segment.tokens.len()))
            .collect();
        let groups = layout
            .groups
            .iter()
            .map(|group| Group { adapter: group.adapter, rows: part(group.rows.clone()) })
            .filter(|group| !group.rows.is_empty())
            .collect();
        HeadRows { rows, of_segment, groups }
    }
}
