//! How an answer was to be drawn and when it was to end.

use crate::cbor::{Reader, Writer};
use crate::error::Malformed;
use crate::hash::token_bytes;
use crate::shaping::Shaping;

/// Settings of a request, as the sampler and the engine used them.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest until their probabilities reach this; 1 keeps all.
    pub top_p: f64,
    /// Keep those at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Key of the sampler's generator.
    pub seed: u64,
    /// The most tokens to draw.
    pub tokens_max: u64,
    /// Drawing one of these ends the answer.
    pub stop_tokens: Vec<u32>,
    /// The answer ends before the first of these in its text.
    pub stop_strings: Vec<String>,
    /// Penalties, biases and form.
    pub shaping: Shaping,
}

impl Settings {
    /// The encoding that is hashed. Numbers with a fraction are the bits of their binary64, as a number.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(8 + self.shaping.entries());
        writer.uint(1).uint(self.temperature.to_bits());
        writer.uint(2).uint(self.top_k.into());
        writer.uint(3).uint(self.top_p.to_bits());
        writer.uint(4).uint(self.min_p.to_bits());
        writer.uint(5).uint(self.seed);
        writer.uint(6).uint(self.tokens_max);
        writer.uint(7).bytes(&token_bytes(&self.stop_tokens));
        writer.uint(8).array(self.stop_strings.len());
        for stop in &self.stop_strings {
            writer.text(stop);
        }
        self.shaping.write(&mut writer);
        writer.finish()
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Settings, Malformed> {
        let mut fields = reader.fields()?;
        let settings = Settings {
            temperature: f64::from_bits(fields.required(1)?.uint()?),
            top_k: fields.required(2)?.uint32()?,
            top_p: f64::from_bits(fields.required(3)?.uint()?),
            min_p: f64::from_bits(fields.required(4)?.uint()?),
            seed: fields.required(5)?.uint()?,
            tokens_max: fields.required(6)?.uint()?,
            stop_tokens: read_tokens(fields.required(7)?)?,
            stop_strings: read_texts(fields.required(8)?)?,
            shaping: Shaping::read(&mut fields)?,
        };
        fields.finish()?;
        Ok(settings)
    }
}

/// Token ids, 32 bits each, little end first.
pub(crate) fn read_tokens(reader: &mut Reader<'_>) -> Result<Vec<u32>, Malformed> {
    Ok(reader.groups_of()?.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

fn read_texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    // Grows with what is there, whatever number of texts is announced.
    (0..reader.array()?).map(|_| reader.text().map(str::to_owned)).collect()
}
