//! Rotary positions from config.json: `rope_parameters` of newer files, `rope_theta` and `rope_scaling` of older ones.

use crate::keys::Keys;
use crate::{ModelError, Rotary};
use std::f64::consts::PI;

/// Theta where a file gives none.
const THETA: f64 = 10_000.0;
const THETA_RANGE: std::ops::RangeInclusive<f64> = 1.0..=1e15;

/// Reads the rotary positions of heads of `head_dim` dimensions.
pub(crate) fn read(keys: Keys<'_>, head_dim: usize) -> Result<Rotary, ModelError> {
    let parameters = keys.object("rope_parameters", "rope_parameters.")?;
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => keys.object("rope_scaling", "rope_scaling.")?,
    };
    let within = |key: &str, range: std::ops::RangeInclusive<f64>| match scaling {
        Some(scaling) if scaling.value(key).is_some() => scaling.float_if_there(key, range),
        _ => keys.float_if_there(key, range),
    };
    if let Some((key, _)) = scaling.iter().flat_map(Keys::entries).find(|entry| entry.1.is_object()) {
        let advice = "all layers must rotate alike";
        return Err(ModelError::unsupported(keys.path, format!("rope parameters by layer type ({key})"), advice));
    }
    let theta = within("rope_theta", THETA_RANGE)?.unwrap_or(THETA);
    if let Some(share) = within("partial_rotary_factor", 0.0..=1.0)?.filter(|share| *share != 1.0) {
        let advice = "the architectures read here rotate whole heads";
        return Err(ModelError::unsupported(keys.path, format!("partial_rotary_factor {share}"), advice));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(keys.error("head_dim", format!("it is {head_dim}, rotary positions need an even number")));
    }
    let mut rotary = Rotary::plain(theta, head_dim);
    if let Some(scaling) = scaling {
        scale(&mut rotary, keys, scaling)?;
    }
    if rotary.inverse_frequencies.iter().any(|omega| !omega.is_finite()) {
        return Err(keys.error("rope_theta", "it gives infinite frequencies"));
    }
    Ok(rotary)
}

fn scale(rotary: &mut Rotary, keys: Keys<'_>, scaling: Keys<'_>) -> Result<(), ModelError> {
    let kind = match scaling.text("rope_type")? {
        Some(kind) => kind,
        None => scaling.text("type")?.unwrap_or("default"),
    };
    let factor = || scaling.float("factor", 1e-3..=1e6);
    match kind {
        "default" => {}
        "linear" => {
            let factor = factor()?;
            rotary.inverse_frequencies.iter_mut().for_each(|omega| *omega /= factor);
        }
        "llama3" => {
            let factor = factor()?;
            let low = scaling.float("low_freq_factor", 1e-6..=1e6)?;
            let high = scaling.float("high_freq_factor", 1e-6..=1e6)?;
            if high <= low {
                return Err(scaling.error("high_freq_factor", "it must be above low_freq_factor"));
            }
            let original = match scaling.float_if_there("original_max_position_embeddings", 1.0..=1e9)? {
                Some(original) => original,
                None => keys.float("original_max_position_embeddings", 1.0..=1e9)?,
            };
            rotary
                .inverse_frequencies
                .iter_mut()
                .for_each(|omega| *omega = llama3(*omega, factor, low, high, original));
        }
        other => {
            let advice = "rope types default, linear and llama3 are";
            return Err(ModelError::unsupported(keys.path, format!("rope type {other}"), advice));
        }
    }
    Ok(())
}

/// The llama3 rule (specification, section 6).
fn llama3(omega: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / omega;
    if wavelength < original / high {
        omega
    } else if wavelength > original / low {
        omega / factor
    } else {
        let t = (original / wavelength - low) / (high - low);
        (1.0 - t) * omega / factor + t * omega
    }
}
