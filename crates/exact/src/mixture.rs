//! Routing to experts (specification, section 10).

use crate::elementary::{LOG2_E, exp2};
use crate::kernels::versions;
use crate::quantise::{NotFinite, quantise_i16};
use crate::{INPUTS_MAX, Isa};

/// A router's weights at 16 bits, one scale per expert, row by row.
#[derive(Clone, Default)]
pub struct Router {
    experts: usize,
    inputs: usize,
    levels: Vec<i16>,
    scales: Vec<f32>,
}

/// One expert chosen for a row, and its weight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// Expert id.
    pub expert: u32,
    /// Weight of its output.
    pub weight: f32,
}

impl Router {
    /// A router of zeros, to be filled expert by expert.
    pub fn zeroed(experts: usize, inputs: usize) -> Self {
        assert!(inputs <= INPUTS_MAX);
        Router { experts, inputs, levels: vec![0; experts * inputs], scales: vec![0.0; experts] }
    }

    /// Experts.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.levels.len() * 2 + self.scales.len() * 4
    }

    /// Quantises one expert's float weights.
    pub fn quantise_row(&mut self, isa: Isa, expert: usize, weights: &[f32]) -> Result<(), NotFinite> {
        let row = &mut self.levels[expert * self.inputs..][..self.inputs];
        self.scales[expert] = quantise_i16(isa, weights, row)?;
        Ok(())
    }

    /// One expert's integers and scale.
    pub fn row(&self, expert: usize) -> (&[i16], f32) {
        (&self.levels[expert * self.inputs..][..self.inputs], self.scales[expert])
    }

    /// Sets one expert's integers and scale.
    pub fn set_row(&mut self, expert: usize, levels: &[i16], scale: f32) {
        self.levels[expert * self.inputs..][..self.inputs].copy_from_slice(levels);
        self.scales[expert] = scale;
    }

    /// The `chosen` experts of the row `x`, in ascending id, with their weights; `renormalise` as in the checkpoint.
    pub fn route(&self, isa: Isa, x: &[f32], chosen: usize, renormalise: bool) -> Result<Vec<Choice>, NotFinite> {
        assert!(x.len() == self.inputs && chosen >= 1 && chosen <= self.experts);
        let mut q = vec![0i16; self.inputs];
        let s_x = quantise_i16(isa, x, &mut q)?;
        let z: Vec<f32> = (0..self.experts)
            .map(|e| {
                let (row, s_w) = self.row(e);
                dot(isa, &q, row) as f32 * (s_x * s_w)
            })
            .collect();
        if z.iter().any(|z| !z.is_finite()) {
            return Err(NotFinite);
        }
        let mut rank: Vec<usize> = (0..self.experts).collect();
        rank.sort_by(|a, b| z[*b].partial_cmp(&z[*a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b)));
        let z_max = z[rank[0]];
        let count = |e: usize| (exp2((z[e] - z_max) * LOG2_E) * 16_777_216.0).round_ties_even() as u64;
        let over = if renormalise { &rank[..chosen] } else { &rank[..] };
        let sum: u64 = over.iter().map(|e| count(*e)).sum();
        let mut choices: Vec<Choice> = rank[..chosen]
            .iter()
            .map(|e| Choice { expert: *e as u32, weight: count(*e) as f32 / sum as f32 })
            .collect();
        choices.sort_by_key(|choice| choice.expert);
        Ok(choices)
    }
}

#[inline(always)]
fn dot_body(x: &[i16], w: &[i16]) -> i64 {
    x.iter().zip(w).map(|(x, w)| i64::from(i32::from(*x) * i32::from(*w))).sum()
}

versions! {
    fn dot(x: &[i16], w: &[i16]) -> i64 = dot_body;
}
