//! A receipt: claims, signed by the node that makes them.

use crate::claims::Claims;
use crate::envelope;
use crate::error::ReceiptError;
use crate::hash::{Hash, hex};
use ed25519_dalek::SigningKey;

/// The most bytes a receipt may have.
pub const RECEIPT_BYTES_MAX: usize = 1024;

/// Content type in the protected header.
pub const CONTENT_TYPE: &str = "application/vnd.lockstep.receipt+cbor";

/// A receipt whose signature is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// What it says.
    pub claims: Claims,
    /// Public key of the node that signed it.
    pub node: Hash,
    /// BLAKE3 of its bytes.
    pub hash: Hash,
}

impl Receipt {
    /// Reads a receipt and verifies its signature. There is one encoding of a receipt; anything else is refused.
    pub fn parse(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLarge(bytes.len()));
        }
        let sealed = envelope::open(CONTENT_TYPE, bytes)?;
        Ok(Receipt { claims: Claims::decode(sealed.payload)?, node: sealed.signer, hash: hash(bytes) })
    }

    /// Its name: "rcpt-" and the first 16 bytes of its hash in hexadecimal.
    pub fn id(&self) -> String {
        id(&self.hash)
    }
}

/// Signs claims: the bytes of a receipt.
pub fn sign(key: &SigningKey, claims: &Claims) -> Vec<u8> {
    envelope::seal(key, CONTENT_TYPE, &claims.encode())
}

/// Hash of a receipt's bytes: what [`Claims::previous`] of the node's next receipt holds.
pub fn hash(receipt: &[u8]) -> Hash {
    *blake3::hash(receipt).as_bytes()
}

/// Name of the receipt with this hash.
pub fn id(hash: &Hash) -> String {
    format!("rcpt-{}", hex(&hash[..16]))
}
