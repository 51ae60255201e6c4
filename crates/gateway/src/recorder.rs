//! Receipts get their number, their signature and their place on disk, one after another.
//!
//! One thread does it, so that numbers have no gaps and the chain of hashes no forks. It takes all answers that are
//! waiting at once and synchronises the disk once for them: while one group is being written the next one gathers, and
//! throughput does not hang on how long the disk takes. An answer hears of its receipt when that is durable.

use crate::app::now_seconds;
use crate::draft::{Draft, Link};
use crate::folder::Folder;
use crate::hex;
use crate::identity;
use crate::journal::{Entry, Journal, Kept, Name, Place, name_of, read};
use crate::start::StartError;
use receipt::{Hash, SigningKey};
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Receipts that may wait; further answers wait for room.
const QUEUE_MAX: usize = 256;
/// Receipts written at once.
const GROUP_MAX: usize = 256;
/// Bytes written at once, about.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Why an answer has no receipt.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The disk refused.
    #[error(
        "the receipt of this answer could not be kept ({0}), so there is no answer: the server's disk needs attention"
    )]
    Disk(String),
    /// The thread has ended.
    #[error("the server no longer keeps receipts, so there is no answer: it must be restarted")]
    Ended,
}

struct Job {
    draft: Draft,
    reply: oneshot::Sender<Result<Ticket, RecordError>>,
}

type Places = Arc<RwLock<HashMap<Name, Place>>>;

/// The receipts of a node.
pub(crate) struct Recorder {
    jobs: Option<mpsc::Sender<Job>>,
    places: Places,
    file: Arc<File>,
    secret: [u8; 32],
    node: Hash,
    well: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Held until the thread has ended.
    _folder: Folder,
}

/// What a client gets to find its receipt.
///
/// The receipt's name can be computed by whoever gets the node's next receipt, which holds its hash. So the name alone
/// opens only the receipt, which tells nothing; the key, which only the client gets, opens the tokens too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub(crate) name: Name,
    pub(crate) key: Option<[u8; 16]>,
}

impl Ticket {
    /// `rcpt-NAME-KEY`, or `rcpt-NAME` without the key.
    pub(crate) fn parse(id: &str) -> Option<Ticket> {
        let rest = id.strip_prefix("rcpt-")?;
        match rest.split_once('-') {
            None => Some(Ticket { name: hex::decode(rest)?, key: None }),
            Some((name, key)) => Some(Ticket { name: hex::decode(name)?, key: Some(hex::decode(key)?) }),
        }
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

impl Recorder {
    /// Continues the chain that the folder holds, or begins one.
    pub(crate) fn start(folder: Folder) -> Result<Recorder, StartError> {
        let path = folder.file("receipts.log");
        let (journal, Kept { places, last }) = Journal::open(&path)?;
        folder.sync()?;
        let key = match (identity::load(&folder)?, &last) {
            (Some(key), _) => key,
            (None, None) => identity::create(&folder)?,
            (None, Some(_)) => return Err(StartError::OtherKey { path }),
        };
        let node = key.verifying_key().to_bytes();
        if last.as_ref().is_some_and(|last| last.node != node) {
            return Err(StartError::OtherKey { path });
        }
        let next =
            last.map_or(Link::default(), |last| Link { number: last.claims.number + 1, previous: Some(last.hash) });
        if next.number != places.len() as u64 {
            let what = format!("it holds {} receipts, and the newest says {}", places.len(), next.number);
            return Err(StartError::Damaged { path, offset: 0, what });
        }
        let (jobs, inbox) = mpsc::channel(QUEUE_MAX);
        let (file, places) = (journal.file().clone(), Arc::new(RwLock::new(places)));
        let secret = blake3::derive_key("lockstep gateway 1: keys that open bundles", key.as_bytes());
        let well = Arc::new(AtomicBool::new(true));
        let writer = Writer { journal, key, secret, next, places: places.clone(), well: well.clone() };
        let thread = std::thread::Builder::new().name("lockstep-receipts".to_owned()).spawn(move || writer.run(inbox));
        let thread = thread.map_err(StartError::file(&path))?;
        Ok(Recorder { jobs: Some(jobs), places, file, secret, node, well, thread: Some(thread), _folder: folder })
    }

    /// The node's public key.
    pub(crate) fn node(&self) -> Hash {
        self.node
    }

    /// How many receipts there are.
    pub(crate) fn count(&self) -> usize {
        self.places.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether the last receipts could be kept.
    pub(crate) fn is_well(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| !jobs.is_closed()) && self.well.load(Ordering::Relaxed)
    }

    /// Keeps a receipt; it is durable when this returns.
    pub(crate) async fn record(&self, draft: Draft) -> Result<Ticket, RecordError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(RecordError::Ended)?;
        jobs.send(Job { draft, reply }).await.map_err(|_| RecordError::Ended)?;
        answer.await.unwrap_or(Err(RecordError::Ended))
    }

    /// The bytes of the bundle of this name, if there is one; waits for the disk.
    pub(crate) fn bundle(&self, name: &Name) -> std::io::Result<Option<Vec<u8>>> {
        let place = self.places.read().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        place.map(|place| read(&self.file, place)).transpose()
    }

    /// Whether the key opens the bundle of a receipt with this hash.
    pub(crate) fn opens(&self, key: &[u8; 16], hash: &Hash) -> bool {
        let right = opening_key(&self.secret, hash);
        // Takes the same time wherever they differ.
        right.iter().zip(key).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn opening_key(secret: &[u8; 32], hash: &Hash) -> [u8; 16] {
    name_of(blake3::keyed_hash(secret, hash).as_bytes())
}

/// The state of the thread.
struct Writer {
    journal: Journal,
    key: SigningKey,
    secret: [u8; 32],
    /// Place of the next receipt.
    next: Link,
    places: Places,
    /// Whether the last group could be written.
    well: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        while let Some(first) = inbox.blocking_recv() {
            self.write(first, &mut inbox);
        }
    }

    /// Signs and writes a receipt, and those that wait behind it.
    fn write(&mut self, first: Job, inbox: &mut mpsc::Receiver<Job>) {
        let time_seconds = now_seconds();
        let mut next = self.next;
        let (mut entries, mut replies, mut bytes) = (vec![], vec![], 0);
        let mut job = Some(first);
        while let Some(Job { draft, reply }) = job {
            let bundle = draft.sign(&self.key, next, time_seconds);
            let hash = receipt::hash(&bundle.receipt);
            next = Link { number: next.number + 1, previous: Some(hash) };
            let bundle = bundle.to_bytes();
            bytes += bundle.len();
            entries.push(Entry { hash, bundle });
            replies.push(reply);
            let room = entries.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX;
            job = if room { inbox.try_recv().ok() } else { None };
        }
        let written = self.journal.append(&entries);
        self.well.store(written.is_ok(), Ordering::Relaxed);
        match written {
            Ok(places) => {
                self.next = next;
                let mut known = self.places.write().unwrap_or_else(PoisonError::into_inner);
                known.extend(entries.iter().map(|entry| name_of(&entry.hash)).zip(places));
                drop(known);
                for (reply, Entry { hash, .. }) in replies.into_iter().zip(entries) {
                    let key = Some(opening_key(&self.secret, &hash));
                    // Nobody may listen any more; the receipt stays.
                    let _ = reply.send(Ok(Ticket { name: name_of(&hash), key }));
                }
            }
            Err(error) => {
                tracing::error!("{} receipts could not be written: {error}", entries.len());
                for reply in replies {
                    let _ = reply.send(Err(RecordError::Disk(error.to_string())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipt::Bundle;
    use std::path::Path;

    fn start(path: &Path) -> Recorder {
        Recorder::start(Folder::open(path).unwrap()).unwrap()
    }

    /// Records so many answers at once; gives their tickets.
    async fn record(recorder: &Arc<Recorder>, count: u64) -> Vec<Ticket> {
        let tasks: Vec<_> = (0..count)
            .map(|seed| {
                let recorder = recorder.clone();
                tokio::spawn(async move { recorder.record(Draft::example(seed)).await.unwrap() })
            })
            .collect();
        let mut tickets = vec![];
        for task in tasks {
            tickets.push(task.await.unwrap());
        }
        tickets
    }

    #[tokio::test]
    async fn answers_at_once_share_a_synchronisation_and_make_one_chain() {
        let folder = tempfile::tempdir().unwrap();
        let mut tickets = vec![];
        for _ in 0..2 {
            let recorder = Arc::new(start(folder.path()));
            tickets.extend(record(&recorder, 1000).await);
        }
        let recorder = start(folder.path());
        let mut chain = vec![None; tickets.len()];
        for (i, ticket) in tickets.iter().enumerate() {
            let bundle = Bundle::from_bytes(&recorder.bundle(&ticket.name).unwrap().unwrap()).unwrap();
            let receipt = bundle.check().unwrap();
            assert_eq!(receipt.claims.seed, i as u64 % 1000, "each answer gets its own receipt");
            assert!(recorder.opens(&ticket.key.unwrap(), &receipt.hash));
            assert!(!recorder.opens(&tickets[(i + 1) % 2000].key.unwrap(), &receipt.hash));
            chain[receipt.claims.number as usize] = Some((receipt.hash, receipt.claims.previous));
        }
        let mut before = None;
        for (hash, previous) in chain.into_iter().map(Option::unwrap) {
            assert_eq!(previous, before);
            before = Some(hash);
        }
        let log = std::fs::read(folder.path().join("receipts.log")).unwrap();
        let groups = log.windows(4).filter(|four| four == b"LKRG").count();
        assert!(groups < 500, "{groups} synchronisations for 2000 receipts");
    }

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
