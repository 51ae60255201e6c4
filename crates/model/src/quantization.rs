//! Checkpoints that already hold integers: which are read, and which are refused by name.

use crate::ModelError;
use crate::keys::Keys;
use serde_json::Value;

/// How a checkpoint's linear maps are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantization {
    /// As floats; they are quantised when they are read.
    Floats,
    /// compressed-tensors, int-quantized: int8 `weight` and float `weight_scale`, each output's or one for all. Maps
    /// stored as floats may be among them.
    Int8,
}

/// What to do about a checkpoint quantised otherwise.
const ADVICE: &str = "use the original float checkpoint, or one quantised W8A8 (compressed-tensors, int-quantized)";

/// Reads `quantization_config` of config.json.
pub(crate) fn read(keys: Keys<'_>) -> Result<Quantization, ModelError> {
    let key = if keys.value("quantization_config").is_some() { "quantization_config" } else { "compression_config" };
    let Some(settings) = keys.object(key, "quantization_config.")? else { return Ok(Quantization::Floats) };
    let refuse = |what: String| Err(ModelError::unsupported(keys.path, what, ADVICE));
    let method = settings.text("quant_method")?.unwrap_or("compressed-tensors");
    if method != "compressed-tensors" {
        return refuse(format!("quant_method {method}"));
    }
    match settings.text("format")? {
        Some("int-quantized") => {}
        other => return refuse(format!("compressed-tensors format {}", other.unwrap_or("(none)"))),
    }
    if settings.value("kv_cache_scheme").is_some() {
        return refuse("kv_cache_scheme".to_owned());
    }
    for extra in ["sparsity_config", "transform_config"] {
        let dense = |value: &Value| value.get("format").is_some_and(|format| format == "dense");
        if settings.value(extra).is_some_and(|value| value.as_object().is_none_or(|v| !v.is_empty()) && !dense(value)) {
            return refuse(extra.to_owned());
        }
    }
    let groups = settings.object("config_groups", "quantization_config.config_groups.")?;
    let Some(groups) = groups else { return Err(settings.error("config_groups", "it is missing")) };
    for (name, _) in groups.entries() {
        let Some(group) = groups.object(name, "quantization_config.config_groups.*.")? else { continue };
        if let Some(format) = group.text("format")?.filter(|format| *format != "int-quantized") {
            return refuse(format!("compressed-tensors format {format}"));
        }
        if group.value("output_activations").is_some() {
            return refuse("output_activations".to_owned());
        }
        check_weights(group)?;
        check_inputs(group)?;
    }
    Ok(Quantization::Int8)
}

fn check_weights(group: Keys<'_>) -> Result<(), ModelError> {
    let Some(weights) = group.object("weights", "quantization_config.config_groups.*.weights.")? else {
        return Err(group.error("weights", "it is missing"));
    };
    check_scheme(weights, "weights", &["channel", "tensor"])?;
    if weights.flag("dynamic")? {
        return Err(ModelError::unsupported(group.path, "dynamic weights", ADVICE));
    }
    Ok(())
}

fn check_inputs(group: Keys<'_>) -> Result<(), ModelError> {
    let prefix = "quantization_config.config_groups.*.input_activations.";
    let Some(inputs) = group.object("input_activations", prefix)? else { return Ok(()) };
    if !matches!(inputs.value("dynamic"), Some(Value::Bool(true))) {
        let what = "static activation scales (input_activations without dynamic: true)";
        return Err(ModelError::unsupported(group.path, what, ADVICE));
    }
    check_scheme(inputs, "input_activations", &["token"])
}

fn check_scheme(scheme: Keys<'_>, whose: &str, strategies: &[&str]) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::unsupported(scheme.path, what, ADVICE));
    let bits = scheme.integer("num_bits", 1..=64)?;
    if bits != 8 {
        return refuse(format!("{whose} of {bits} bits"));
    }
    if let Some(kind) = scheme.text("type")?.filter(|kind| *kind != "int") {
        return refuse(format!("{whose} of type {kind}"));
    }
    if !matches!(scheme.value("symmetric"), None | Some(Value::Bool(true))) {
        return refuse(format!("asymmetric {whose}"));
    }
    if scheme.value("group_size").is_some_and(|size| size.as_i64() != Some(-1)) {
        return refuse(format!("{whose} in groups (group_size)"));
    }
    let strategy = scheme.text("strategy")?.unwrap_or(strategies[0]);
    if !strategies.contains(&strategy) {
        return refuse(format!("{whose} strategy {strategy}"));
    }
    if scheme.value("actorder").is_some_and(|order| *order != Value::Bool(false)) {
        return refuse(format!("{whose} with actorder"));
    }
    Ok(())
}
