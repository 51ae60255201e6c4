//! What else decided an answer's tokens: penalties, biases, and the form the answer was held to.

use crate::cbor::{Fields, Writer};
use crate::error::Malformed;

/// Settings that most requests leave alone. Each has its default where the encoding does not mention it.
#[derive(Clone, PartialEq, Debug)]
pub struct Shaping {
    /// Repetition penalty; 1 is none.
    pub repetition: f64,
    /// Frequency penalty; 0 is none.
    pub frequency: f64,
    /// Presence penalty; 0 is none.
    pub presence: f64,
    /// Token ids, ascending, and what is added to their logits.
    pub bias: Vec<(u32, f64)>,
    /// Tokens before which no stop token may be drawn.
    pub tokens_min: u64,
    /// The form the answer was held to.
    pub form: Option<Form>,
}

/// A form an answer was held to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    /// What computed the masks, with its version.
    pub engine: String,
    /// The language of the source.
    pub kind: String,
    /// The form itself.
    pub source: String,
}

impl Default for Shaping {
    fn default() -> Shaping {
        Shaping { repetition: 1.0, frequency: 0.0, presence: 0.0, bias: vec![], tokens_min: 0, form: None }
    }
}

impl Shaping {
    fn numbers(&self) -> [(u64, f64, f64); 3] {
        [(9, self.repetition, 1.0), (10, self.frequency, 0.0), (11, self.presence, 0.0)]
    }

    /// Entries it has in the map of the settings.
    pub(crate) fn entries(&self) -> usize {
        let numbers = self.numbers().iter().filter(|(_, number, usual)| number.to_bits() != usual.to_bits()).count();
        numbers
            + [!self.bias.is_empty(), self.tokens_min > 0, self.form.is_some()]
                .into_iter()
                .filter(|there| *there)
                .count()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        for (key, number, usual) in self.numbers() {
            if number.to_bits() != usual.to_bits() {
                writer.uint(key).uint(number.to_bits());
            }
        }
        if !self.bias.is_empty() {
            let pairs = self.bias.iter().map(|(id, bias)| [&id.to_le_bytes()[..], &bias.to_le_bytes()].concat());
            writer.uint(12).bytes(&pairs.collect::<Vec<_>>().concat());
        }
        if self.tokens_min > 0 {
            writer.uint(13).uint(self.tokens_min);
        }
        if let Some(form) = &self.form {
            writer.uint(14).array(3).text(&form.engine).text(&form.kind).text(&form.source);
        }
    }

    /// Reads its entries. One that says what is usual is refused: there is one encoding.
    pub(crate) fn read(fields: &mut Fields<'_, '_>) -> Result<Shaping, Malformed> {
        let mut shaping = Shaping::default();
        for (key, place) in [(9, &mut shaping.repetition), (10, &mut shaping.frequency), (11, &mut shaping.presence)] {
            if let Some(reader) = fields.optional(key)? {
                let number = f64::from_bits(reader.uint()?);
                if number.to_bits() == place.to_bits() {
                    return Err(Malformed::NotDeterministic);
                }
                *place = number;
            }
        }
        if let Some(reader) = fields.optional(12)? {
            let pairs = reader.groups_of::<12>()?;
            let pair = |pair: &[u8; 12]| {
                let (id, bias) = (pair.first_chunk::<4>(), pair.last_chunk::<8>());
                id.zip(bias).map(|(id, bias)| (u32::from_le_bytes(*id), f64::from_le_bytes(*bias)))
            };
            shaping.bias = pairs.iter().filter_map(pair).collect();
            if pairs.is_empty() || !shaping.bias.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(Malformed::NotDeterministic);
            }
        }
        if let Some(reader) = fields.optional(13)? {
            shaping.tokens_min = reader.uint()?;
            if shaping.tokens_min == 0 {
                return Err(Malformed::NotDeterministic);
            }
        }
        if let Some(reader) = fields.optional(14)? {
            if reader.array()? != 3 {
                return Err(Malformed::Range);
            }
            let (engine, kind, source) = (reader.text()?, reader.text()?, reader.text()?);
            shaping.form = Some(Form { engine: engine.into(), kind: kind.into(), source: source.into() });
        }
        Ok(shaping)
    }
}
