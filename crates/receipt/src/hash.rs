//! Salted hashes: `BLAKE3(domain ‖ salt ‖ content)`. The domain byte keeps a hash of one thing from passing as a hash of
//! another; the salt keeps short prompts and answers from being guessed.

/// 32 bytes of BLAKE3, or an Ed25519 public key.
pub type Hash = [u8; 32];

/// 16 random bytes, used for one hash only.
pub type Salt = [u8; 16];

/// What is hashed. 0x10 and 0x11 are the digests and leaves below the trace.
#[derive(Clone, Copy)]
pub(crate) enum Domain {
    TraceNode = 0x12,
    Prompt = 0x13,
    Settings = 0x14,
    Output = 0x15,
    Trace = 0x16,
    Request = 0x17,
    Seed = 0x18,
    Commitment = 0x19,
}

pub(crate) fn salted(domain: Domain, salt: &Salt, content: &[u8]) -> Hash {
    *blake3::Hasher::new().update(&[domain as u8]).update(salt).update(content).finalize().as_bytes()
}

/// Token ids as content: 32 bits each, little end first.
pub(crate) fn token_bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// Lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
