//! Bytes of messages and files: numbers little end first, everything of varying length behind its length. Readers take
//! memory in proportion to the bytes they are given, whatever these say.

use crate::trace::tree::Hash;

/// Why bytes cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("these bytes are not well formed: {0}")]
pub struct Malformed(pub &'static str);

/// Appends.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn number(&mut self, number: usize) -> &mut Self {
        self.0.extend((number as u64).to_le_bytes());
        self
    }

    pub(crate) fn word(&mut self, word: u32) -> &mut Self {
        self.0.extend(word.to_le_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len()).0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn hash(&mut self, hash: &Hash) -> &mut Self {
        self.0.extend(hash);
        self
    }

    pub(crate) fn hashes(&mut self, hashes: &[Hash]) -> &mut Self {
        self.bytes(hashes.as_flattened())
    }

    pub(crate) fn option(&mut self, word: Option<u32>) -> &mut Self {
        match word {
            Some(word) => self.byte(1).word(word),
            None => self.byte(0),
        }
    }
}

/// Takes off the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("they end too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn number(&mut self) -> Result<usize, Malformed> {
        let number = u64::from_le_bytes(self.array()?);
        usize::try_from(number).ok().filter(|number| *number < 1 << 40).ok_or(Malformed("a number is too large"))
    }

    pub(crate) fn word(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(length)
    }

    pub(crate) fn hash(&mut self) -> Result<Hash, Malformed> {
        self.array()
    }

    pub(crate) fn hashes(&mut self) -> Result<Vec<Hash>, Malformed> {
        let (hashes, rest) = self.bytes()?.as_chunks::<32>();
        if rest.is_empty() { Ok(hashes.to_vec()) } else { Err(Malformed("part of a hash")) }
    }

    pub(crate) fn option(&mut self) -> Result<Option<u32>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.word().map(Some),
            _ => Err(Malformed("a flag")),
        }
    }

    /// The number of items that follow, each of at least so many bytes.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let count = self.number()?;
        if count > self.0.len() / bytes_each { Err(Malformed("they end too early")) } else { Ok(count) }
    }

    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes follow their end")) }
    }
}
