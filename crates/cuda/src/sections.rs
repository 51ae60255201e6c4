//! A plan's operations in the groups that one or two kernels run.

use model::{Op, Plan, Register};

/// Where the floats of a quantised input come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The norm of the residual, to which the update is added first if `add`.
    Norm { norm: usize, add: bool },
    /// What attention mixed.
    Mixed,
    /// silu(gate) · up.
    Gated { width: usize },
}

/// One group of operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Section {
    /// Residual = embedding.
    Embed,
    /// The quantised input; `keep` also keeps its floats, for a router.
    Prepare { source: Source, keep: bool },
    /// Linear maps of the quantised input.
    Linear(Vec<(usize, Register)>),
    /// Heads' norms, rotary positions, spreading, quantising and attention.
    Attend { layer: usize, query_norm: Option<usize>, key_norm: Option<usize> },
    /// A mixture of experts.
    Experts { mixture: usize },
}

/// The sections of a plan's body.
pub(crate) fn sections(plan: &Plan) -> Vec<Section> {
    let mut sections = Vec::new();
    let (mut add, mut norm, mut gated) = (false, None, None);
    let mut head_norms = (None, None);
    for op in &plan.body {
        match *op {
            Op::Embed => sections.push(Section::Embed),
            Op::Add => add = true,
            Op::Norm { norm: number, .. } => norm = Some(number),
            Op::Gate => gated = width_of(plan, sections.last()),
            Op::Spread { .. } | Op::Rotate { .. } => {}
            Op::Quantise { .. } => {
                let source = match norm.take() {
                    Some(norm) => Source::Norm { norm, add: std::mem::take(&mut add) },
                    None => gated.take().map_or(Source::Mixed, |width| Source::Gated { width }),
                };
                sections.push(Section::Prepare { source, keep: false });
            }
            Op::HeadNorm { norm, register: Register::Query } => head_norms.0 = Some(norm),
            Op::HeadNorm { norm, .. } => head_norms.1 = Some(norm),
            Op::Attend { layer } => {
                let (query_norm, key_norm) = std::mem::take(&mut head_norms);
                sections.push(Section::Attend { layer, query_norm, key_norm });
            }
            Op::Linear { site, to } => match sections.last_mut() {
                Some(Section::Linear(targets)) => targets.push((site, to)),
                _ => sections.push(Section::Linear(vec![(site, to)])),
            },
            Op::Experts { mixture } => {
                if let Some(Section::Prepare { keep, .. }) = sections.last_mut() {
                    *keep = true;
                }
                sections.push(Section::Experts { mixture });
            }
        }
    }
    sections
}

/// Values of the rows that the linear maps before make.
fn width_of(plan: &Plan, before: Option<&Section>) -> Option<usize> {
    match before {
        Some(Section::Linear(targets)) => targets.last().map(|(site, _)| plan.sites[*site].outputs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Shape;

    #[test]
    fn a_layer_is_six_sections() {
        let plan = Plan::new(&Shape { layers: 1, ..Shape::llama_1_24b() });
        let kinds: Vec<Section> = sections(&plan);
        let norm = |norm, add| Section::Prepare { source: Source::Norm { norm, add }, keep: false };
        assert_eq!(kinds[0], Section::Embed);
        assert_eq!(kinds[1], norm(0, false));
        assert!(matches!(&kinds[2], Section::Linear(targets) if targets.len() == 3));
        assert_eq!(kinds[3], Section::Attend { layer: 0, query_norm: None, key_norm: None });
        assert_eq!(kinds[4], Section::Prepare { source: Source::Mixed, keep: false });
        assert_eq!(kinds[5], Section::Linear(vec![(3, Register::Update)]));
        assert_eq!(kinds[6], norm(1, true));
        assert!(matches!(&kinds[7], Section::Linear(targets) if targets.len() == 2));
        assert_eq!(kinds[8], Section::Prepare { source: Source::Gated { width: 8192 }, keep: false });
        assert_eq!(kinds[9], Section::Linear(vec![(6, Register::Update)]));
        assert_eq!(kinds[10], norm(2, true));
        assert_eq!(kinds.len(), 11);
    }
}
