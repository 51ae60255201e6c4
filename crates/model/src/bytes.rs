//! The bytes a token stands for, wherever in a text it stands.

use tokenizers::{DecoderWrapper, Tokenizer};

/// What one token adds to a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenBytes {
    /// These bytes, which need not be a whole character.
    Text(Vec<u8>),
    /// Nothing that anybody said: a mark between turns, or of an end. The name it is written by.
    Special(String),
}

/// How a tokenizer writes bytes as characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spelling {
    /// Each byte is a printable character (GPT-2's table).
    ByteLevel,
    /// Characters as they are, "▁" for a space, and "<0x41>" for a byte.
    Fallback,
}

impl Spelling {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Spelling> {
        tokenizer.get_decoder().and_then(spelling)
    }

    /// The bytes of a token of the vocabulary, by the way it is written there.
    pub(crate) fn bytes(self, written: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = written.chars().map(byte_of).collect();
                bytes.unwrap_or_else(|| written.as_bytes().to_vec())
            }
            Spelling::Fallback => match hex(written) {
                Some(byte) => vec![byte],
                None => written.replace('▁', " ").into_bytes(),
            },
        }
    }
}

fn spelling(decoder: &DecoderWrapper) -> Option<Spelling> {
    match decoder {
        DecoderWrapper::ByteLevel(_) => Some(Spelling::ByteLevel),
        DecoderWrapper::ByteFallback(_) | DecoderWrapper::Metaspace(_) => Some(Spelling::Fallback),
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().find_map(spelling),
        _ => None,
    }
}

fn hex(written: &str) -> Option<u8> {
    let digits = written.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's table: printable characters of Latin-1 stand for themselves, the other bytes, in order, for U+0100 and on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(c);
    if code < 256 {
        return if printable(code) { u8::try_from(code).ok() } else { None };
    }
    let number = usize::try_from(code.checked_sub(256)?).ok()?;
    (0..=255u32).filter(|byte| !printable(*byte)).nth(number).and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_either_spelling() {
        assert_eq!(Spelling::ByteLevel.bytes("ĠaĊÃ©"), b" a\n\xc3\xa9");
        assert_eq!(Spelling::ByteLevel.bytes("Ń"), b"\xad");
        assert_eq!(Spelling::Fallback.bytes("▁a"), b" a");
        assert_eq!(Spelling::Fallback.bytes("<0xE9>"), b"\xe9");
        assert_eq!(Spelling::Fallback.bytes("<0xE>"), b"<0xE>");
    }
}
