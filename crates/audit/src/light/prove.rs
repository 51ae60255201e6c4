//! Makes an opening from the weights.

use crate::light::attend::lock;
use crate::light::frame::{Frame, FrameMaker};
use crate::light::input::Input;
use crate::light::opening::{EmbeddingOpening, LightOpening, PastOpening};
use crate::light::row::{Output, Products, Row, Setting};
use crate::light::sections::Sections;
use crate::light::sums;
use crate::light::verdict::{LightError, LightFault};
use crate::light::walk::{TILE, Walk};
use crate::trace::tree::WEIGHTS;
use crate::trace::{Missing, Run, Table, regenerate, weight_row};
use crate::wire::Malformed;
use exact::Isa;
use exact::linear::{Workspace, integer_sums};
use exact::matrix::Matrix;
use exact::packed::{Floats, to_floats};
use exact::quantise::Quantised;
use model::{Model, digest, pieces};
use receipt::Bundle;
use std::ops::Range;
use std::sync::Mutex;

/// Opens the positions `span` of an answer. The same opening serves a secret key and a public coin.
pub fn prove(run: &Run<'_>, bundle: &Bundle, span: Range<usize>) -> Result<LightOpening, LightError> {
    let model = &*run.model;
    let opening = &bundle.opening;
    let tokens = [&opening.prompt[..], &opening.output[..]].concat();
    if span.start >= span.end || span.end >= tokens.len() {
        return Err(LightError::Content(format!("it has no positions {span:?} that were computed")));
    }
    if tokens.iter().any(|token| *token as usize >= model.shape.vocabulary) {
        return Err(LightError::Content("a token is not in the vocabulary".to_owned()));
    }
    let mut maker = FrameMaker::default();
    pieces::of_model(model, |piece| maker.take(piece));
    let manifest = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, run.threads);
    let frame = maker.finish(manifest)?;
    let sections = Sections::new(&model.shape, &model.plan);
    let (isa, adapter) = (run.isa, run.adapter);
    let with = Setting { isa, frame: &frame, adapter, sections: &sections, start: span.start };
    let mut walk = Walk::new(with, run.threads, tokens.len())?;
    let past = past(run, &tokens[..span.start])?;
    for (position, past) in past.iter().enumerate() {
        for (layer, row) in past.layers.iter().enumerate() {
            walk.store.writer(layer).write(position, row);
        }
    }
    let products =
        Weighed { model, isa, sections: &sections, written: span.clone().map(|_| Mutex::default()).collect() };
    let drawing = opening.prompt.len() - 1;
    for first in span.clone().step_by(TILE) {
        let positions = first..(first + TILE).min(span.end);
        let mut rows: Vec<Row> = positions
            .map(|position| {
                let token = tokens[position];
                let mut embedding = vec![0.0; model.shape.hidden];
                model.weights.embedding.row(token as usize, &mut embedding);
                Row::new(position, token, embedding)
            })
            .collect();
        walk.tile(with, &mut rows, &products, &|number, desk| {
            if first + number >= drawing {
                desk.head(with, &products);
            }
        });
    }
    let sums = products.written.into_iter().map(|sums| sums.into_inner().unwrap_or_default()).collect();
    Ok(LightOpening { start: span.start, embeddings: embeddings(&frame, model, &tokens[span])?, past, sums })
}

fn missing(missing: Missing) -> LightError {
    LightError::Content(missing.to_string())
}

/// Leaf data and keys and values of the positions of `tokens`.
fn past(run: &Run<'_>, tokens: &[u32]) -> Result<Vec<PastOpening>, LightError> {
    let history = run.history(tokens)?;
    let open = |(position, token): (usize, &u32)| {
        let at = regenerate(&run.model, run.adapter, &history, position, *token, None, None).map_err(missing)?;
        let layers = (0..run.model.shape.layers).map(|layer| at.layer_row(layer)).collect::<Result<_, _>>();
        Ok(PastOpening { leaf: at.leaf_data(), layers: layers.map_err(missing)? })
    };
    tokens.iter().enumerate().map(open).collect()
}

fn embeddings(frame: &Frame, model: &Model, tokens: &[u32]) -> Result<Vec<EmbeddingOpening>, LightError> {
    let name = "model.embed_tokens.weight";
    let leaves = digest::tensor_leaves(&model.shape, &model.plan, &model.weights, name, 1);
    let leaves = leaves.ok_or(Malformed("the embedding"))?;
    let mut distinct = tokens.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let open = |token: u32| {
        let row = weight_row(model, None, Table::Embedding, token as usize).map_err(missing)?;
        debug_assert!(row.len() == 2 * frame.shape().hidden);
        let at = token as usize;
        Ok(EmbeddingOpening { token, row, proof: WEIGHTS.prove(&leaves, &(at..at + 1)) })
    };
    distinct.into_iter().map(open).collect()
}

/// Sums from the weights, written down.
struct Weighed<'a> {
    model: &'a Model,
    isa: Isa,
    sections: &'a Sections,
    written: Vec<Mutex<Vec<u8>>>,
}

impl Weighed<'_> {
    fn matrices(&self, section: usize) -> Vec<&Matrix> {
        let weights = &self.model.weights;
        if let Some(run) = self.sections.sites.get(section) {
            return run.iter().map(|site| &weights.linears[*site].matrix).collect();
        }
        let number = section - self.sections.sites.len();
        let Some(expert) = weights.mixtures.iter().flat_map(|mixture| &mixture.experts).nth(number / 2) else {
            return vec![];
        };
        if number.is_multiple_of(2) { vec![&expert.gate, &expert.up] } else { vec![&expert.down] }
    }
}

impl Products for Weighed<'_> {
    fn outputs(
        &self,
        _thread: usize,
        section: usize,
        index: usize,
        input: &Input,
        x: &[f32],
        outputs: &mut [Output<'_>],
    ) -> Result<(), LightFault> {
        let mode = self.model.activations;
        let mut quantised = Quantised::new(mode);
        quantised.reshape(1, x.len(), mode);
        if quantised.write_row(self.isa, 0, x).is_err() {
            quantised.rows_mut().clear(0);
        }
        let mut lists = vec![];
        for (matrix, Output { scales, y }) in self.matrices(section).into_iter().zip(outputs) {
            let mut sums = vec![0i32; matrix.outputs() * mode.planes()];
            integer_sums(self.isa, &quantised, 0, matrix, &mut sums, &mut Workspace::default());
            for (plane, sums) in sums.chunks_exact(matrix.outputs()).enumerate() {
                to_floats(self.isa, sums, Floats::of(mode, plane, input.scale, scales), y);
                lists.push(sums.to_vec());
            }
        }
        sums::write(&lists, 4, &mut lock(&self.written[index]));
        Ok(())
    }
}
