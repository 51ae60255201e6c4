//! Checks an opening.

use crate::check;
use crate::draw::Drawing;
use crate::form::Form;
use crate::light::attend::lock;
use crate::light::frame::Frame;
use crate::light::input::Input;
use crate::light::key::Key;
use crate::light::opening::{EmbeddingOpening, Opened, PastOpening};
use crate::light::row::{Output, Products, Row, Setting};
use crate::light::sections::Sections;
use crate::light::sums;
use crate::light::verdict::{LightError, LightFault, LightVerdict};
use crate::light::walk::{TILE, Walk};
use crate::trace::tree::WEIGHTS;
use crate::verdict::{Difference, Verdict};
use exact::elements::Elements;
use exact::field::{Levels, P};
use exact::packed::Floats;
use exact::{Activations, Isa};
use model::{Adapter, Half, Text, widen_half};
use receipt::{Bundle, ReceiptError};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How a check runs. Nothing here changes its verdict.
#[derive(Clone, Copy)]
pub struct LightConfig<'a> {
    /// Instruction set.
    pub isa: Isa,
    /// Threads that compute.
    pub threads: usize,
    /// The model's tokenizer: with it stop strings are checked, and answers held to a form can be.
    pub text: Option<&'a Text>,
}

/// Checks that the positions of `opening` are what the model of `key` and `frame`, with `adapter`, computes after the
/// positions before them, which the receipt binds. An opening from position 0 to the last checks the whole answer.
pub fn check(
    bundle: &Bundle,
    opening: &impl Opened,
    key: &Key,
    frame: &Frame,
    adapter: Option<&Adapter>,
    config: LightConfig<'_>,
) -> Result<LightVerdict, LightError> {
    let started = Instant::now();
    let fails = |position, what| Ok(LightVerdict::Fails { position, what });
    let receipt = |what: String| fails(None, LightFault::Receipt { what });
    let claims = match bundle.check() {
        Ok(receipt) => receipt.claims,
        Err(ReceiptError::Opening(what)) => return receipt(what.to_string()),
        Err(error) => return Err(error.into()),
    };
    let sections = Sections::new(frame.shape(), &frame.plan);
    if key.base != frame.base.digest || key.frame != frame.hash() || !key.fits(&sections) {
        return Err(LightError::Key("key and frame are not of the same model: make them again from its weights"));
    }
    let loaded = check::Loaded { base: key.base, activations: frame.activations(), adapter };
    if let Err(what) = check::names(&claims, &loaded) {
        return receipt(what.to_string());
    }
    if let Err(what) = check::texts(&claims, config.text) {
        return receipt(what.to_string());
    }
    check::content(&bundle.opening, frame.shape(), &frame.plan, adapter)
        .map_err(|error| LightError::Content(error.to_string()))?;
    let followed = Form::follow(&bundle.opening.settings, &bundle.opening.output, config.text);
    let form = match followed.map_err(|error| LightError::Content(error.to_string()))? {
        Ok(form) => form,
        Err((number, what)) => {
            let what = LightFault::Form { what: what.to_string() };
            return fails(Some(bundle.opening.prompt.len() + number), what);
        }
    };
    if let Err(Verdict::Differs { position, what: Difference::Finish { fault }, .. }) =
        check::finish(&claims, &bundle.opening, config.text, &form)
    {
        return fails(position, LightFault::Finish { what: fault.to_string() });
    }
    let mut tokens = [&bundle.opening.prompt[..], &bundle.opening.output[..]].concat();
    let last = tokens.pop();
    let (span, leaves) = (opening.span(), &bundle.opening.leaves);
    if span.is_empty() || span.end > tokens.len() || opening.past_positions() != span.start {
        return fails(None, LightFault::Incomplete);
    }
    let with = Setting { isa: config.isa, frame, adapter, sections: &sections, start: span.start };
    let mut walk = Walk::new(with, config.threads, span.end)?;
    let Some(embeddings) = embeddings(opening, frame, &mut walk) else { return fails(None, LightFault::Embedding) };
    for position in 0..span.start {
        let past = opening.past(position).map_err(LightError::File)?;
        if !past_opens(&past, position, leaves, frame, &mut walk) {
            return fails(Some(position), LightFault::Past);
        }
    }
    let products = Checked {
        isa: config.isa,
        mode: frame.activations(),
        elements: key.elements(sections.stretches_max()),
        key,
        sections: &sections,
        opening,
        read: span.clone().map(|_| AtomicUsize::new(0)).collect(),
        buffers: (0..walk.threads()).map(|_| Mutex::default()).collect(),
    };
    tokens.extend(last);
    let drawing = bundle.opening.prompt.len() - 1;
    let drawings = Drawing::new(config.isa, &bundle.opening, form);
    for first in span.clone().step_by(TILE) {
        let mut rows = vec![];
        for position in first..(first + TILE).min(span.end) {
            let Some(embedding) = embeddings.get(&tokens[position]) else {
                return fails(Some(position), LightFault::Incomplete);
            };
            rows.push(Row::new(position, tokens[position], embedding.clone()));
        }
        walk.tile(with, &mut rows, &products, &|number, desk| {
            let position = first + number;
            if desk.leaf(with.isa, frame.shape().layers) != leaves[position] {
                desk.fail(LightFault::Trace);
            }
            if position >= drawing {
                let claimed = tokens[position + 1];
                match drawings.one(desk.head(with, &products), position - drawing) {
                    Ok(drawn) if drawn == claimed => {}
                    Ok(drawn) => desk.fail(LightFault::Token { claimed, drawn }),
                    Err(_) => desk.fail(LightFault::NotFinite),
                }
            }
            let index = position - span.start;
            if products.read[index].load(Ordering::Relaxed) != opening.sums_bytes(index) {
                desk.fail(LightFault::Incomplete);
            }
        });
        if let Some(row) = rows.into_iter().find(|row| row.fault.is_some()) {
            return fails(Some(row.position), row.fault.unwrap_or(LightFault::Trace));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(LightVerdict::Holds { from: span.start, to: span.end, positions_total: leaves.len(), seconds })
}

/// The embeddings of the span's tokens, if they open the model's digest.
fn embeddings(opening: &impl Opened, frame: &Frame, walk: &mut Walk) -> Option<BTreeMap<u32, Vec<f32>>> {
    let entry = frame.base.tensors.get("model.embed_tokens.weight")?;
    let opened = opening.embeddings();
    let open = walk.all(opened.len(), |number| {
        let EmbeddingOpening { token, row, proof } = &opened[number];
        let root = WEIGHTS.root_of(entry.rows, *token as usize, &[model::merkle::leaf(row)], proof);
        root == Some(entry.root) && row.len() == 2 * frame.shape().hidden
    });
    if !open {
        return None;
    }
    let widen = |pair: &[u8; 2]| match frame.half {
        Half::Brain => f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16),
        Half::Ieee => widen_half(u16::from_le_bytes(*pair)),
    };
    let values = |row: &[u8]| row.as_chunks::<2>().0.iter().map(widen).collect();
    Some(opened.iter().map(|embedding| (embedding.token, values(&embedding.row))).collect())
}

/// Whether an earlier position's keys and values are those its leaf binds; then they are in the store.
fn past_opens(past: &PastOpening, position: usize, leaves: &[[u8; 32]], frame: &Frame, walk: &mut Walk) -> bool {
    let leaf = *blake3::Hasher::new().update(&[0x11]).update(&past.leaf).finalize().as_bytes();
    if leaf != leaves[position] || past.layers.len() != frame.shape().layers {
        return false;
    }
    past.layers.iter().enumerate().all(|(layer, row)| {
        let digest = blake3::Hasher::new().update(&[0x10]).update(row).finalize();
        let at = 4 + 32 * layer;
        past.leaf.get(at..at + 32) == Some(digest.as_bytes()) && walk.store.writer(layer).write(position, row)
    })
}

/// Sums from the opening, each checked as it is read.
struct Checked<'a, O> {
    isa: Isa,
    mode: Activations,
    elements: Elements,
    key: &'a Key,
    sections: &'a Sections,
    opening: &'a O,
    /// Bytes read so far of each position. One thread has a position at a time.
    read: Vec<AtomicUsize>,
    /// By thread.
    buffers: Vec<Mutex<Vec<u8>>>,
}

impl<O: Opened> Products for Checked<'_, O> {
    /// r · sums = (r · W) · x, for each plane of digits.
    fn outputs(
        &self,
        thread: usize,
        section: usize,
        index: usize,
        input: &Input,
        _x: &[f32],
        outputs: &mut [Output<'_>],
    ) -> Result<(), LightFault> {
        let planes = input.planes();
        let (width, at) = (planes.len(), self.read[index].load(Ordering::Relaxed));
        let counts = (0..width * outputs.len()).map(|list| outputs[list / width].y.len());
        let (left, least) = (self.opening.sums_bytes(index) - at, sums::least_bytes(counts.clone()));
        if self.sections.shapes[section].1.len() != outputs.len() || least > left {
            return Err(LightFault::Incomplete);
        }
        let mut buffer = lock(&self.buffers[thread]);
        let mut found = self.opening.sums(index, at, least, &mut buffer).map_err(|_| LightFault::Unread)?;
        let bytes = sums::bytes(found, counts.clone()).filter(|bytes| *bytes <= left).ok_or(LightFault::Incomplete)?;
        if bytes > least {
            found = self.opening.sums(index, at, bytes, &mut buffer).map_err(|_| LightFault::Unread)?;
            // A file may have changed since.
            if sums::bytes(found, counts) != Some(bytes) {
                return Err(LightFault::Unread);
            }
        }
        self.read[index].store(at + bytes, Ordering::Relaxed);
        let mut lists = sums::lists(found);
        let (mut claimed, mut first) = ([0u64; 2], 0);
        for Output { scales, y } in outputs {
            for (plane, claimed) in claimed.iter_mut().take(width).enumerate() {
                let these = lists.next().ok_or(LightFault::Incomplete)?;
                let floats = Floats::of(self.mode, plane, input.scale, scales);
                *claimed = (*claimed + self.elements.dot_floats(self.isa, first, these, floats, y)) % P;
            }
            first += Elements::stretches_of(y.len());
        }
        let projection = &self.key.projections[section];
        let sums_of = |levels: &fn(&Input) -> Levels<'_>| projection.dot_levels(self.isa, levels(input));
        let right = planes.iter().zip(claimed).all(|(levels, claimed)| sums_of(levels) == claimed);
        if right { Ok(()) } else { Err(LightFault::Sums { section }) }
    }
}
