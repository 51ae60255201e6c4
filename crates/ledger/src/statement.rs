//! Statements of all balances: signed, with a proof for each account that says nothing of the others.
//!
//! The leaves of a Merkle tree (RFC 6962, SHA-256) are the accounts in the order of their names, each as the text
//! `lockstep balance 1`, account, balance, held and a random salt of 16 bytes, a line each. The statement is a signed note
//! (C2SP) whose text says whose books they are, when, how many transactions and accounts, what all balances add up to, and
//! the tree's root. A proof is one leaf, the hashes that lead to the root, and the note. Whoever has all leaves can add them
//! up; whoever has a proof sees one balance, and of the others only salted hashes.

use crate::account::AccountId;
use crate::money::Micros;
use crate::operation::Time;
use std::fmt;
use tlog::{
    Hash, Hashes, Kind, LogError, Note, NoteSignature, SigningKey, VerifierKey, inclusion_proof, leaf_hash, node_hash,
    root, verify_inclusion,
};

const PREFIX: &str = "lockstep.ledger/";
const PROOF_LINE: &str = "lockstep balance proof 1";
const LEAVES_LINE: &str = "lockstep balances 1";
const LEAF_LINE: &str = "lockstep balance 1";
/// Hashes in a proof: more than any tree is high.
const HASHES_MAX: usize = 64;

/// Why a statement or a proof is not believed.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// It cannot be read.
    #[error("this is not {0}")]
    Shape(&'static str),
    /// The signature is missing or wrong.
    #[error("the statement is not signed by the node {0}")]
    Signature(String),
    /// It is of another node.
    #[error("this is a statement of the node {found}, not of {wanted}")]
    Node {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// It is of another account.
    #[error("this is the proof of {found}, not of {wanted}")]
    Account {
        /// Whose it is.
        found: AccountId,
        /// Whose it should be.
        wanted: AccountId,
    },
    /// The leaf is not in the tree.
    #[error("the proof does not lead to the statement's root: {0} has another balance in it, or none")]
    NotIncluded(AccountId),
    /// The leaves are not those of the statement.
    #[error("these balances are not those that were signed")]
    OtherLeaves,
    /// The leaves do not add up.
    #[error("the balances add up to {0}, not to zero")]
    Sum(Micros),
    /// Something in the tree.
    #[error(transparent)]
    Tree(#[from] LogError),
    /// There are no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(String),
}

/// One account in a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Whose.
    pub account: AccountId,
    /// Its balance.
    pub balance: Micros,
    /// What of it is held.
    pub held: Micros,
    /// Keeps others from guessing what is in the leaf.
    pub salt: [u8; 16],
}

impl Leaf {
    fn hash(&self) -> Hash {
        let Leaf { account, balance, held, salt } = self;
        leaf_hash(format!("{LEAF_LINE}\n{account}\n{balance}\n{held}\n{}\n", hex(salt)).as_bytes())
    }

    /// Account, balance, held and salt, between spaces.
    fn parse(line: &str) -> Option<Leaf> {
        let mut words = line.split(' ');
        let account = words.next()?.parse().ok()?;
        let (balance, held) = (amount(words.next()?)?, amount(words.next()?)?);
        let salt = unhex(words.next()?)?.try_into().ok()?;
        words.next().is_none().then_some(Leaf { account, balance, held, salt })
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.account, self.balance, self.held, hex(&self.salt))
    }
}

/// What a statement says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Public key of the node whose books they are.
    pub node: [u8; 32],
    /// When, in microseconds since 1970.
    pub time: Time,
    /// Transactions so far.
    pub transactions: u64,
    /// Accounts in it.
    pub accounts: u64,
    /// What all balances add up to: zero, if the books are sound.
    pub sum: Micros,
    /// Root of the tree over the accounts.
    pub root: Hash,
}

impl Statement {
    /// Makes a statement over leaves, which are in the order of their accounts.
    ///
    /// # Errors
    /// The balances are too large to be added up.
    pub fn over(leaves: &[Leaf], time: Time, transactions: u64, node: [u8; 32]) -> Result<Statement, StatementError> {
        let sum = leaves.iter().try_fold(Micros::ZERO, |sum, leaf| sum.plus(leaf.balance));
        let sum = sum.ok_or(StatementError::Shape("a list of balances that can be added up"))?;
        let accounts = leaves.len() as u64;
        let root = root(&Tree::over(leaves), accounts)?;
        Ok(Statement { node, time, transactions, accounts, sum, root })
    }

    fn text(&self) -> String {
        let Statement { node, time, transactions, accounts, sum, root } = self;
        let origin = origin_of(node);
        format!(
            "{origin}\ntime {time}\ntransactions {transactions}\naccounts {accounts}\nsum {sum}\nroot {}\n",
            hex(root)
        )
    }

    /// Signs it with the node's key.
    ///
    /// # Errors
    /// It is a statement of another node.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, StatementError> {
        let own = key.verifying_key().to_bytes();
        if own != self.node {
            return Err(StatementError::Node { found: hex(&self.node), wanted: hex(&own) });
        }
        let text = self.text();
        let signature = NoteSignature::sign(&origin_of(&own), key, &text)?;
        Ok(Note { text, signatures: vec![signature] })
    }

    /// Reads a signed statement, and verifies that the node it names signed it; and that this is `node`, if given.
    ///
    /// # Errors
    /// It is not a statement, or not signed by the node.
    pub fn verify(note: &Note, node: Option<&[u8; 32]>) -> Result<Statement, StatementError> {
        let statement = Statement::parse(&note.text).ok_or(StatementError::Shape("a statement of balances"))?;
        let found = hex(&statement.node);
        if let Some(wanted) = node.filter(|node| **node != statement.node) {
            return Err(StatementError::Node { found, wanted: hex(wanted) });
        }
        let key = VerifierKey::new(&origin_of(&statement.node), Kind::Plain, &statement.node)?;
        note.verify(&key).map_err(|_| StatementError::Signature(found))?;
        Ok(statement)
    }

    fn parse(text: &str) -> Option<Statement> {
        let mut lines = text.lines();
        let node = unhex(lines.next()?.strip_prefix(PREFIX)?)?.try_into().ok()?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let statement = Statement {
            node,
            time: field("time")?.parse().ok()?,
            transactions: field("transactions")?.parse().ok()?,
            accounts: field("accounts")?.parse().ok()?,
            sum: amount(field("sum")?)?,
            root: unhex(field("root")?)?.try_into().ok()?,
        };
        // One way to write it.
        (statement.text() == text).then_some(statement)
    }
}

/// All leaves of a statement, for whoever adds them up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaves {
    /// In the order of their accounts.
    pub leaves: Vec<Leaf>,
    /// The statement.
    pub note: Note,
}

impl Leaves {
    /// Reads leaves.
    ///
    /// # Errors
    /// They are not leaves.
    pub fn parse(text: &str) -> Result<Leaves, StatementError> {
        let wrong = || StatementError::Shape("a list of balances");
        let (list, note) = text.split_once("\n\n").ok_or_else(wrong)?;
        let list = list.strip_prefix(LEAVES_LINE).ok_or_else(wrong)?;
        let leaves =
            list.split('\n').skip(1).map(|line| Leaf::parse(line).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        Ok(Leaves { leaves, note: Note::parse(note.as_bytes())? })
    }

    /// Whether these are the leaves that were signed, each account once, and they add up to zero.
    ///
    /// # Errors
    /// They are not or do not.
    pub fn verify(&self, node: Option<&[u8; 32]>) -> Result<Statement, StatementError> {
        let signed = Statement::verify(&self.note, node)?;
        let rising = self.leaves.windows(2).all(|two| two[0].account < two[1].account);
        let own = Statement::over(&self.leaves, signed.time, signed.transactions, signed.node)?;
        if !rising || own != signed {
            return Err(StatementError::OtherLeaves);
        }
        if signed.sum == Micros::ZERO { Ok(signed) } else { Err(StatementError::Sum(signed.sum)) }
    }

    /// The proofs of all accounts, in their order.
    ///
    /// # Errors
    /// There are none.
    pub fn proofs(&self) -> Result<Vec<BalanceProof>, StatementError> {
        let tree = Tree::over(&self.leaves);
        let size = self.leaves.len() as u64;
        let proof = |(index, leaf): (u64, &Leaf)| {
            let hashes = inclusion_proof(&tree, index, size)?;
            Ok(BalanceProof { leaf: leaf.clone(), index, hashes, note: self.note.clone() })
        };
        (0..).zip(&self.leaves).map(proof).collect()
    }
}

impl Leaves {
    /// The proof of one account; none if it is not among them.
    ///
    /// # Errors
    /// There is none.
    pub fn proof(&self, account: &AccountId) -> Result<Option<BalanceProof>, StatementError> {
        let Some(index) = self.leaves.iter().position(|leaf| leaf.account == *account) else { return Ok(None) };
        let (tree, size) = (Tree::over(&self.leaves), self.leaves.len() as u64);
        let hashes = inclusion_proof(&tree, index as u64, size)?;
        let (leaf, note) = (self.leaves[index].clone(), self.note.clone());
        Ok(Some(BalanceProof { leaf, index: index as u64, hashes, note }))
    }
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{LEAVES_LINE}")?;
        self.leaves.iter().try_for_each(|leaf| writeln!(f, "{leaf}"))?;
        write!(f, "\n{}", self.note)
    }
}

/// That one account has a balance in a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalanceProof {
    /// The account.
    pub leaf: Leaf,
    /// Which leaf it is.
    pub index: u64,
    /// From the leaf's sibling to the root.
    pub hashes: Vec<Hash>,
    /// The statement.
    pub note: Note,
}

impl BalanceProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<BalanceProof, StatementError> {
        let wrong = || StatementError::Shape("a proof of a balance");
        let (proof, note) = text.split_once("\n\n").ok_or_else(wrong)?;
        let mut lines = proof.split('\n');
        let first = lines.next().filter(|line| *line == PROOF_LINE);
        let leaf = first.and_then(|_| Leaf::parse(lines.next()?)).ok_or_else(wrong)?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")?.parse().ok()).ok_or_else(wrong)?;
        let hash = |line: &str| unhex(line)?.try_into().ok();
        let hashes: Option<Vec<Hash>> = lines.take(HASHES_MAX + 1).map(hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES_MAX).ok_or_else(wrong)?;
        Ok(BalanceProof { leaf, index, hashes, note: Note::parse(note.as_bytes())? })
    }

    /// Whether it shows that the account has this balance in a statement of the node; of `account` and `node`, if given.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, account: Option<&AccountId>, node: Option<&[u8; 32]>) -> Result<Statement, StatementError> {
        let found = &self.leaf.account;
        if let Some(wanted) = account.filter(|wanted| *wanted != found) {
            return Err(StatementError::Account { found: found.clone(), wanted: wanted.clone() });
        }
        let statement = Statement::verify(&self.note, node)?;
        let hash = self.leaf.hash();
        if verify_inclusion(&hash, self.index, statement.accounts, &statement.root, &self.hashes) {
            Ok(statement)
        } else {
            Err(StatementError::NotIncluded(found.clone()))
        }
    }
}

impl fmt::Display for BalanceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{PROOF_LINE}\n{}\nindex {}", self.leaf, self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", hex(hash)))?;
        write!(f, "\n{}", self.note)
    }
}

/// All complete subtrees over some leaves, level by level.
struct Tree(Vec<Vec<Hash>>);

impl Tree {
    fn over(leaves: &[Leaf]) -> Tree {
        let mut levels = vec![leaves.iter().map(Leaf::hash).collect::<Vec<_>>()];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let (pairs, _) = last.as_chunks::<2>();
            levels.push(pairs.iter().map(|[left, right]| node_hash(left, right)).collect());
        }
        Tree(levels)
    }
}

impl Hashes for Tree {
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let level = self.0.get(level as usize);
        let hash = usize::try_from(index).ok().and_then(|index| level?.get(index));
        hash.copied().ok_or(LogError::Absent("a hash beyond the tree"))
    }
}

fn origin_of(node: &[u8; 32]) -> String {
    format!("{PREFIX}{}", hex(node))
}

/// An amount that is written in the one way it is printed; balances may be beyond what one operation moves.
fn amount(text: &str) -> Option<Micros> {
    let (whole, decimals) = text.split_once('.')?;
    let micros: i64 = format!("{whole}{decimals}").parse().ok()?;
    Some(Micros(micros)).filter(|micros| micros.to_string() == text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    (rest.is_empty() && hex(&bytes) == text).then_some(bytes)
}
