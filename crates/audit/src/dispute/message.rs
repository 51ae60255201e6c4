//! What the parties say.

use crate::dispute::evidence::Evidence;
use crate::trace::Borders;
use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};

/// The most bytes of one message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Prover: the trace's root before it was salted.
    Trace {
        /// The root.
        root: Hash,
    },
    /// Prover: the two sides of the node that is looked at.
    Children {
        /// Left side.
        left: Hash,
        /// Right side.
        right: Hash,
    },
    /// Challenger: which side to look at next.
    Turn {
        /// The right one.
        right: bool,
    },
    /// Prover: the trace of the position, and that it gives what the receipt claims.
    Position {
        /// Root over its steps.
        root: Hash,
        /// Where settings cut the rank.
        borders: Borders,
        /// That the claimed leaf is in it.
        leaf: Vec<Hash>,
        /// That the borders are right, if settings cut the rank.
        border: Vec<Hash>,
        /// That the claimed token is drawn, if one is.
        drawn: Vec<Hash>,
    },
    /// Prover: the row, and what it is computed from.
    Evidence(Evidence),
}

impl Message {
    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Message::Trace { root } => writer.byte(0).hash(root),
            Message::Children { left, right } => writer.byte(1).hash(left).hash(right),
            Message::Turn { right } => writer.byte(2).byte(u8::from(*right)),
            Message::Position { root, borders, leaf, border, drawn } => {
                writer.byte(3).hash(root).option(borders.top_k).option(borders.top_p);
                writer.hashes(leaf).hashes(border).hashes(drawn)
            }
            Message::Evidence(evidence) => {
                writer.byte(4);
                evidence.write(&mut writer);
                &mut writer
            }
        };
        writer.0
    }

    /// Reads a message. Takes memory in proportion to `bytes`, whatever they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Message, Malformed> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed("a message is too long"));
        }
        let mut reader = Reader(bytes);
        let message = match reader.byte()? {
            0 => Message::Trace { root: reader.hash()? },
            1 => Message::Children { left: reader.hash()?, right: reader.hash()? },
            2 => Message::Turn {
                right: match reader.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("a flag")),
                },
            },
            3 => Message::Position {
                root: reader.hash()?,
                borders: Borders { top_k: reader.option()?, top_p: reader.option()? },
                leaf: reader.hashes()?,
                border: reader.hashes()?,
                drawn: reader.hashes()?,
            },
            4 => Message::Evidence(Evidence::read(&mut reader)?),
            _ => return Err(Malformed("an unknown message")),
        };
        reader.finish()?;
        Ok(message)
    }
}
