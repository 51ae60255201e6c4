//! Weights of the base that PEFT copies into an adapter's file: it does so with vocabulary-wide modules, whenever one of
//! them is adapted or the vocabulary may have been resized (`save_embedding_layers`). A copy that is the base's own
//! changes nothing and is passed over; any other would replace a part of the base, which is refused.

use crate::fold::Preparation;
use crate::quantise::{not_finite, to_brain};
use crate::tensors::Tensor;
use crate::{Embedding, Half, Model, ModelError};
use exact::Isa;
use exact::matrix::Matrix;
use exact::quantise::quantise_weights;

/// The modules PEFT copies.
const COPIED: [&str; 2] = [EMBEDDING, HEAD];
const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

/// The module a tensor is a copy of, if it is a copy; `name` without what PEFT puts before a module's path.
pub(crate) fn module_of(name: &str) -> Option<&'static str> {
    let module = name.strip_suffix(".weight")?;
    let module = module.strip_suffix(".base_layer").unwrap_or(module);
    COPIED.into_iter().find(|copied| *copied == module)
}

/// Checks that a copy of `module` is what the base was made of.
///
/// # Errors
/// It is not, or cannot be read.
pub(crate) fn check(
    copy: &Tensor<'_>,
    module: &str,
    base: &Model,
    preparation: Preparation<'_>,
    isa: Isa,
) -> Result<(), ModelError> {
    let shape = [base.shape.vocabulary, base.shape.hidden];
    if copy.shape() != shape {
        let what =
            format!("{module} of shape {:?} in place of the base's {shape:?} (a resized vocabulary)", copy.shape());
        return Err(refusal(copy, &what));
    }
    copy.expect_floats(&shape)?;
    let differing = match module {
        EMBEDDING => differing_token(copy, &base.weights.embedding)?,
        _ => differing_output(copy, &base.weights.linears[base.plan.head].matrix, preparation, isa)?,
    };
    match differing {
        None => Ok(()),
        Some(row) => Err(refusal(copy, &format!("{module} other than the base's from row {row} on (modules_to_save)"))),
    }
}

fn refusal(copy: &Tensor<'_>, what: &str) -> ModelError {
    let feature = format!("tensor {}: {what}", copy.name());
    ModelError::unsupported(copy.path(), feature, "train a plain LoRA on linear maps")
}

/// The first token whose row is not the embedding's.
fn differing_token(copy: &Tensor<'_>, embedding: &Embedding) -> Result<Option<usize>, ModelError> {
    let mut differing = None;
    let mut own = vec![0f32; embedding.hidden];
    copy.for_rows(embedding.hidden, |token, row| {
        embedding.row(token, &mut own);
        // A base of binary32 was rounded when it was read.
        let rounded = |x: f32| match embedding.half {
            Half::Brain => f32::from_bits(u32::from(to_brain(x)) << 16),
            Half::Ieee => x,
        };
        if differing.is_none() && row.iter().zip(&own).any(|(copied, own)| rounded(*copied) != *own) {
            differing = Some(token);
        }
        Ok(())
    })?;
    Ok(differing)
}

/// The first output whose row does not come out as the map's integers and scale.
fn differing_output(
    copy: &Tensor<'_>,
    map: &Matrix,
    preparation: Preparation<'_>,
    isa: Isa,
) -> Result<Option<usize>, ModelError> {
    let mut differing = None;
    let divisor = preparation.divisor(map.inputs());
    let (mut levels, mut own) = (vec![0i8; map.inputs()], vec![0i8; map.inputs()]);
    copy.for_rows(map.inputs(), |output, row| {
        preparation.apply(row);
        let scale = quantise_weights(isa, row, &mut levels).map_err(|_| not_finite(copy, output))?;
        map.row(output, &mut own);
        if differing.is_none() && (levels != own || scale / divisor != map.scales()[output]) {
            differing = Some(output);
        }
        Ok(())
    })?;
    Ok(differing)
}
