//! The signed form: COSE_Sign1 (RFC 9052) with Ed25519.

use crate::cbor::{Reader, Writer};
use crate::claims::Claims;
use crate::error::{Malformed, ReceiptError};
use crate::hash::{Hash, hex};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// The most bytes a receipt may have.
pub const RECEIPT_BYTES_MAX: usize = 1024;

/// Content type in the protected header.
pub const CONTENT_TYPE: &str = "application/vnd.lockstep.receipt+cbor";

/// COSE_Sign1's tag.
const TAG: u64 = 18;

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
        let mut reader = Reader::new(bytes);
        if reader.tag()? != TAG || reader.array()? != 4 {
            return Err(Malformed::Kind.into());
        }
        let header = reader.bytes()?;
        reader.fields()?.finish()?;
        let payload = reader.bytes()?;
        let signature: [u8; 64] = reader.bytes_of()?;
        reader.finish()?;

        let node: Hash = *header.last_chunk().ok_or(Malformed::Truncated)?;
        if header != protected(&node) {
            return Err(Malformed::Kind.into());
        }
        let claims = Claims::decode(payload)?;
        if encode(&claims, &node, &signature) != bytes {
            return Err(Malformed::NotDeterministic.into());
        }
        let key = VerifyingKey::from_bytes(&node).map_err(|_| ReceiptError::Signature)?;
        key.verify_strict(&signed_bytes(header, payload), &Signature::from_bytes(&signature))
            .map_err(|_| ReceiptError::Signature)?;
        Ok(Receipt { claims, node, hash: hash(bytes) })
    }

    /// Its name: "rcpt-" and the first 16 bytes of its hash in hexadecimal.
    pub fn id(&self) -> String {
        id(&self.hash)
    }
}

/// Signs claims: the bytes of a receipt.
pub fn sign(key: &SigningKey, claims: &Claims) -> Vec<u8> {
    let node = key.verifying_key().to_bytes();
    let signature = key.sign(&signed_bytes(&protected(&node), &claims.encode()));
    encode(claims, &node, &signature.to_bytes())
}

/// Hash of a receipt's bytes: what [`Claims::previous`] of the node's next receipt holds.
pub fn hash(receipt: &[u8]) -> Hash {
    *blake3::hash(receipt).as_bytes()
}

/// Name of the receipt with this hash.
pub fn id(hash: &Hash) -> String {
    format!("rcpt-{}", hex(&hash[..16]))
}

fn encode(claims: &Claims, node: &Hash, signature: &[u8; 64]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.tag(TAG).array(4);
    writer.bytes(&protected(node)).map(0).bytes(&claims.encode()).bytes(signature);
    writer.finish()
}

/// The protected header: algorithm Ed25519 (−19), content type, and as key id the public key itself, last.
fn protected(node: &Hash) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.map(3);
    writer.uint(1).minus_one_minus(18);
    writer.uint(3).text(CONTENT_TYPE);
    writer.uint(4).bytes(node);
    writer.finish()
}

/// What is signed (RFC 9052, section 4.4), without external data.
fn signed_bytes(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(4);
    writer.text("Signature1").bytes(header).bytes(&[]).bytes(payload);
    writer.finish()
}
