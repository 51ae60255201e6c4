//! The name of a node's log: it holds the node's key, so that whoever has a receipt knows whose log to ask for.

use crate::error::LogError;
use crate::note::{Kind, VerifierKey};

const PREFIX: &str = "lockstep.node/";

/// The name of the log of the node with this public key.
pub fn origin_of(node: &[u8; 32]) -> String {
    let digits: String = node.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{digits}")
}

/// What verifies the heads of the log of the node with this public key.
///
/// # Errors
/// It is not a key.
pub fn verifier_of(node: &[u8; 32]) -> Result<VerifierKey, LogError> {
    VerifierKey::new(&origin_of(node), Kind::Plain, node)
}

/// The node's public key, if this is the name of a node's log.
pub fn node_of(origin: &str) -> Option<[u8; 32]> {
    let digits = origin.strip_prefix(PREFIX)?;
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut node = [0; 32];
    for (byte, pair) in node.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // Only lowercase digits come out as they went in.
    (origin_of(&node) == origin).then_some(node)
}
