//! Tokens become text as they arrive, in pieces that put together are the text of all of them at once.

use crate::{ModelError, Text};

/// Tokens decoded together at most before older ones are let go.
const WINDOW: usize = 64;
/// Tokens kept then, so that what follows is decoded in their light.
const KEPT: usize = 8;

/// Decodes one sequence token by token. Text that the next token may still change is held back: an incomplete
/// character, and with tokenizers that fall back to single bytes a run of those.
#[derive(Clone, Debug)]
pub struct Decoder {
    skip_special: bool,
    /// The latest tokens, and what of their text has been given out.
    window: Vec<u32>,
    shown: String,
    /// Whether the latest token that has text is a single byte.
    in_bytes: bool,
}

impl Decoder {
    /// A decoder at the start of a sequence.
    pub fn new(skip_special: bool) -> Decoder {
        Decoder { skip_special, window: vec![], shown: String::new(), in_bytes: false }
    }

    /// The text that is certain after one more token, from where the last piece ended.
    ///
    /// # Errors
    /// The tokenizer cannot decode the token.
    pub fn push(&mut self, text: &Text, token: u32) -> Result<String, ModelError> {
        self.window.push(token);
        if !text.is_silent(token, self.skip_special) {
            self.in_bytes = text.is_byte(token);
        }
        if self.in_bytes {
            return Ok(String::new());
        }
        let all = text.decode(&self.window, self.skip_special)?;
        let certain = all.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(&all);
        let Some(piece) = certain.strip_prefix(self.shown.as_str()) else { return Ok(String::new()) };
        let piece = piece.to_owned();
        self.shown.push_str(&piece);
        if self.window.len() >= WINDOW && self.shown.len() == all.len() {
            self.shorten(text)?;
        }
        Ok(piece)
    }

    /// What was still held back, at the end of the sequence.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub fn finish(&mut self, text: &Text) -> Result<String, ModelError> {
        let all = text.decode(&self.window, self.skip_special)?;
        let rest = all.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned();
        self.window.clear();
        self.shown.clear();
        self.in_bytes = false;
        Ok(rest)
    }

    /// Lets older tokens go if the text of the rest is the end of the text of all.
    fn shorten(&mut self, text: &Text) -> Result<(), ModelError> {
        let tail = &self.window[self.window.len() - KEPT..];
        let shown = text.decode(tail, self.skip_special)?;
        if !shown.is_empty() && self.shown.ends_with(&shown) {
            self.window = tail.to_vec();
            self.shown = shown;
        }
        Ok(())
    }
}
