//! What a client gets to find its receipt.

use crate::hex;
use receipt::Hash;
use tlog::Name;

/// A receipt's name and the key to what opens it.
///
/// The name can be computed by whoever reads the log. So the name alone opens only the receipt, which tells nothing; the
/// key, which only the client gets, opens the tokens too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub(crate) name: Name,
    pub(crate) key: Option<[u8; 16]>,
}

impl Ticket {
    /// Of the receipt with this hash.
    pub(crate) fn new(hash: &Hash, key: [u8; 16]) -> Ticket {
        Ticket { name: std::array::from_fn(|byte| hash[byte]), key: Some(key) }
    }

    /// `rcpt-NAME-KEY`, or `rcpt-NAME` without the key.
    pub(crate) fn parse(id: &str) -> Option<Ticket> {
        let rest = id.strip_prefix("rcpt-")?;
        match rest.split_once('-') {
            None => Some(Ticket { name: hex::decode(rest)?, key: None }),
            Some((name, key)) => Some(Ticket { name: hex::decode(name)?, key: Some(hex::decode(key)?) }),
        }
    }

    /// The same without its key.
    pub(crate) fn public(self) -> Ticket {
        Ticket { key: None, ..self }
    }

    /// The id a client sees.
    pub(crate) fn id(&self) -> String {
        let name = hex::encode(&self.name);
        match &self.key {
            None => format!("rcpt-{name}"),
            Some(key) => format!("rcpt-{name}-{}", hex::encode(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is() {
        for key in [None, Some([0xab; 16])] {
            let ticket = Ticket { name: [0x1f; 16], key };
            assert_eq!(Ticket::parse(&ticket.id()), Some(ticket));
        }
        let name = "1f".repeat(16);
        for id in [&name, "rcpt-", "rcpt-1f", &format!("rcpt-{name}-"), &format!("rcpt-{}", name.to_uppercase())] {
            assert_eq!(Ticket::parse(id), None, "{id}");
        }
    }
}
