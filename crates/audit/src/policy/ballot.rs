//! **Rule.** Several auditors judge one receipt. Each first publishes a commitment to its verdict, and opens it only when all
//! have committed or the time to commit is over: nobody can copy the others. Whoever committed and does not open counts as
//! silent. If all that opened agree, that is the outcome; if they do not, the receipt goes to a dispute, which has one right
//! answer, and those it proves wrong pay: a majority decides nothing, so buying one buys nothing.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use receipt::Hash;
use std::collections::BTreeMap;

/// What an auditor found: nothing, or the first position that differs (none if it is not about one).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Opinion {
    /// The receipt is true.
    Equal,
    /// It is not.
    Differs(Option<u64>),
}

impl Opinion {
    fn bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        if let Opinion::Differs(position) = self {
            bytes[0] = 1;
            if let Some(position) = position {
                bytes[1] = 1;
                bytes[2..].copy_from_slice(&position.to_le_bytes());
            }
        }
        bytes
    }
}

/// An opened verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reveal {
    /// What was found.
    pub opinion: Opinion,
    /// 32 random bytes.
    pub salt: [u8; 32],
}

/// A signed commitment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commitment {
    /// Public key of the auditor.
    pub auditor: Hash,
    /// Of the reveal.
    pub hash: Hash,
    /// Over receipt and hash.
    pub signature: [u8; 64],
}

/// What the auditors came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All that opened agree. Who committed and stayed silent is named.
    Agreed(Opinion, Vec<Hash>),
    /// They do not: a dispute decides.
    Dispute(BTreeMap<Hash, Opinion>),
    /// Fewer opened than were asked for.
    TooFew(usize),
}

/// One receipt's vote.
#[derive(Clone, Debug)]
pub struct Ballot {
    receipt: Hash,
    committed: BTreeMap<Hash, Hash>,
    opened: BTreeMap<Hash, Opinion>,
    opening: bool,
}

fn committed(receipt: &Hash, auditor: &Hash, reveal: &Reveal) -> Hash {
    let mut hasher = blake3::Hasher::new();
    // The auditor is in it, so that nobody commits to a copy of another's commitment.
    hasher.update(b"lockstep verdict 1").update(receipt).update(auditor);
    *hasher.update(&reveal.salt).update(&reveal.opinion.bytes()).finalize().as_bytes()
}

fn signed(receipt: &Hash, hash: &Hash) -> Vec<u8> {
    [&b"lockstep commitment 1"[..], receipt, hash].concat()
}

impl Commitment {
    /// An auditor's.
    pub fn new(key: &SigningKey, receipt: &Hash, reveal: &Reveal) -> Commitment {
        let auditor = key.verifying_key().to_bytes();
        let hash = committed(receipt, &auditor, reveal);
        Commitment { auditor, hash, signature: key.sign(&signed(receipt, &hash)).to_bytes() }
    }
}

impl Ballot {
    /// Of a receipt; nobody has committed yet.
    pub fn new(receipt: Hash) -> Ballot {
        Ballot { receipt, committed: BTreeMap::new(), opened: BTreeMap::new(), opening: false }
    }

    /// Takes a commitment. False if opening has begun, if the auditor committed before, or if the signature is not its own.
    pub fn commit(&mut self, commitment: &Commitment) -> bool {
        let signature = Signature::from_bytes(&commitment.signature);
        let valid = VerifyingKey::from_bytes(&commitment.auditor)
            .and_then(|key| key.verify_strict(&signed(&self.receipt, &commitment.hash), &signature));
        if self.opening || valid.is_err() || self.committed.contains_key(&commitment.auditor) {
            return false;
        }
        self.committed.insert(commitment.auditor, commitment.hash);
        true
    }

    /// Ends the time to commit.
    pub fn start_opening(&mut self) {
        self.opening = true;
    }

    /// Takes a reveal. False if it is too early or not what was committed to.
    pub fn open(&mut self, auditor: &Hash, reveal: &Reveal) -> bool {
        let fits = self.committed.get(auditor) == Some(&committed(&self.receipt, auditor, reveal));
        if self.opening && fits {
            self.opened.insert(*auditor, reveal.opinion);
        }
        self.opening && fits
    }

    /// What they came to, where at least `needed` had to open.
    pub fn outcome(&self, needed: usize) -> Outcome {
        let mut opinions = self.opened.values();
        match opinions.next() {
            Some(first) if self.opened.len() >= needed => {
                if opinions.all(|opinion| opinion == first) {
                    let silent = self.committed.keys().filter(|auditor| !self.opened.contains_key(*auditor));
                    Outcome::Agreed(*first, silent.copied().collect())
                } else {
                    Outcome::Dispute(self.opened.clone())
                }
            }
            _ => Outcome::TooFew(self.opened.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auditor(number: u8, opinion: Opinion) -> (SigningKey, Reveal) {
        (SigningKey::from_bytes(&[number; 32]), Reveal { opinion, salt: [number; 32] })
    }

    #[test]
    fn a_liar_among_auditors_leads_to_a_dispute_and_silence_is_named() {
        let receipt = [9; 32];
        let mut ballot = Ballot::new(receipt);
        let differs = Opinion::Differs(Some(31));
        let all = [auditor(1, differs), auditor(2, Opinion::Equal), auditor(3, differs)];
        let key = |i: usize| all[i].0.verifying_key().to_bytes();
        for (signing, reveal) in &all {
            assert!(ballot.commit(&Commitment::new(signing, &receipt, reveal)));
        }
        assert!(!ballot.open(&key(0), &all[0].1), "nobody opens before all have committed");
        ballot.start_opening();
        assert!(ballot.open(&key(0), &all[0].1));
        assert!(!ballot.open(&key(1), &all[0].1), "a verdict cannot be changed to the first one opened");
        assert_eq!(ballot.outcome(2), Outcome::TooFew(1));
        assert!(ballot.open(&key(2), &all[2].1));
        assert_eq!(ballot.outcome(2), Outcome::Agreed(differs, vec![key(1)]));
        assert!(ballot.open(&key(1), &all[1].1));
        assert!(matches!(ballot.outcome(2), Outcome::Dispute(opinions) if opinions.len() == 3));
    }

    #[test]
    fn commitments_cannot_be_copied_forged_or_made_late() {
        let receipt = [9; 32];
        let mut ballot = Ballot::new(receipt);
        let (key, reveal) = auditor(1, Opinion::Equal);
        let commitment = Commitment::new(&key, &receipt, &reveal);
        let (thief, _) = auditor(2, Opinion::Equal);
        let stolen = Commitment { auditor: thief.verifying_key().to_bytes(), ..commitment };
        assert!(!ballot.commit(&stolen), "not its signature");
        let signature = thief.sign(&signed(&receipt, &commitment.hash)).to_bytes();
        assert!(ballot.commit(&Commitment { signature, ..stolen }), "a copied commitment may be signed");
        assert!(ballot.commit(&commitment) && !ballot.commit(&commitment));
        ballot.start_opening();
        assert!(!ballot.open(&stolen.auditor, &reveal), "but it never opens");
        let (late, reveal) = auditor(3, Opinion::Equal);
        assert!(!ballot.commit(&Commitment::new(&late, &receipt, &reveal)));
    }
}
