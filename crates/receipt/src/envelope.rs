//! The signed form of every statement: COSE_Sign1 (RFC 9052) with Ed25519, in one encoding only.

use crate::cbor::{Reader, Writer};
use crate::error::{Malformed, ReceiptError};
use crate::hash::Hash;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// COSE_Sign1's tag.
const TAG: u64 = 18;

/// What is inside an envelope whose signature is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed<'a> {
    /// Public key of who signed.
    pub(crate) signer: Hash,
    /// The statement's encoding.
    pub(crate) payload: &'a [u8],
}

/// Signs a statement of this content type.
pub(crate) fn seal(key: &SigningKey, content_type: &str, payload: &[u8]) -> Vec<u8> {
    let header = protected(content_type, &key.verifying_key().to_bytes());
    let signature = key.sign(&signed_bytes(&header, payload));
    let mut writer = Writer::default();
    writer.tag(TAG).array(4);
    writer.bytes(&header).map(0).bytes(payload).bytes(&signature.to_bytes());
    writer.finish()
}

/// Opens an envelope of this content type and verifies its signature. Anything but the one encoding is refused; that the
/// payload is in its one encoding is for the caller to see.
pub(crate) fn open<'a>(content_type: &str, bytes: &'a [u8]) -> Result<Sealed<'a>, ReceiptError> {
    let mut reader = Reader::new(bytes);
    if reader.tag()? != TAG || reader.array()? != 4 {
        return Err(Malformed::Kind.into());
    }
    let header = reader.bytes()?;
    reader.fields()?.finish()?;
    let payload = reader.bytes()?;
    let signature: [u8; 64] = reader.bytes_of()?;
    reader.finish()?;

    let signer: Hash = *header.last_chunk().ok_or(Malformed::Truncated)?;
    if header != protected(content_type, &signer) {
        return Err(Malformed::Kind.into());
    }
    let key = VerifyingKey::from_bytes(&signer).map_err(|_| ReceiptError::Signature)?;
    key.verify_strict(&signed_bytes(header, payload), &Signature::from_bytes(&signature))
        .map_err(|_| ReceiptError::Signature)?;
    Ok(Sealed { signer, payload })
}

/// What an envelope says it holds; nothing else of it is checked.
pub(crate) fn content_type(bytes: &[u8]) -> Result<&str, ReceiptError> {
    let mut reader = Reader::new(bytes);
    if reader.tag()? != TAG || reader.array()? != 4 {
        return Err(Malformed::Kind.into());
    }
    let mut header = Reader::new(reader.bytes()?);
    let mut fields = header.fields()?;
    fields.required(1)?.negative()?;
    Ok(fields.required(3)?.text()?)
}

/// The protected header: algorithm Ed25519 (−19), content type, and as key id the public key itself, last.
fn protected(content_type: &str, signer: &Hash) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.map(3);
    writer.uint(1).minus_one_minus(18);
    writer.uint(3).text(content_type);
    writer.uint(4).bytes(signer);
    writer.finish()
}

/// What is signed (RFC 9052, section 4.4), without external data.
fn signed_bytes(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(4);
    writer.text("Signature1").bytes(header).bytes(&[]).bytes(payload);
    writer.finish()
}
