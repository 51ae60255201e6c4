//! Everything that was said, signed and chained, so that a third party decides from it alone.

use crate::dispute::case::Case;
use crate::dispute::game::{Game, Party, Ruling};
use crate::dispute::message::{MESSAGE_BYTES_MAX, Message};
use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// The most messages of a dispute: down three trees of at most 2⁴⁰ leaves, and what is between.
const ENTRIES_MAX: usize = 256;

/// Why a transcript shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TranscriptError {
    /// Not the bytes of one.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Message number so-and-so was not signed by the party whose turn it was.
    #[error("message {0} is not signed by the party whose turn it was")]
    Signature(usize),
    /// It is about another receipt.
    #[error("the transcript is about another receipt")]
    Other,
    /// It ends before it is decided.
    #[error("the transcript ends while it is the {0:?}'s turn: nothing is decided")]
    Unfinished(Party),
    /// Messages follow the decision.
    #[error("messages follow the decision")]
    Trailing,
}

/// One message as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Bytes of the message.
    pub message: Vec<u8>,
    /// Of its sender, over everything before and the message.
    pub signature: [u8; 64],
}

/// All messages of a dispute, in order. The prover signs with the receipt's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transcript {
    /// Hash of the receipt.
    pub receipt: Hash,
    /// Public key of the challenger.
    pub challenger: Hash,
    /// The messages.
    pub entries: Vec<Entry>,
    chain: Hash,
}

impl Transcript {
    /// An empty one.
    pub fn new(case: &Case, challenger: Hash) -> Transcript {
        let chain = *blake3::Hasher::new()
            .update(b"lockstep dispute 1")
            .update(&case.receipt.hash)
            .update(&challenger)
            .finalize()
            .as_bytes();
        Transcript { receipt: case.receipt.hash, challenger, entries: vec![], chain }
    }

    /// What the sender of the next message signs.
    fn signed(&self, message: &[u8]) -> Hash {
        *blake3::Hasher::new().update(&self.chain).update(message).finalize().as_bytes()
    }

    /// Signs a message to come next.
    pub fn sign(&self, key: &SigningKey, message: &Message) -> Entry {
        let message = message.to_bytes();
        let signature = key.sign(&self.signed(&message)).to_bytes();
        Entry { message, signature }
    }

    /// Appends an entry if the party whose turn it is signed it; gives the message.
    pub fn push(&mut self, case: &Case, party: Party, entry: Entry) -> Result<Message, TranscriptError> {
        let number = self.entries.len();
        let key = match party {
            Party::Prover => case.receipt.node,
            Party::Challenger => self.challenger,
        };
        let signed = self.signed(&entry.message);
        let valid = VerifyingKey::from_bytes(&key)
            .and_then(|key| key.verify_strict(&signed, &Signature::from_bytes(&entry.signature)));
        if valid.is_err() || number >= ENTRIES_MAX {
            return Err(TranscriptError::Signature(number));
        }
        // What is signed and yet not a message is a foul like any other: an empty list of sides never fits.
        let message =
            Message::from_bytes(&entry.message).unwrap_or(Message::Children { left: [0; 32], right: [0; 32] });
        self.chain = signed;
        self.entries.push(entry);
        Ok(message)
    }

    /// Decides from the transcript alone.
    pub fn judge(&self, case: &Case) -> Result<Ruling, TranscriptError> {
        if self.receipt != case.receipt.hash {
            return Err(TranscriptError::Other);
        }
        let mut game = Game::new(case);
        let mut again = Transcript::new(case, self.challenger);
        for entry in &self.entries {
            let party = game.turn().ok_or(TranscriptError::Trailing)?;
            game.take(&again.push(case, party, entry.clone())?);
        }
        match (game.ruling(), game.turn()) {
            (Some(ruling), _) => Ok(ruling.clone()),
            (None, party) => Err(TranscriptError::Unfinished(party.unwrap_or(Party::Prover))),
        }
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(b"lockstep dispute 1").hash(&self.receipt).hash(&self.challenger).number(self.entries.len());
        for entry in &self.entries {
            writer.bytes(&entry.message);
            writer.0.extend(entry.signature);
        }
        writer.0
    }

    /// Reads a transcript; nothing it says is checked yet. Takes memory in proportion to `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Transcript, TranscriptError> {
        let mut reader = Reader(bytes);
        if reader.bytes()? != b"lockstep dispute 1" {
            return Err(Malformed("their heading").into());
        }
        let (receipt, challenger) = (reader.hash()?, reader.hash()?);
        let mut transcript = Transcript { receipt, challenger, entries: vec![], chain: [0; 32] };
        for _ in 0..reader.count(72)? {
            let message = reader.bytes()?;
            if message.len() > MESSAGE_BYTES_MAX || transcript.entries.len() >= ENTRIES_MAX {
                return Err(Malformed("a message is too long, or there are too many").into());
            }
            transcript.entries.push(Entry { message: message.to_vec(), signature: reader.array()? });
        }
        reader.finish()?;
        Ok(transcript)
    }
}
