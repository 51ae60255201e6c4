//! A receipt together with what opens it: what an auditor is given.

use crate::VERSION;
use crate::cbor::{Reader, Writer};
use crate::error::ReceiptError;
use crate::opening::Opening;
use crate::signed::Receipt;

/// A receipt and its opening.
#[derive(Clone, PartialEq, Debug)]
pub struct Bundle {
    /// Bytes of the receipt.
    pub receipt: Vec<u8>,
    /// What is behind its hashes.
    pub opening: Opening,
}

impl Bundle {
    /// Whether the receipt is valid and the opening is what it binds.
    pub fn check(&self) -> Result<Receipt, ReceiptError> {
        let receipt = Receipt::parse(&self.receipt)?;
        self.opening.check(&receipt.claims)?;
        Ok(receipt)
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(3);
        writer.uint(1).uint(VERSION);
        writer.uint(2).bytes(&self.receipt);
        writer.uint(3).item(&self.opening.encode());
        writer.finish()
    }

    /// Reads a bundle without checking what it says. Takes memory in proportion to `bytes`, whatever they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, ReceiptError> {
        let mut reader = Reader::new(bytes);
        let mut fields = reader.fields()?;
        let version = fields.required(1)?.uint()?;
        if version != VERSION {
            return Err(ReceiptError::Version(version));
        }
        let bundle =
            Bundle { receipt: fields.required(2)?.bytes()?.to_vec(), opening: Opening::read(fields.required(3)?)? };
        fields.finish()?;
        reader.finish()?;
        Ok(bundle)
    }
}
