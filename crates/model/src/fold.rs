//! Which norm each linear map reads, so that the norm's weight can be multiplied into the map (specification,
//! section 2: how a float checkpoint is prepared).

use crate::{Op, Plan, Register};
use exact::Isa;
use exact::spread::{spread, spread_block};

/// For each linear map and each mixture of a plan, the norm whose output it reads, if that is what it reads.
pub(crate) struct Readers {
    pub(crate) sites: Vec<Option<usize>>,
    pub(crate) mixtures: Vec<Option<usize>>,
}

impl Readers {
    pub(crate) fn of(plan: &Plan) -> Readers {
        let mut readers = Readers { sites: vec![None; plan.sites.len()], mixtures: vec![None; plan.mixtures.len()] };
        let (mut normed, mut input) = (None, None);
        for op in &plan.body {
            match *op {
                Op::Norm { norm, to: Register::Normed, .. } => normed = Some(norm),
                Op::Quantise { from } => input = normed.filter(|_| from == Register::Normed),
                Op::Linear { site, .. } => readers.sites[site] = input,
                Op::Experts { mixture } => readers.mixtures[mixture] = input,
                _ => {}
            }
        }
        readers.sites[plan.head] = input;
        readers
    }
}

/// How the rows of one linear map are prepared.
#[derive(Clone, Copy)]
pub(crate) struct Preparation<'a> {
    isa: Isa,
    /// The norm's weight to multiply in; empty for none.
    norm: &'a [f32],
    spread: bool,
}

impl<'a> Preparation<'a> {
    /// As they are.
    pub(crate) fn none(isa: Isa) -> Self {
        Preparation { isa, norm: &[], spread: false }
    }

    /// Multiplied by a norm's weight, if it is given, and spread.
    pub(crate) fn full(isa: Isa, norm: Option<&'a [f32]>) -> Self {
        Preparation { isa, norm: norm.unwrap_or(&[]), spread: true }
    }

    /// Changes a row in place. The scale it is then quantised to has to be divided by [`Preparation::divisor`].
    pub(crate) fn apply(&self, row: &mut [f32]) {
        for (w, g) in row.iter_mut().zip(self.norm) {
            *w *= g;
        }
        if self.spread {
            spread(self.isa, row);
        }
    }

    /// What spreading twice multiplies by.
    pub(crate) fn divisor(&self, inputs: usize) -> f32 {
        if self.spread { spread_block(inputs) as f32 } else { 1.0 }
    }
}
