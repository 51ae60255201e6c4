//! Mixtures of experts: rows are grouped by expert, each expert is one unit of work, and outputs are added in ascending
//! expert id (specification, section 10).

use crate::failures::Failures;
use crate::linears::lock;
use crate::pool::Pool;
use crate::registers::Views;
use exact::linear::{Epilogue, RowsMut, Workspace, linear};
use exact::matrix::Matrix;
use exact::mixture::Choice;
use exact::quantise::Quantised;
use exact::shared::Shared;
use exact::{Activations, Isa, norm};
use model::{Expert, Mixture, Register};
use std::sync::Mutex;

/// Memory kept between steps.
#[derive(Default)]
pub(crate) struct ExpertScratch {
    outputs: Vec<f32>,
}

/// Memory one thread reuses for its experts.
pub(crate) struct ExpertWorkspace {
    input: Quantised,
    inner: Quantised,
    gate: Vec<f32>,
    up: Vec<f32>,
    products: Workspace,
}

impl Default for ExpertWorkspace {
    fn default() -> Self {
        ExpertWorkspace {
            input: Quantised::new(Activations::A16),
            inner: Quantised::new(Activations::A16),
            gate: Vec::new(),
            up: Vec::new(),
            products: Workspace::default(),
        }
    }
}

/// Update = the mixture of Normed (for the router) and `input` (for the experts); `spread` says whether the experts'
/// inner rows are spread before they are quantised, as all inputs of linear maps then are.
#[expect(clippy::too_many_arguments, reason = "one section of work has this many sides")]
pub(crate) fn run(
    isa: Isa,
    pool: &mut Pool,
    mixture: &Mixture,
    spread: bool,
    input: &Quantised,
    views: Views<'_>,
    segment_of: &[u32],
    failures: &Failures,
    scratch: &mut ExpertScratch,
    workspaces: &[Mutex<ExpertWorkspace>],
) -> Vec<Vec<Choice>> {
    let rows = input.rows();
    let mut choices: Vec<Vec<Choice>> = vec![Vec::new(); rows];
    {
        let chosen = ChoiceRows(choices.iter_mut().map(Mutex::new).collect());
        pool.each(rows, |_, row| {
            let x = views.row(Register::Normed, row);
            match mixture.router.route(isa, x, mixture.chosen, mixture.renormalise) {
                Ok(found) => **lock(&chosen.0[row]) = found,
                Err(_) => failures.set(segment_of[row]),
            }
        });
    }
    // For each expert, the rows that chose it and where in the outputs each goes.
    let mut uses: Vec<Vec<(usize, usize)>> = vec![Vec::new(); mixture.experts.len()];
    for (row, choices) in choices.iter().enumerate() {
        for (i, choice) in choices.iter().enumerate() {
            uses[choice.expert as usize].push((row, row * mixture.chosen + i));
        }
    }
    let hidden = views.width(Register::Update);
    scratch.outputs.resize(rows * mixture.chosen * hidden, 0.0);
    let outputs = Shared::new(&mut scratch.outputs);
    let busy: Vec<usize> = (0..uses.len()).filter(|e| !uses[*e].is_empty()).collect();
    pool.each(busy.len(), |thread, i| {
        let (expert, uses) = (&mixture.experts[busy[i]], &uses[busy[i]]);
        let mut workspace = lock(&workspaces[thread]);
        for part in uses.chunks(64) {
            evaluate(isa, expert, spread, input, part, outputs, segment_of, failures, &mut workspace);
        }
    });
    pool.each(rows, |_, row| {
        let update = views.row_mut(Register::Update, row);
        update.fill(0.0);
        for (i, choice) in choices[row].iter().enumerate() {
            let d = outputs.part((row * mixture.chosen + i) * hidden, hidden);
            norm::add_weighted(isa, update, d, choice.weight, i == 0);
        }
    });
    choices
}

/// One slot per row, each filled by one unit.
struct ChoiceRows<'a>(Vec<Mutex<&'a mut Vec<Choice>>>);

/// One expert on some of the rows that chose it.
#[expect(clippy::too_many_arguments, reason = "one unit of work has this many sides")]
fn evaluate(
    isa: Isa,
    expert: &Expert,
    spread: bool,
    input: &Quantised,
    uses: &[(usize, usize)],
    outputs: Shared<'_, f32>,
    segment_of: &[u32],
    failures: &Failures,
    workspace: &mut ExpertWorkspace,
) {
    let ExpertWorkspace { input: gathered, inner, gate, up, products } = workspace;
    let (rows, width, hidden) = (uses.len(), expert.gate.outputs(), expert.down.outputs());
    gathered.reshape(rows, input.inputs(), input.activations());
    for (i, (row, _)) in uses.iter().enumerate() {
        gathered.copy_row(i, input, *row);
    }
    gate.resize(rows.max(64) * width, 0.0);
    up.resize(rows.max(64) * width, 0.0);
    let mut product = |x: &Quantised, weights: &Matrix, out: &mut [f32]| {
        let out = RowsMut::new(out, weights.outputs());
        linear(isa, x, 0..rows, weights, 0..weights.blocks(), Epilogue::Store, out, 0, products);
    };
    product(gathered, &expert.gate, gate);
    product(gathered, &expert.up, up);
    inner.reshape(rows, width, input.activations());
    let mut row_of = vec![0.0f32; width];
    for (i, (row, _)) in uses.iter().enumerate() {
        norm::gated(isa, &gate[i * width..][..width], &up[i * width..][..width], &mut row_of);
        if spread {
            exact::spread::spread(isa, &mut row_of);
        }
        if inner.write_row(isa, i, &row_of).is_err() {
            inner.rows_mut().clear(i);
            failures.set(segment_of[*row]);
        }
    }
    let mut down = vec![0.0f32; rows * hidden];
    product(inner, &expert.down, &mut down);
    for ((_, at), down) in uses.iter().zip(down.chunks_exact(hidden)) {
        outputs.copy_in(at * hidden, down);
    }
}
