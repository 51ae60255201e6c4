//! One part of a model out of a checkpoint's tensors: checked, then read and quantised row by row.

use crate::fold::Preparation;
use crate::parts::{Kind, Part, Slot, is_head_norm};
use crate::tensors::{Tensor, Tensors};
use crate::{Config, Dtype, Embedding, Half, Linear, ModelError, Plan, Quantization};
use exact::Isa;
use exact::matrix::Matrix;
use exact::mixture::Router;
use exact::quantise::{quantise_i16, quantise_weights};

/// Tensors beside an int8 `weight` that mean a scheme this engine does not read.
const FOREIGN: [(&str, &str); 6] = [
    ("weight_packed", "pack-quantized weights"),
    ("weight_zero_point", "asymmetric weights (weight_zero_point)"),
    ("weight_g_idx", "weights in groups (weight_g_idx)"),
    ("input_scale", "static activation scales (input_scale)"),
    ("input_zero_point", "static activation scales (input_zero_point)"),
    ("qweight", "GPTQ or AWQ weights (qweight)"),
];

/// A checkpoint being read.
pub(crate) struct Source<'a> {
    config: &'a Config,
    tensors: &'a Tensors,
    isa: Isa,
    /// Norm weights to fold, as the plan numbers them; empty for those that are not.
    folded: Vec<Vec<f32>>,
}

impl<'a> Source<'a> {
    /// Reads the norms that will be folded.
    pub(crate) fn new(config: &'a Config, plan: &Plan, tensors: &'a Tensors, isa: Isa) -> Result<Self, ModelError> {
        let mut source = Source { config, tensors, isa, folded: vec![vec![]; plan.norms.len()] };
        for (norm, name) in plan.norms.iter().enumerate() {
            if config.shape.spread && !is_head_norm(name) {
                let columns = config.shape.hidden;
                let slot = Slot { kind: Kind::Folded, name: name.clone(), rows: 1, columns, reads: None };
                source.check(&slot)?;
                source.folded[norm] = source.weight(&slot)?.floats()?;
            }
        }
        Ok(source)
    }

    /// The tensor that holds a slot's weights.
    fn weight(&self, slot: &Slot) -> Result<Tensor<'a>, ModelError> {
        let tied = slot.name == "lm_head" && self.config.shape.tied;
        let module = if tied { "model.embed_tokens" } else { &slot.name };
        for (suffix, feature) in FOREIGN {
            if self.tensors.get(&format!("{module}.{suffix}")).is_some() {
                let feature = format!("{module}: {feature}");
                let advice = "use the original float checkpoint, or one quantised W8A8 (int-quantized)";
                return Err(ModelError::unsupported(self.tensors.origin(), feature, advice));
            }
        }
        let name = format!("{module}.weight");
        let what = match slot.name.as_str() {
            "lm_head" if !tied => "config.json does not say tie_word_embeddings, so the output head must be there",
            _ => "config.json asks for it; is the download complete?",
        };
        self.tensors.get(&name).ok_or_else(|| ModelError::missing(self.tensors.origin(), &name, what))
    }

    fn bias(&self, slot: &Slot) -> Result<Option<Tensor<'a>>, ModelError> {
        let name = format!("{}.bias", slot.name);
        let bias = self.tensors.get(&name);
        if bias.is_none() && self.config.biases.asked_for(&slot.name) {
            return Err(ModelError::missing(self.tensors.origin(), &name, "config.json asks for this bias"));
        }
        Ok(bias)
    }

    /// Checks types and shapes of what fills a slot, without reading it; gives its bytes on disk.
    pub(crate) fn check(&self, slot: &Slot) -> Result<u64, ModelError> {
        let weight = self.weight(slot)?;
        match slot.kind {
            Kind::Norm | Kind::Folded => weight.expect_floats(&[slot.columns])?,
            Kind::Linear | Kind::Expert if weight.dtype() == Dtype::I8 => {
                weight.expect_shape(&[slot.rows, slot.columns])?;
                self.scale_tensor(&weight, slot)?;
            }
            _ => weight.expect_floats(&[slot.rows, slot.columns])?,
        }
        match (slot.kind, self.bias(slot)?) {
            (Kind::Linear, Some(bias)) => bias.expect_floats(&[slot.rows])?,
            (Kind::Norm | Kind::Folded | Kind::Router | Kind::Expert, Some(bias)) => {
                return Err(bias.error("a bias here is not supported"));
            }
            _ => {}
        }
        Ok(weight.bytes())
    }

    /// Reads what fills a slot. [`Source::check`] must have passed.
    pub(crate) fn read(&self, slot: &Slot) -> Result<Part, ModelError> {
        let weight = self.weight(slot)?;
        Ok(match slot.kind {
            Kind::Embedding => Part::Embedding(read_embedding(&weight, slot)?),
            Kind::Norm if self.config.shape.spread && !is_head_norm(&slot.name) => Part::Norm(vec![1.0; slot.columns]),
            Kind::Norm | Kind::Folded => Part::Norm(weight.floats()?),
            Kind::Router => Part::Router(self.read_router(&weight, slot)?),
            Kind::Expert => Part::Expert(self.read_matrix(&weight, slot)?),
            Kind::Linear => {
                let bias = self.bias(slot)?.map(|bias| bias.floats()).transpose()?;
                Part::Linear(Linear { matrix: self.read_matrix(&weight, slot)?, bias })
            }
        })
    }

    fn read_matrix(&self, weight: &Tensor<'_>, slot: &Slot) -> Result<Matrix, ModelError> {
        if weight.dtype() == Dtype::I8 {
            return self.read_integers(weight, slot);
        }
        let preparation = self.preparation(slot);
        let divisor = preparation.divisor(slot.columns);
        let mut matrix = Matrix::zeroed(slot.rows, slot.columns);
        let mut levels = vec![0i8; slot.columns];
        weight.for_rows(slot.columns, |row, values| {
            preparation.apply(values);
            let scale = quantise_weights(self.isa, values, &mut levels).map_err(|_| not_finite(weight, row))?;
            matrix.set_row(row, &levels, scale / divisor);
            Ok(())
        })?;
        Ok(matrix)
    }

    fn preparation(&self, slot: &Slot) -> Preparation<'_> {
        match self.config.shape.spread {
            true => Preparation::full(self.isa, slot.reads.map(|norm| self.folded[norm].as_slice())),
            false => Preparation::none(self.isa),
        }
    }

    fn scale_tensor(&self, weight: &Tensor<'_>, slot: &Slot) -> Result<Tensor<'a>, ModelError> {
        if self.config.quantization != Quantization::Int8 {
            return Err(weight.error("its type is I8, but config.json has no quantization_config"));
        }
        let name = format!("{}.weight_scale", slot.name);
        let missing = || ModelError::missing(self.tensors.origin(), &name, "the int8 weight beside it needs it");
        let scale = self.tensors.get(&name).ok_or_else(missing)?;
        if ![&[slot.rows, 1][..], &[slot.rows], &[1], &[]].contains(&scale.shape()) {
            return Err(scale.error(format!("its shape is {:?}, [{}, 1] or [1] is needed", scale.shape(), slot.rows)));
        }
        scale.expect_floats(scale.shape())?;
        Ok(scale)
    }

    fn read_integers(&self, weight: &Tensor<'_>, slot: &Slot) -> Result<Matrix, ModelError> {
        let tensor = self.scale_tensor(weight, slot)?;
        let scales = tensor.floats()?;
        if let Some(row) = scales.iter().position(|scale| *scale < 0.0) {
            return Err(tensor.error(format!("the scale of row {row} is negative")));
        }
        let mut matrix = Matrix::zeroed(slot.rows, slot.columns);
        weight.for_row_bytes(slot.columns, |first, bytes| {
            for (i, bytes) in bytes.chunks_exact(slot.columns).enumerate() {
                let scale = if scales.len() == 1 { scales[0] } else { scales[first + i] };
                matrix.set_row(first + i, bytemuck::cast_slice(bytes), scale);
            }
            Ok(())
        })?;
        Ok(matrix)
    }

    fn read_router(&self, weight: &Tensor<'_>, slot: &Slot) -> Result<Router, ModelError> {
        let preparation = self.preparation(slot);
        let divisor = preparation.divisor(slot.columns);
        let mut router = Router::zeroed(slot.rows, slot.columns);
        let mut levels = vec![0i16; slot.columns];
        weight.for_rows(slot.columns, |row, values| {
            preparation.apply(values);
            let scale = quantise_i16(self.isa, values, &mut levels).map_err(|_| not_finite(weight, row))?;
            router.set_row(row, &levels, scale / divisor);
            Ok(())
        })?;
        Ok(router)
    }
}

pub(crate) fn not_finite(tensor: &Tensor<'_>, row: usize) -> ModelError {
    tensor.error(format!("row {row} holds an infinity or not a number; this checkpoint is broken"))
}

/// A binary32 rounded to bfloat16, ties to even; what is not finite stays so.
pub(crate) fn to_brain(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7f80_0000 == 0x7f80_0000 {
        return (bits >> 16) as u16;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn read_embedding(weight: &Tensor<'_>, slot: &Slot) -> Result<Embedding, ModelError> {
    let half = if weight.dtype() == Dtype::F16 { Half::Ieee } else { Half::Brain };
    let exponent = if half == Half::Ieee { 0x7c00 } else { 0x7f80 };
    let mut bits = Vec::with_capacity(slot.rows * slot.columns);
    weight.for_row_bytes(slot.columns, |first, bytes| {
        let start = bits.len();
        if weight.dtype() == Dtype::F32 {
            bits.extend(bytes.chunks_exact(4).map(|b| to_brain(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))));
        } else {
            bits.extend(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])));
        }
        match bits[start..].iter().position(|bits| bits & exponent == exponent) {
            Some(at) => Err(not_finite(weight, first + at / slot.columns)),
            None => Ok(()),
        }
    })?;
    Ok(Embedding { bits, half, hidden: slot.columns })
}
