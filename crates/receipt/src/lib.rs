//! What proves an answer.
//!
//! Because a run is exact, an answer can carry a signed [`Receipt`]: who computed it, with which weights, from which
//! prompt and settings, and what came out. A receipt holds salted hashes only, so it can be published. An [`Opening`]
//! holds what is behind the hashes; both together are a [`Bundle`], from which anybody with the weights replays the answer and
//! compares. `docs/receipts.md` specifies every byte.
//!
//! Receipts stand in a public log, beside lists of commitments to secrets ([`Seeds`]), lists of numbers without an answer
//! ([`Aborted`]) and clients' [`Countersignature`]s. A [`Statement`] is any of them; a [`Monitor`] reads a whole log and
//! finds what contradicts itself in it.
//!
//! This crate knows nothing of models and devices and is small enough for a browser.
//!
//! ```
//! use receipt::{Activations, Bundle, Claims, Finish, Opening, Salts, Settings, Shaping, SigningKey, sign};
//!
//! let settings = Settings {
//!     temperature: 0.7, top_k: 0, top_p: 0.95, min_p: 0.0, seed: 42, tokens_max: 2,
//!     stop_tokens: vec![2], stop_strings: vec![], shaping: Shaping::default(),
//! };
//! let opening = Opening {
//!     prompt: vec![1, 15043],
//!     output: vec![3186, 2],
//!     settings,
//!     salts: Salts::from_random(&[7; 64]), // from the operating system's generator in earnest
//!     leaves: vec![[0; 32]; 3],
//!     seed: None, // the client chose it
//! };
//! let claims = Claims {
//!     arithmetic: 1,
//!     activations: Activations::A8,
//!     base: [1; 32],
//!     base_files: None,
//!     adapter: None,
//!     tokenizer: None,
//!     template: None,
//!     prompt: opening.prompt_hash(),
//!     settings: opening.settings_hash(),
//!     output: opening.output_hash(),
//!     prompt_tokens: 2,
//!     output_tokens: 2,
//!     finish: Finish::Stop,
//!     seed: 42,
//!     seed_from_client: true,
//!     seed_number: None,
//!     trace: opening.trace_root(),
//!     time_seconds: 1_790_000_000,
//!     price: 0,
//!     opening_seconds: 2_592_000,
//!     number: 0,
//!     previous: None,
//! };
//! let bundle = Bundle { receipt: sign(&SigningKey::from_bytes(&[9; 32]), &claims), opening };
//! assert_eq!(Bundle::from_bytes(&bundle.to_bytes())?.check()?.claims, claims);
//! # Ok::<(), receipt::ReceiptError>(())
//! ```

mod bundle;
mod cbor;
mod claims;
mod countersign;
mod envelope;
mod error;
mod hash;
mod lie;
mod monitor;
mod opening;
mod settings;
mod shaping;
mod signed;
mod statement;

pub mod seed;
pub mod trace;

pub use bundle::Bundle;
pub use claims::{Activations, Claims, Finish};
pub use countersign::{COUNTERSIGNATURE_CONTENT_TYPE, Countersignature};
pub use ed25519_dalek::SigningKey;
pub use error::{Malformed, Mismatch, ReceiptError};
pub use hash::{Hash, Salt};
pub use lie::{Lie, sign_as_if_true};
pub use monitor::{Fault, Monitor, OVERDUE_SECONDS};
pub use opening::{Opening, Salts};
pub use seed::{Aborted, Nonce, SeedOrigin, Seeds};
pub use settings::Settings;
pub use shaping::{Form, Shaping};
pub use signed::{CONTENT_TYPE, RECEIPT_BYTES_MAX, Receipt, hash, id, sign};
pub use statement::{ENTRY_BYTES_MAX, Statement};

/// Version of the format of receipts, bundles and the other statements of a log.
pub const VERSION: u64 = 2;
