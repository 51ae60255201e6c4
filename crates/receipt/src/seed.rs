//! Seeds that nobody can choose: *seed* = H(client's nonce ‖ node's secret ‖ request).
//!
//! A node numbers its secrets 0, 1, 2, … and logs a hash of each, in lists ([`Seeds`]), before it uses them. A request
//! without a seed of its own takes the next number when it is admitted, and is told the secret then. So the node cannot
//! pick a seed that suits it (it is bound to the secret), neither can the client (it does not know the secret), and a
//! number that was taken must turn up in the log: in a receipt, or in a list of aborted ones ([`Aborted`]). Numbers used
//! twice or missing are seen by whoever reads the log ([`crate::Monitor`]).

use crate::VERSION;
use crate::cbor::{Reader, Writer};
use crate::envelope;
use crate::error::{Malformed, ReceiptError};
use crate::hash::{Domain, Hash, token_bytes};
use crate::settings::Settings;
use ed25519_dalek::SigningKey;

/// The most secrets one list commits to.
pub const SEEDS_MAX: usize = 1024;

/// The most ranges of numbers in one list of aborted ones.
pub const ABORTED_RANGES_MAX: usize = 1024;

/// The most bytes of a nonce.
pub const NONCE_BYTES_MAX: usize = 64;

/// Content type of a list of commitments.
pub const SEEDS_CONTENT_TYPE: &str = "application/vnd.lockstep.seeds+cbor";

/// Content type of a list of aborted numbers.
pub const ABORTED_CONTENT_TYPE: &str = "application/vnd.lockstep.aborted+cbor";

/// The client's share of a seed: at most [`NONCE_BYTES_MAX`] bytes, none if it sent nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// None if there are too many bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Nonce> {
        (bytes.len() <= NONCE_BYTES_MAX).then(|| Nonce(bytes.to_vec()))
    }
}

impl std::ops::Deref for Nonce {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What a numbered seed was made of, beside the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedOrigin {
    /// The client's share.
    pub nonce: Nonce,
    /// The node's share.
    pub secret: Hash,
    /// Index of the log entry, a list of [`Seeds`], in which the node committed to it.
    pub entry: u64,
}

/// What is asked for, but for the seed: base, adapter, settings and prompt.
pub fn request_hash(base: &Hash, adapter: Option<&Hash>, settings: &Settings, prompt: &[u32]) -> Hash {
    let settings = Settings { seed: 0, ..settings.clone() }.encode();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[Domain::Request as u8]).update(base).update(adapter.unwrap_or(&[0; 32]));
    hasher.update(blake3::hash(&settings).as_bytes()).update(&token_bytes(prompt));
    *hasher.finalize().as_bytes()
}

/// The seed: 53 bits, so that every reader of JSON can hold it.
pub fn derive(nonce: &Nonce, secret: &Hash, request: &Hash) -> u64 {
    let mut hasher = blake3::Hasher::new();
    // A nonce has at most 64 bytes.
    hasher.update(&[Domain::Seed as u8, nonce.len() as u8]).update(nonce).update(secret).update(request);
    let hash = *hasher.finalize().as_bytes();
    u64::from_le_bytes(std::array::from_fn(|byte| hash[byte])) >> 11
}

/// What the node logs of a secret before it uses it.
pub fn commitment(number: u64, secret: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[Domain::Commitment as u8]).update(&number.to_le_bytes()).update(secret);
    *hasher.finalize().as_bytes()
}

/// A list of commitments to secrets with consecutive numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// Number of the first.
    pub first: u64,
    /// [`commitment`] of each, at least one and at most [`SEEDS_MAX`].
    pub commitments: Vec<Hash>,
    /// When it was made, in seconds since 1970.
    pub time_seconds: u64,
}

impl Seeds {
    /// Signs the list: the bytes of a log entry.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(4);
        writer.uint(1).uint(VERSION);
        writer.uint(2).uint(self.first);
        writer.uint(3).bytes(self.commitments.as_flattened());
        writer.uint(4).uint(self.time_seconds);
        envelope::seal(key, SEEDS_CONTENT_TYPE, &writer.finish())
    }

    /// Reads a list and verifies its signature; gives the node that made it too.
    pub fn parse(bytes: &[u8]) -> Result<(Seeds, Hash), ReceiptError> {
        let sealed = envelope::open(SEEDS_CONTENT_TYPE, bytes)?;
        let mut reader = Reader::new(sealed.payload);
        let mut fields = reader.fields()?;
        check_version(fields.required(1)?.uint()?)?;
        let seeds = Seeds {
            first: fields.required(2)?.uint()?,
            commitments: fields.required(3)?.groups_of()?.to_vec(),
            time_seconds: fields.required(4)?.uint()?,
        };
        fields.finish()?;
        reader.finish()?;
        let count = seeds.commitments.len();
        if !(1..=SEEDS_MAX).contains(&count) || seeds.first.checked_add(count as u64).is_none() {
            return Err(Malformed::Range.into());
        }
        Ok((seeds, sealed.signer))
    }

    /// The first number behind the list.
    pub fn end(&self) -> u64 {
        self.first + self.commitments.len() as u64
    }

    /// Whether the list commits to this secret under this number.
    pub fn commits(&self, number: u64, secret: &Hash) -> bool {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.commitments.get(index)) == Some(&commitment(number, secret))
    }
}

/// Numbers that were taken and led to no receipt, or will never be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aborted {
    /// Ascending ranges that do not touch, each as its first number and the number of numbers, at least one.
    pub ranges: Vec<(u64, u64)>,
    /// When it was made, in seconds since 1970.
    pub time_seconds: u64,
}

impl Aborted {
    /// Signs the list: the bytes of a log entry.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(3);
        writer.uint(1).uint(VERSION);
        writer.uint(2).array(2 * self.ranges.len());
        for (first, count) in &self.ranges {
            writer.uint(*first).uint(*count);
        }
        writer.uint(3).uint(self.time_seconds);
        envelope::seal(key, ABORTED_CONTENT_TYPE, &writer.finish())
    }

    /// Reads a list and verifies its signature; gives the node that made it too.
    pub fn parse(bytes: &[u8]) -> Result<(Aborted, Hash), ReceiptError> {
        let sealed = envelope::open(ABORTED_CONTENT_TYPE, bytes)?;
        let mut reader = Reader::new(sealed.payload);
        let mut fields = reader.fields()?;
        check_version(fields.required(1)?.uint()?)?;
        let aborted = Aborted { ranges: read_ranges(fields.required(2)?)?, time_seconds: fields.required(3)?.uint()? };
        fields.finish()?;
        reader.finish()?;
        Ok((aborted, sealed.signer))
    }

    /// Groups ascending numbers into ranges.
    pub fn ranges_of(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = vec![];
        for number in numbers {
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == number => *count += 1,
                _ => ranges.push((number, 1)),
            }
        }
        ranges
    }
}

fn read_ranges(reader: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Malformed> {
    let numbers = reader.array()?;
    if numbers == 0 || numbers % 2 != 0 || numbers / 2 > ABORTED_RANGES_MAX {
        return Err(Malformed::Range);
    }
    let mut ranges = Vec::with_capacity(numbers / 2);
    let mut end = None;
    for _ in 0..numbers / 2 {
        let (first, count) = (reader.uint()?, reader.uint()?);
        // Ranges that touch would be one.
        if count == 0 || end.is_some_and(|end| first <= end) {
            return Err(Malformed::Range);
        }
        end = Some(first.checked_add(count).ok_or(Malformed::Range)?);
        ranges.push((first, count));
    }
    Ok(ranges)
}

fn check_version(version: u64) -> Result<(), ReceiptError> {
    if version == VERSION { Ok(()) } else { Err(ReceiptError::Version(version)) }
}
