//! A log that cannot take anything back.
//!
//! Entries are appended and never changed. A *log head* says how many there are and the root of the Merkle tree over
//! them (RFC 6962, SHA-256), signed. From the tree anybody can be shown, in a few hashes, that an entry is in the log
//! ([`inclusion_proof`]) and that a later log head only appended to an earlier one ([`consistency_proof`]). *Witnesses*
//! ([`Witness`]) sign log heads that pass the second test; a log that shows different people different histories gets
//! only one of them witnessed.
//!
//! All formats are C2SP's: `tlog-tiles` ([`Tile`]), `signed-note` ([`Note`]), `tlog-checkpoint` ([`Head`]),
//! `tlog-cosignature`, `tlog-witness`, `tlog-proof` ([`Proof`]). So any client, monitor or witness of such logs
//! reads this one. `docs/log.md` says what Lockstep puts in it.
//!
//! [`Log`] keeps a log on disk: durable group by group, whole after a kill at any instant. [`Reader`] reads one from
//! anywhere and believes nothing but the key.
//!
//! ```
//! use tlog::{Head, Memory, inclusion_proof, leaf_hash, root, verify_inclusion};
//!
//! let mut tree = Memory::default();
//! for entry in ["a", "b", "c"] {
//!     tree.push(leaf_hash(entry.as_bytes()));
//! }
//! let proof = inclusion_proof(&tree, 1, 3)?;
//! assert!(verify_inclusion(&leaf_hash(b"b"), 1, 3, &root(&tree, 3)?, &proof));
//! # Ok::<(), tlog::LogError>(())
//! ```

mod error;
mod head;
mod journal;
mod log;
mod merkle;
mod names;
mod note;
mod origin;
mod proof;
mod reader;
mod state;
mod tile;
mod tree;
mod witness;

pub use ed25519_dalek::SigningKey;
pub use error::LogError;
pub use head::{HEAD_BYTES_MAX, Head};
pub use journal::Journal;
pub use log::{Appended, Limits, Log, name_of};
pub use merkle::{
    Hash, Hashes, Memory, consistency_proof, empty_root, inclusion_proof, leaf_hash, node_hash, root,
    verify_consistency, verify_inclusion,
};
pub use names::{Name, Names};
pub use note::{Kind, Note, NoteSignature, VerifierKey};
pub use origin::{node_of, origin_of, verifier_of};
pub use proof::Proof;
pub use reader::{Folder, Reader, Source};
pub use tile::{ENTRY_BYTES_MAX, TILE_WIDTH, Tile, join_entries, split_entries};
pub use witness::{Known, Refusal, Witness, add_checkpoint_body};
