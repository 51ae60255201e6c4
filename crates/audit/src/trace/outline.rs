//! What must be known of a model and an adapter to write out their steps, without a weight.

use exact::Activations;
use model::{Adapter, AdapterManifest, Half, Manifest, Model, Plan, Shape};

/// Dimensions of a model and of the adapter that runs on it.
#[derive(Clone, PartialEq, Debug)]
pub struct Outline {
    /// Of the base.
    pub shape: Shape,
    /// Of the base.
    pub plan: Plan,
    /// How inputs of linear maps are quantised.
    pub activations: Activations,
    /// What the embedding is kept in.
    pub half: Half,
    /// By site: whether a bias is added.
    pub biased: Vec<bool>,
    /// By site: rank and gain of the adapter; all none without one.
    pub adapter: Vec<Option<(usize, f32)>>,
}

impl Outline {
    /// Of what is loaded.
    pub fn of(model: &Model, adapter: Option<&Adapter>) -> Outline {
        let site = |number: usize| {
            let low_rank = adapter?.sites.get(number)?.as_ref()?;
            Some((low_rank.a.outputs(), low_rank.gain))
        };
        Outline {
            shape: model.shape.clone(),
            plan: model.plan.clone(),
            activations: model.activations,
            half: model.weights.embedding.half,
            biased: model.weights.linears.iter().map(|linear| linear.bias.is_some()).collect(),
            adapter: (0..model.plan.sites.len()).map(site).collect(),
        }
    }

    /// Of manifests, whose digests are those a receipt names. None if they do not fit together.
    pub fn read(base: &Manifest, adapter: Option<&AdapterManifest>) -> Option<Outline> {
        let plan = Plan::new(&base.shape);
        let site = |name: &str| -> Option<Option<(usize, f32)>> {
            let Some(gain) = adapter.and_then(|adapter| adapter.gains.get(name)) else { return Some(None) };
            let a = adapter?.tensors.get(&format!("{name}.lora_A.weight"))?;
            let known = plan.sites.iter().find(|site| site.name == name)?;
            let b = adapter?.tensors.get(&format!("{name}.lora_B.weight"))?;
            let fits = a.columns == known.inputs && b.rows == known.outputs && b.columns == a.rows && a.rows > 0;
            fits.then_some(Some((a.rows, *gain)))
        };
        let half = match base.tensors.get("model.embed_tokens.weight")?.element.as_str() {
            "bf16" => Half::Brain,
            "f16" => Half::Ieee,
            _ => return None,
        };
        Some(Outline {
            shape: base.shape.clone(),
            activations: base.activations,
            half,
            biased: plan.sites.iter().map(|s| base.tensors.contains_key(&format!("{}.bias", s.name))).collect(),
            adapter: plan.sites.iter().map(|s| site(&s.name)).collect::<Option<_>>()?,
            plan,
        })
    }
}
