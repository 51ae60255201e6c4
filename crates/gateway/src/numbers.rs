//! Which of the node's numbered secrets each request gets, and what becomes of the numbers.
//!
//! A secret's commitment is in the log before a request can take it; a number that was taken is in the log afterwards,
//! with a receipt or as aborted. What was open when a server ended is aborted when it starts again, so no secret that
//! anybody may have seen is ever used twice.

use crate::folder::Folder;
use crate::start::StartError;
use receipt::{Aborted, Hash, Nonce, SeedOrigin, Seeds, seed};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Secrets a list commits to.
const LIST: u64 = 256;
/// With fewer left a new list is logged.
const LEFT_MIN: u64 = 128;

/// The numbers of a node.
pub(crate) struct Numbers {
    secret: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next to be taken.
    next: u64,
    /// Lists in the log that still matter: first number, end, index of the entry.
    lists: VecDeque<(u64, u64, u64)>,
    /// Numbers that were taken and are not settled, with the log's size then.
    open: BTreeMap<u64, u64>,
    /// Numbers to be logged as aborted.
    aborted: BTreeSet<u64>,
}

impl State {
    /// Numbers that are committed to and not taken.
    fn left(&self) -> u64 {
        self.lists.back().map_or(0, |(_, end, _)| end.saturating_sub(self.next))
    }
}

/// From where the log must be read to know all that is open: written beside it whenever a list is logged, and now and then
/// between, or a server whose clients choose their own seeds would read more at every start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Mark {
    /// Everything below was settled.
    pub(crate) settled: u64,
    /// Everything below was committed to.
    pub(crate) committed: u64,
    /// Entries from here on tell the rest.
    pub(crate) entry: u64,
}

impl Mark {
    /// The mark in a file; the log's beginning if there is none, or it makes no sense.
    pub(crate) fn read(path: &Path, log_size: u64) -> Mark {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(settled)), Some(Ok(committed)), Some(Ok(entry))) if entry <= log_size && settled <= committed => {
                Mark { settled, committed, entry }
            }
            _ => Mark::default(),
        }
    }

    /// Writes it, durably.
    pub(crate) fn write(&self, folder: &Folder, name: &str) -> Result<(), StartError> {
        folder.write(name, format!("{} {} {}\n", self.settled, self.committed, self.entry).as_bytes())
    }
}

/// A number that a request took. Dropped without a receipt it becomes aborted.
pub(crate) struct Taken {
    pub(crate) number: u64,
    pub(crate) origin: SeedOrigin,
    numbers: Arc<Numbers>,
    settled: bool,
}

impl Numbers {
    /// Numbers from `next` on; none is committed to yet.
    pub(crate) fn new(secret: [u8; 32], next: u64) -> Arc<Numbers> {
        Arc::new(Numbers { secret, state: Mutex::new(State { next, ..State::default() }) })
    }

    /// Takes the next number; none if all that are committed to are taken. `log_size` is the log's size now.
    pub(crate) fn take(self: &Arc<Numbers>, nonce: Nonce, log_size: u64) -> Option<Taken> {
        let mut state = self.lock();
        let number = state.next;
        let (.., entry) = *state.lists.iter().find(|(first, end, _)| (*first..*end).contains(&number))?;
        state.next += 1;
        state.open.insert(number, log_size);
        drop(state);
        let origin = SeedOrigin { nonce, secret: self.secret_of(number), entry };
        Some(Taken { number, origin, numbers: self.clone(), settled: false })
    }

    /// Whether few numbers are left, so that a list is to be logged.
    pub(crate) fn are_few(&self) -> bool {
        self.lock().left() < LEFT_MIN
    }

    /// The list to log now, if few numbers are left, and what to write beside the log before.
    pub(crate) fn wanted(&self, log_size: u64, time_seconds: u64) -> Option<(Seeds, Mark)> {
        let mark = self.mark(log_size);
        let state = self.lock();
        if state.left() >= LEFT_MIN {
            return None;
        }
        let committed = state.next + state.left();
        let commitments = (committed..committed + LIST).map(|number| seed::commitment(number, &self.secret_of(number)));
        let seeds = Seeds { first: committed, commitments: commitments.collect(), time_seconds };
        Some((seeds, mark))
    }

    /// The mark of a log of this size as it is now.
    pub(crate) fn mark(&self, log_size: u64) -> Mark {
        let state = self.lock();
        let committed = state.lists.back().map_or(state.next, |(_, end, _)| *end);
        let oldest = state.open.first_key_value().map(|(number, size)| (*number, *size));
        // What is to be aborted is among the open until it is logged.
        let (settled, entry) = oldest.unwrap_or((state.next, log_size));
        Mark { settled, committed, entry }
    }

    /// A list is in the log, as this entry.
    pub(crate) fn committed(&self, first: u64, end: u64, entry: u64) {
        let mut state = self.lock();
        let next = state.next;
        state.lists.retain(|(_, end, _)| *end > next);
        state.lists.push_back((first, end, entry));
    }

    /// Numbers to be logged as aborted now, as many as one entry holds.
    pub(crate) fn to_abort(&self) -> Vec<u64> {
        self.lock().aborted.iter().copied().take(receipt::seed::ABORTED_RANGES_MAX).collect()
    }

    /// How many numbers are to be logged as aborted.
    pub(crate) fn to_abort_count(&self) -> usize {
        self.lock().aborted.len()
    }

    /// These numbers are in the log as aborted.
    pub(crate) fn were_aborted(&self, numbers: &[u64]) {
        let mut state = self.lock();
        for number in numbers {
            state.aborted.remove(number);
            state.open.remove(number);
        }
    }

    fn secret_of(&self, number: u64) -> Hash {
        *blake3::keyed_hash(&self.secret, &number.to_le_bytes()).as_bytes()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The seed of this request.
    pub(crate) fn seed(&self, request: &Hash) -> u64 {
        seed::derive(&self.origin.nonce, &self.origin.secret, request)
    }

    /// Its receipt is in the log.
    pub(crate) fn settle(mut self) {
        self.settled = true;
        self.numbers.lock().open.remove(&self.number);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.settled {
            self.numbers.lock().aborted.insert(self.number);
        }
    }
}

/// What numbers of a log are open, read from a mark on.
pub(crate) struct Open {
    /// Everything below is committed to.
    pub(crate) committed: u64,
    settled: u64,
    done: BTreeSet<u64>,
}

impl Open {
    pub(crate) fn new(mark: Mark) -> Open {
        Open { committed: mark.committed, settled: mark.settled, done: BTreeSet::new() }
    }

    pub(crate) fn read(&mut self, statement: &receipt::Statement) {
        match statement {
            receipt::Statement::Receipt(receipt) => self.done.extend(receipt.claims.seed_number),
            receipt::Statement::Seeds(seeds, _) => self.committed = self.committed.max(seeds.end()),
            receipt::Statement::Aborted(aborted, _) => {
                for (first, count) in &aborted.ranges {
                    self.done.extend(*first..first + count);
                }
            }
            receipt::Statement::Countersignature(_) => {}
        }
    }

    /// Ranges of numbers that are committed to and not settled.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        Aborted::ranges_of((self.settled..self.committed).filter(|number| !self.done.contains(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Arc<Numbers> {
        let numbers = Numbers::new([1; 32], 0);
        let (seeds, mark) = numbers.wanted(0, 9).unwrap();
        assert_eq!((seeds.first, seeds.end(), mark), (0, LIST, Mark::default()));
        assert!(numbers.take(Nonce::default(), 0).is_none(), "before the commitment is logged");
        numbers.committed(0, LIST, 0);
        numbers
    }

    #[test]
    fn numbers_are_taken_in_order_and_have_the_secrets_that_were_committed_to() {
        let numbers = numbers();
        let seeds = Numbers::new([1; 32], 0).wanted(0, 9).unwrap().0;
        for number in 0..LIST {
            let taken = numbers.take(Nonce::default(), 1).unwrap();
            assert_eq!((taken.number, taken.origin.entry), (number, 0));
            assert!(seeds.commits(number, &taken.origin.secret));
            taken.settle();
        }
        assert!(numbers.take(Nonce::default(), 1).is_none());
        assert!(numbers.to_abort().is_empty());
    }

    #[test]
    fn what_is_dropped_without_a_receipt_is_to_be_aborted() {
        let numbers = numbers();
        let taken: Vec<Taken> = (0..4).map(|size| numbers.take(Nonce::default(), size).unwrap()).collect();
        let mut taken = taken.into_iter();
        taken.next().unwrap().settle();
        drop(taken.next());
        assert_eq!(numbers.to_abort(), [1]);
        numbers.were_aborted(&[1]);
        assert!(numbers.to_abort().is_empty());
        taken.for_each(Taken::settle);
    }

    #[test]
    fn the_mark_stands_before_everything_that_is_open() {
        let numbers = numbers();
        let old = numbers.take(Nonce::default(), 5).unwrap();
        for _ in 0..LIST - LEFT_MIN {
            numbers.take(Nonce::default(), 50).unwrap().settle();
        }
        let (seeds, mark) = numbers.wanted(100, 9).unwrap();
        assert_eq!((seeds.first, mark), (LIST, Mark { settled: 0, committed: LIST, entry: 5 }));
        drop(old);
        assert_eq!(numbers.wanted(100, 9).unwrap().1.entry, 5, "until it is logged as aborted");
        numbers.were_aborted(&[0]);
        let settled = LIST - LEFT_MIN + 1;
        assert_eq!(numbers.wanted(100, 9).unwrap().1, Mark { settled, committed: LIST, entry: 100 });
    }
}
