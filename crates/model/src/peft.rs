//! A LoRA adapter in PEFT's layout becomes an [`Adapter`] for a base (specification, section 3).

use crate::copied;
use crate::fold::{Preparation, Readers};
use crate::peft_config::LoraConfig;
use crate::quantise::not_finite;
use crate::tensors::{Tensor, Tensors};
use crate::{Adapter, LowRank, Model, ModelError, Site, digest, parallel};
use exact::Isa;
use exact::matrix::{Matrix, RowMatrix};
use exact::quantise::quantise_weights;
use std::collections::BTreeMap;
use std::path::Path;

/// What PEFT puts before a module's path.
const PREFIX: &str = "base_model.model.";

/// The two halves of an adapter on one linear map.
#[derive(Default)]
struct Halves<'a> {
    a: Option<Tensor<'a>>,
    b: Option<Tensor<'a>>,
}

impl Adapter {
    /// Loads the adapter in `folder` (`adapter_config.json` and `adapter_model.safetensors`) for `base`. Ranks may
    /// differ from map to map, and any subset of the base's linear maps may have one.
    ///
    /// # Errors
    /// A file is missing or damaged, the adapter is for another base or not finite, or it is of a kind this engine does
    /// not run, which is named.
    pub fn load(folder: &Path, base: &Model, isa: Isa) -> Result<Adapter, ModelError> {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Adapter::load_on(folder, base, isa, threads)
    }

    /// As [`Adapter::load`], on so many threads.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub fn load_on(folder: &Path, base: &Model, isa: Isa, threads: usize) -> Result<Adapter, ModelError> {
        let config = LoraConfig::read(&folder.join("adapter_config.json"))?;
        let path = folder.join("adapter_model.safetensors");
        let tensors = Tensors::open_file(&path)?;
        let found = halves(&path, &tensors)?;
        for module in found.keys() {
            if !base.plan.sites.iter().any(|site| site.name == *module) {
                return Err(not_a_site(&path, module));
            }
        }
        let readers = Readers::of(&base.plan);
        let preparation = |site: usize| {
            let norm = readers.sites[site].and_then(|norm| base.weights.folded.get(norm)).map(Vec::as_slice);
            if base.shape.spread { Preparation::full(isa, norm) } else { Preparation::none(isa) }
        };
        for (copy, module) in copies(&tensors) {
            copied::check(&copy, module, base, preparation(base.plan.head), isa)?;
        }
        let load = |number: usize| {
            let site = &base.plan.sites[number];
            let Some(halves) = found.get(site.name.as_str()) else { return Ok(None) };
            low_rank(&path, site, halves, &config, preparation(number), isa).map(Some)
        };
        let sites = parallel::map(threads, base.plan.sites.len(), load)?;
        if sites.iter().all(Option::is_none) {
            return Err(ModelError::damaged(&path, "it holds no lora_A and lora_B"));
        }
        let digest = digest::adapter(&base.plan, &sites, threads);
        Ok(Adapter { sites, digest })
    }
}

/// The tensors that are copies of the base's, and of which module.
fn copies(tensors: &Tensors) -> impl Iterator<Item = (Tensor<'_>, &'static str)> {
    tensors.names().filter_map(|name| Some((tensors.get(name)?, copied_module(name)?)))
}

/// The module of the base that a tensor of this name copies.
fn copied_module(name: &str) -> Option<&'static str> {
    copied::module_of(name.strip_prefix(PREFIX)?)
}

/// The tensors of an adapter by the module they belong to, without those that copy the base's.
fn halves<'a>(path: &Path, tensors: &'a Tensors) -> Result<BTreeMap<&'a str, Halves<'a>>, ModelError> {
    let mut found: BTreeMap<&str, Halves<'_>> = BTreeMap::new();
    for name in tensors.names().filter(|name| copied_module(name).is_none()) {
        let (module, half) = split(path, name)?;
        let halves = found.entry(module).or_default();
        let place = if half == 'A' { &mut halves.a } else { &mut halves.b };
        if place.is_some() {
            return Err(ModelError::tensor(path, name, "the same half is there under another name too"));
        }
        *place = tensors.get(name);
    }
    Ok(found)
}

/// Module path and half (A or B) of a tensor's name.
fn split<'a>(path: &Path, name: &'a str) -> Result<(&'a str, char), ModelError> {
    let ends = [(".lora_A.weight", 'A'), (".lora_A.default.weight", 'A')];
    let ends = ends.into_iter().chain([(".lora_B.weight", 'B'), (".lora_B.default.weight", 'B')]);
    let module = name.strip_prefix(PREFIX);
    if let Some(split) =
        module.and_then(|module| ends.into_iter().find_map(|(end, half)| Some((module.strip_suffix(end)?, half))))
    {
        return Ok(split);
    }
    let kinds = [
        ("lora_magnitude_vector", "DoRA (lora_magnitude_vector)"),
        ("lora_embedding_", "an adapter on the embedding (lora_embedding_A)"),
        ("lora_B.bias", "a bias in the adapter (lora_bias)"),
        ("modules_to_save", "modules_to_save"),
        ("trainable_tokens", "trainable_token_indices"),
        (".base_layer.", "weights of the base inside the adapter"),
    ];
    for (part, feature) in kinds {
        if name.contains(part) {
            let feature = format!("tensor {name}: {feature}");
            return Err(ModelError::unsupported(path, feature, "train a plain LoRA on linear maps"));
        }
    }
    if name.contains("lora_") {
        let what = format!("its name is not {PREFIX}<module>.lora_A.weight or .lora_B.weight");
        return Err(ModelError::tensor(path, name, what));
    }
    let feature = format!("tensor {name}: weights that replace the base's (modules_to_save, bias)");
    Err(ModelError::unsupported(path, feature, "train a plain LoRA on linear maps"))
}

/// Why there is nothing to adapt at a module's path.
fn not_a_site(path: &Path, module: &str) -> ModelError {
    if module.contains(".mlp.experts") || module.ends_with(".mlp.gate") {
        let feature = format!("an adapter on {module}");
        return ModelError::unsupported(path, feature, "train it on the attention alone; experts cannot be adapted");
    }
    ModelError::OtherBase {
        path: path.to_owned(),
        site: module.to_owned(),
        adapter: "an adapter".to_owned(),
        base: "no such linear map".to_owned(),
    }
}

fn low_rank(
    path: &Path,
    site: &Site,
    halves: &Halves<'_>,
    config: &LoraConfig,
    preparation: Preparation<'_>,
    isa: Isa,
) -> Result<LowRank, ModelError> {
    let missing = |half: &str| {
        let name = format!("{PREFIX}{}.lora_{half}.weight", site.name);
        ModelError::missing(path, &name, "its other half is there; was the adapter saved completely?")
    };
    let a = halves.a.ok_or_else(|| missing("A"))?;
    let b = halves.b.ok_or_else(|| missing("B"))?;
    let (&[rank, inputs], &[outputs, b_rank]) = (a.shape(), b.shape()) else {
        return Err(a.error(format!("shapes {:?} and {:?} of A and B are not matrices", a.shape(), b.shape())));
    };
    if (inputs, outputs) != (site.inputs, site.outputs) {
        return Err(ModelError::OtherBase {
            path: path.to_owned(),
            site: site.name.clone(),
            adapter: format!("{inputs} inputs and {outputs} outputs"),
            base: format!("{} inputs and {} outputs", site.inputs, site.outputs),
        });
    }
    let wanted = config.rank(&site.name);
    if rank != b_rank || rank != wanted {
        let what = format!("A has rank {rank}, B has rank {b_rank}, adapter_config.json gives {wanted}");
        return Err(a.error(what));
    }
    a.expect_floats(a.shape())?;
    b.expect_floats(b.shape())?;
    let mut low_rank =
        LowRank { a: RowMatrix::zeroed(rank, inputs), b: Matrix::zeroed(outputs, rank), gain: config.gain(&site.name) };
    let divisor = preparation.divisor(inputs);
    let mut levels = vec![0i8; inputs];
    a.for_rows(inputs, |row, values| {
        preparation.apply(values);
        let scale = quantise_weights(isa, values, &mut levels).map_err(|_| not_finite(&a, row))?;
        low_rank.a.set_row(row, &levels, scale / divisor);
        Ok(())
    })?;
    let mut levels = vec![0i8; rank];
    b.for_rows(rank, |row, values| {
        let scale = quantise_weights(isa, values, &mut levels).map_err(|_| not_finite(&b, row))?;
        low_rank.b.set_row(row, &levels, scale);
        Ok(())
    })?;
    Ok(low_rank)
}
