//! Checks an opening.

use crate::check;
use crate::draw::Drawing;
use crate::form::Form;
use crate::light::attend::lock;
use crate::light::frame::Frame;
use crate::light::key::Key;
use crate::light::opening::LightOpening;
use crate::light::prove::TILE;
use crate::light::row::{Input, Row};
use crate::light::sections::Sections;
use crate::light::verdict::{LightError, LightFault, LightVerdict};
use crate::light::walk::{Found, Sums, Walk};
use crate::trace::tree::WEIGHTS;
use crate::verdict::{Difference, Verdict};
use cpu::Pool;
use exact::field::{P, Vector};
use exact::{Isa, NotFinite};
use model::{Adapter, Half, Register, widen_half};
use receipt::{Bundle, ReceiptError};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// How a check runs. Nothing here changes its verdict.
#[derive(Clone, Copy, Debug)]
pub struct LightConfig {
    /// Instruction set.
    pub isa: Isa,
    /// Threads that compute.
    pub threads: usize,
}

/// Checks that the positions of `opening` are what the model of `key` and `frame`, with `adapter`, computes after the
/// positions before them, which the receipt binds. An opening from position 0 to the last checks the whole answer.
pub fn check(
    bundle: &Bundle,
    opening: &LightOpening,
    key: &Key,
    frame: &Frame,
    adapter: Option<&Adapter>,
    config: LightConfig,
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
    if bundle.opening.settings.shaping.form.is_some() {
        return Err(LightError::Content("the answer was held to a form, which only a replay checks".to_owned()));
    }
    check::content(&bundle.opening, frame.shape(), &frame.plan, adapter)
        .map_err(|error| LightError::Content(error.to_string()))?;
    if let Err(Verdict::Differs { position, what: Difference::Finish { fault }, .. }) =
        check::finish(&claims, &bundle.opening, None, &Form::default())
    {
        return fails(position, LightFault::Finish { what: fault.to_string() });
    }
    let mut tokens = [&bundle.opening.prompt[..], &bundle.opening.output[..]].concat();
    let last = tokens.pop();
    let (span, leaves) = (opening.positions(), &bundle.opening.leaves);
    if span.is_empty() || span.end > tokens.len() || opening.past.len() != span.start {
        return fails(None, LightFault::Incomplete);
    }
    let embeddings = match embeddings(opening, frame) {
        Some(embeddings) => embeddings,
        None => return fails(None, LightFault::Embedding),
    };
    let mut walk = Walk::new(config.isa, config.threads, frame, adapter, span.start, span.end)?;
    if let Some(position) = (0..span.start).find(|position| !past_opens(opening, *position, leaves, &mut walk)) {
        return fails(Some(position), LightFault::Past);
    }
    let products = Checked {
        isa: config.isa,
        elements: key.elements(sections.outputs_max()),
        key,
        sections,
        unread: opening.sums.iter().map(|sums| Mutex::new(&sums[..])).collect(),
    };
    tokens.extend(last);
    let drawing = bundle.opening.prompt.len() - 1;
    let drawings = Drawing::new(config.isa, &bundle.opening, Form::default());
    for first in span.clone().step_by(TILE) {
        let mut rows = vec![];
        for position in first..(first + TILE).min(span.end) {
            let Some(embedding) = embeddings.get(&tokens[position]) else {
                return fails(Some(position), LightFault::Incomplete);
            };
            rows.push(Row::new(position, tokens[position], embedding.clone()));
        }
        walk.body(&mut rows, &products);
        for row in &mut rows {
            if row.leaf() != leaves[row.position] {
                row.fail(LightFault::Trace);
            }
        }
        let at = rows.partition_point(|row| row.position < drawing);
        if at < rows.len() {
            walk.head(&mut rows[at..], &products);
            let logits: Vec<&[f32]> = rows[at..].iter().map(|row| row.get(Register::Logits)).collect();
            let drawn = draw(&drawings, &mut walk.pool, &logits, rows[at].position - drawing);
            for (row, drawn) in rows[at..].iter_mut().zip(drawn) {
                let claimed = tokens[row.position + 1];
                match drawn {
                    Ok(drawn) if drawn == claimed => {}
                    Ok(drawn) => row.fail(LightFault::Token { claimed, drawn }),
                    Err(_) => row.fail(LightFault::NotFinite),
                }
            }
        }
        for row in &mut rows {
            if !lock(&products.unread[row.position - span.start]).is_empty() {
                row.fail(LightFault::Incomplete);
            }
        }
        if let Some(row) = rows.into_iter().find(|row| row.fault.is_some()) {
            return fails(Some(row.position), row.fault.unwrap_or(LightFault::Trace));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(LightVerdict::Holds { from: span.start, to: span.end, positions_total: leaves.len(), seconds })
}

/// Draws the token after each row, of which the first stands at `position`.
fn draw(drawings: &Drawing<'_>, pool: &mut Pool, logits: &[&[f32]], first: usize) -> Vec<Result<u32, NotFinite>> {
    let drawn: Vec<Mutex<Result<u32, NotFinite>>> = logits.iter().map(|_| Mutex::new(Err(NotFinite))).collect();
    pool.each(logits.len(), |_, row| {
        *lock(&drawn[row]) = drawings.one(logits[row], first + row);
    });
    drawn.into_iter().map(|token| token.into_inner().unwrap_or(Err(NotFinite))).collect()
}

/// The embeddings of the span's tokens, if they open the model's digest.
fn embeddings(opening: &LightOpening, frame: &Frame) -> Option<BTreeMap<u32, Vec<f32>>> {
    let entry = frame.base.tensors.get("model.embed_tokens.weight")?;
    let mut found = BTreeMap::new();
    for embedding in &opening.embeddings {
        let leaf = model::merkle::leaf(&embedding.row);
        let root = WEIGHTS.root_of(entry.rows, embedding.token as usize, &[leaf], &embedding.proof);
        if root != Some(entry.root) || embedding.row.len() != 2 * frame.shape().hidden {
            return None;
        }
        let widen = |pair: &[u8; 2]| match frame.half {
            Half::Brain => f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16),
            Half::Ieee => widen_half(u16::from_le_bytes(*pair)),
        };
        found.insert(embedding.token, embedding.row.as_chunks::<2>().0.iter().map(widen).collect());
    }
    Some(found)
}

/// Whether an earlier position's keys and values are those its leaf binds; then they are in the store.
fn past_opens(opening: &LightOpening, position: usize, leaves: &[[u8; 32]], walk: &mut Walk<'_>) -> bool {
    let past = &opening.past[position];
    let leaf = *blake3::Hasher::new().update(&[0x11]).update(&past.leaf).finalize().as_bytes();
    if leaf != leaves[position] || past.layers.len() != walk.frame.shape().layers {
        return false;
    }
    past.layers.iter().enumerate().all(|(layer, row)| {
        let digest = blake3::Hasher::new().update(&[0x10]).update(row).finalize();
        let at = 4 + 32 * layer;
        past.leaf.get(at..at + 32) == Some(digest.as_bytes()) && walk.store.write(layer, position, row)
    })
}

/// Sums from the opening, each checked as it is read.
struct Checked<'a> {
    isa: Isa,
    elements: Vector,
    key: &'a Key,
    sections: Sections,
    unread: Vec<Mutex<&'a [u8]>>,
}

impl Checked<'_> {
    /// r · sums = (r · W) · x, for each plane of digits.
    fn read(&self, section: usize, index: usize, input: &Input) -> Found {
        let (_, outputs) = &self.sections.shapes[section];
        let planes = input.planes.len();
        let count = planes * outputs.iter().sum::<usize>();
        let mut unread = lock(&self.unread[index]);
        let (bytes, rest) = unread.split_at_checked(4 * count).ok_or(LightFault::Incomplete)?;
        *unread = rest;
        let sums: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)).collect();
        for (plane, x) in input.planes.iter().enumerate() {
            let (mut claimed, mut first, mut at) = (0u64, 0, 0);
            for outputs in outputs {
                let from = at + plane * outputs;
                claimed = (claimed + self.elements.dot(self.isa, first, &sums[from..from + outputs])) % P;
                first += outputs;
                at += planes * outputs;
            }
            if claimed != self.key.projections[section].dot(self.isa, 0, x) {
                return Err(LightFault::Sums { section });
            }
        }
        Ok(sums)
    }
}

impl Sums for Checked<'_> {
    fn sums(&self, pool: &mut Pool, section: usize, rows: &[(usize, &Input)]) -> Vec<Found> {
        let found: Vec<Mutex<Found>> = rows.iter().map(|_| Mutex::new(Err(LightFault::Incomplete))).collect();
        pool.each(rows.len(), |_, number| {
            let (index, input) = rows[number];
            *lock(&found[number]) = self.read(section, index, input);
        });
        found.into_iter().map(|sums| sums.into_inner().unwrap_or(Err(LightFault::Incomplete))).collect()
    }
}
