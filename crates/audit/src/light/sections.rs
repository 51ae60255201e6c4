//! Linear maps that read the same input are one section, checked by one equation.

use exact::elements::Elements;
use model::{Mlp, Op, Plan, Shape};

/// The sections of a model: runs of linear maps in the order of the plan, the head, then two of every expert.
#[derive(Clone, PartialEq, Debug)]
pub struct Sections {
    /// Sites of each run; the head's alone is the last.
    pub sites: Vec<Vec<usize>>,
    /// (inputs, outputs of each map) of each section.
    pub shapes: Vec<(usize, Vec<usize>)>,
    /// Experts before each mixture.
    experts_before: Vec<usize>,
}

impl Sections {
    /// Of a plan.
    pub fn new(shape: &Shape, plan: &Plan) -> Sections {
        let mut sites: Vec<Vec<usize>> = vec![];
        let mut within = false;
        for op in &plan.body {
            match (*op, sites.last_mut()) {
                (Op::Linear { site, .. }, Some(run)) if within => run.push(site),
                (Op::Linear { site, .. }, _) => sites.push(vec![site]),
                _ => {}
            }
            within = matches!(op, Op::Linear { .. });
        }
        sites.push(vec![plan.head]);
        let shape_of = |run: &Vec<usize>| {
            let outputs = run.iter().map(|site| plan.sites[*site].outputs).collect();
            (plan.sites[run[0]].inputs, outputs)
        };
        let mut shapes: Vec<(usize, Vec<usize>)> = sites.iter().map(shape_of).collect();
        let (mut experts_before, mut all) = (vec![], 0);
        for mlp in &shape.mlps {
            if let Mlp::Experts { experts, width, .. } = *mlp {
                experts_before.push(all);
                all += experts;
                for _ in 0..experts {
                    shapes.push((shape.hidden, vec![width, width]));
                    shapes.push((width, vec![shape.hidden]));
                }
            }
        }
        Sections { sites, shapes, experts_before }
    }

    /// The section of the run that starts with a site.
    pub fn of_site(&self, first: usize) -> Option<usize> {
        self.sites.iter().position(|run| run[0] == first)
    }

    /// Section and place in it of any site.
    pub fn place_of(&self, site: usize) -> Option<(usize, usize)> {
        let find = |(number, run): (usize, &Vec<usize>)| Some((number, run.iter().position(|other| *other == site)?));
        self.sites.iter().enumerate().find_map(find)
    }

    /// The head's section.
    pub fn head(&self) -> usize {
        self.sites.len() - 1
    }

    /// The section of an expert: its gate and up maps, or its down map.
    pub fn of_expert(&self, mixture: usize, expert: usize, down: bool) -> usize {
        self.sites.len() + 2 * (self.experts_before.get(mixture).copied().unwrap_or(0) + expert) + usize::from(down)
    }

    /// The most outer elements that a section's maps take.
    pub fn stretches_max(&self) -> usize {
        let stretches = |outputs: &[usize]| outputs.iter().map(|outputs| Elements::stretches_of(*outputs)).sum();
        self.shapes.iter().map(|(_, outputs)| stretches(outputs)).max().unwrap_or(0)
    }
}
