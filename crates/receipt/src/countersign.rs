//! A client's word that it got an answer with this receipt: neither side can later deny it, or tell of another answer.

use crate::VERSION;
use crate::cbor::{Reader, Writer};
use crate::envelope;
use crate::error::ReceiptError;
use crate::hash::Hash;
use ed25519_dalek::SigningKey;

/// Content type of a countersignature.
pub const COUNTERSIGNATURE_CONTENT_TYPE: &str = "application/vnd.lockstep.countersignature+cbor";

/// A countersignature whose signature is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Countersignature {
    /// Hash of the receipt.
    pub receipt: Hash,
    /// When the client signed, in seconds since 1970.
    pub time_seconds: u64,
    /// The client's public key.
    pub client: Hash,
}

impl Countersignature {
    /// Signs for the receipt with this hash.
    pub fn sign(key: &SigningKey, receipt: &Hash, time_seconds: u64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(3);
        writer.uint(1).uint(VERSION);
        writer.uint(2).bytes(receipt);
        writer.uint(3).uint(time_seconds);
        envelope::seal(key, COUNTERSIGNATURE_CONTENT_TYPE, &writer.finish())
    }

    /// Reads a countersignature and verifies it.
    pub fn parse(bytes: &[u8]) -> Result<Countersignature, ReceiptError> {
        let sealed = envelope::open(COUNTERSIGNATURE_CONTENT_TYPE, bytes)?;
        let mut reader = Reader::new(sealed.payload);
        let mut fields = reader.fields()?;
        let version = fields.required(1)?.uint()?;
        if version != VERSION {
            return Err(ReceiptError::Version(version));
        }
        let countersignature = Countersignature {
            receipt: fields.required(2)?.bytes_of()?,
            time_seconds: fields.required(3)?.uint()?,
            client: sealed.signer,
        };
        fields.finish()?;
        reader.finish()?;
        Ok(countersignature)
    }
}
