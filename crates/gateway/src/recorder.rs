//! Receipts get their number, their signature and their place in the log, one after another.
//!
//! One thread does it, so that numbers have no gaps and the chain of hashes no forks. It takes all answers that are
//! waiting at once and synchronises the disk once for them: while one group is being written the next one gathers, and
//! throughput does not hang on how long the disk takes. First what opens the receipts is made durable, then the receipts
//! in the log; an answer hears of its receipt when both are.

use crate::app::now_seconds;
use crate::countersigned::Countersigned;
use crate::draft::{Draft, Link};
use crate::folder::Folder;
use crate::identity;
use crate::numbers::{Numbers, Taken};
use crate::openings::{Keeping, Openings};
use crate::resume::{MARK, abort_what_is_open, last_receipt, signed_by};
use crate::start::StartError;
use crate::ticket::Ticket;
use receipt::{Aborted, Hash, Nonce, SigningKey};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tlog::{Log, LogError, Name, name_of};
use tokio::sync::{mpsc, oneshot};

/// Receipts that may wait; further answers wait for room.
const QUEUE_MAX: usize = 256;
/// Receipts written at once.
const GROUP_MAX: usize = 256;
/// Bytes written at once, about.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Bytes of a file of openings, about.
const SEGMENT_BYTES: u64 = 64 << 20;
/// After a group was written, a receipt that comes so soon is not the last: it waits [`GATHERING`] for others to be written with.
const BUSY: Duration = Duration::from_millis(10);
const GATHERING: Duration = Duration::from_millis(1);
/// Numbers to be aborted that do not wait for a receipt to be written with.
const ABORTED_WAITING: usize = 32;
/// Entries after which it is noted anew from where the log is to be read for what is open.
const MARK_EVERY: u64 = 4096;

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

enum Job {
    Keep(Box<Draft>, oneshot::Sender<Result<Ticket, RecordError>>),
    /// See whether numbers are to be committed to or aborted.
    Wake,
}

/// The receipts of a node.
pub(crate) struct Recorder {
    jobs: Option<mpsc::Sender<Job>>,
    log: Arc<Log>,
    openings: Arc<Openings>,
    numbers: Arc<Numbers>,
    countersigned: Countersigned,
    /// What clients' keys are made from.
    secret: [u8; 32],
    /// What opens every bundle, for auditors.
    audit_token: [u8; 32],
    key: SigningKey,
    count: Arc<AtomicU64>,
    well: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held until the thread has ended.
    _folder: Arc<Folder>,
}

impl Recorder {
    /// Continues the log that the folder holds, or begins one. What opens receipts is kept for `window_seconds`.
    pub(crate) fn start(folder: Folder, window_seconds: u32) -> Result<Recorder, StartError> {
        let old = folder.file("receipts.log");
        if old.exists() {
            return Err(StartError::OldFormat { path: old });
        }
        let path = folder.file("log");
        let begun = path.join("tail").exists();
        let key = match identity::load(&folder, identity::NODE)? {
            Some(secret) => SigningKey::from_bytes(&secret),
            None if begun => return Err(StartError::OtherKey { path }),
            None => SigningKey::from_bytes(&identity::create(&folder, identity::NODE)?),
        };
        let node = key.verifying_key().to_bytes();
        let log = Log::open(&path, &tlog::origin_of(&node), key.clone(), tlog::Limits::default())?;
        folder.sync()?;
        if log.size() > 0 && !signed_by(&log.entry(0)?, &node) {
            return Err(StartError::OtherKey { path });
        }
        let openings_secret = identity::load_or_create(&folder, identity::OPENINGS)?;
        let keeping = Keeping { window_seconds: window_seconds.into(), segment_bytes: SEGMENT_BYTES };
        let openings = Arc::new(Openings::open(&folder.file("openings"), openings_secret, keeping, now_seconds())?);
        let audit_token = identity::load_or_create(&folder, identity::AUDIT)?;

        let next = Link { opening_seconds: window_seconds, ..last_receipt(&log)? };
        let countersigned = Countersigned::open(&folder);
        let folder = Arc::new(folder);
        let (log, numbers) = abort_what_is_open(Arc::new(log), &folder, &key)?;
        let (jobs, inbox) = mpsc::channel(QUEUE_MAX);
        let secret = blake3::derive_key("lockstep gateway 1: keys that open bundles", key.as_bytes());
        let (well, count) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(next.number)));
        let mut writer = Writer {
            log: log.clone(),
            openings: openings.clone(),
            numbers: numbers.clone(),
            folder: folder.clone(),
            key: key.clone(),
            secret,
            next,
            marked: 0,
            count: count.clone(),
            well: well.clone(),
        };
        writer.append(vec![], now_seconds())?;
        let thread = std::thread::Builder::new().name("lockstep-receipts".to_owned()).spawn(move || writer.run(inbox));
        let thread = Mutex::new(Some(thread.map_err(StartError::file(&path))?));
        let jobs = Some(jobs);
        Ok(Recorder {
            jobs,
            log,
            openings,
            numbers,
            countersigned,
            secret,
            audit_token,
            key,
            count,
            well,
            thread,
            _folder: folder,
        })
    }

    /// The node's public key.
    pub(crate) fn node(&self) -> Hash {
        self.key.verifying_key().to_bytes()
    }

    /// The node's key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// How many receipts there are.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The log of receipts.
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// What clients signed for.
    pub(crate) fn countersigned(&self) -> &Countersigned {
        &self.countersigned
    }

    /// Whether the last receipts could be kept.
    pub(crate) fn is_well(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| !jobs.is_closed()) && self.well.load(Ordering::Relaxed)
    }

    /// Takes a numbered secret for a request; none if so many requests came at once that none is left for now.
    pub(crate) fn take(&self, nonce: Nonce) -> Option<Taken> {
        let taken = self.numbers.take(nonce, self.log.size());
        let few = taken.is_none() || self.numbers.are_few();
        if (few || self.numbers.to_abort_count() >= ABORTED_WAITING)
            && let Some(jobs) = &self.jobs
        {
            // A full queue will be written soon anyway.
            let _ = jobs.try_send(Job::Wake);
        }
        taken
    }

    /// Keeps a receipt; it is durable when this returns.
    pub(crate) async fn record(&self, draft: Draft) -> Result<Ticket, RecordError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(RecordError::Ended)?;
        jobs.send(Job::Keep(Box::new(draft), reply)).await.map_err(|_| RecordError::Ended)?;
        answer.await.unwrap_or(Err(RecordError::Ended))
    }

    /// The bytes of the receipt of this name, and its place in the log; waits for the disk.
    pub(crate) fn receipt(&self, name: &Name) -> Result<Option<(Vec<u8>, u64)>, LogError> {
        let Some(index) = self.log.find(name)? else { return Ok(None) };
        Ok(Some((self.log.entry(index)?, index)))
    }

    /// The bytes of the bundle of this name, if it is still kept; waits for the disk.
    pub(crate) fn bundle(&self, name: &Name) -> Result<Option<Vec<u8>>, StartError> {
        self.openings.find(name)
    }

    /// Deletes what opens receipts older than the window.
    pub(crate) fn sweep(&self) -> Result<(), StartError> {
        self.openings.sweep(now_seconds())
    }

    /// What the client of the answer with this receipt was told.
    pub(crate) fn ticket(&self, hash: &Hash) -> Ticket {
        Ticket::new(hash, opening_key(&self.secret, hash))
    }

    /// Whether the key opens the bundle of a receipt with this hash.
    pub(crate) fn opens(&self, key: &[u8; 16], hash: &Hash) -> bool {
        same(&opening_key(&self.secret, hash), key)
    }

    /// Whether this is the token of auditors.
    pub(crate) fn is_auditor(&self, token: &[u8; 32]) -> bool {
        same(&self.audit_token, token)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// Takes the same time wherever they differ.
fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    one.iter().zip(other).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

fn opening_key(secret: &[u8; 32], hash: &Hash) -> [u8; 16] {
    let key = *blake3::keyed_hash(secret, hash).as_bytes();
    std::array::from_fn(|byte| key[byte])
}

/// The state of the thread.
struct Writer {
    log: Arc<Log>,
    openings: Arc<Openings>,
    numbers: Arc<Numbers>,
    folder: Arc<Folder>,
    key: SigningKey,
    secret: [u8; 32],
    /// Place of the next receipt.
    next: Link,
    /// Entries of the log when its mark was written last.
    marked: u64,
    count: Arc<AtomicU64>,
    /// Whether the last group could be written.
    well: Arc<AtomicBool>,
}

/// A receipt on its way to the disk.
struct Signed {
    hash: Hash,
    receipt: Vec<u8>,
    bundle: Vec<u8>,
    taken: Option<Taken>,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut written: Option<Instant> = None;
        while let Some(first) = inbox.blocking_recv() {
            if written.is_some_and(|written| written.elapsed() < BUSY) {
                std::thread::sleep(GATHERING);
            }
            self.write(first, &mut inbox);
            written = Some(Instant::now());
        }
        // What was aborted last is logged now; if that fails, when the server starts again.
        let _ = self.append(vec![], now_seconds());
    }

    /// Signs and writes a receipt, and those that wait behind it.
    fn write(&mut self, first: Job, inbox: &mut mpsc::Receiver<Job>) {
        let time_seconds = now_seconds();
        let before = self.next;
        let (mut group, mut replies, mut bytes) = (vec![], vec![], 0);
        let mut job = Some(first);
        while let Some(found) = job {
            if let Job::Keep(draft, reply) = found {
                let (bundle, taken) = draft.sign(&self.key, self.next, time_seconds);
                let hash = receipt::hash(&bundle.receipt);
                self.next = Link { number: self.next.number + 1, previous: Some(hash), ..self.next };
                let signed = Signed { hash, bundle: bundle.to_bytes(), receipt: bundle.receipt, taken };
                bytes += signed.bundle.len();
                group.push(signed);
                replies.push(reply);
            }
            let room = group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX;
            job = if room { inbox.try_recv().ok() } else { None };
        }
        let hashes: Vec<Hash> = group.iter().map(|signed| signed.hash).collect();
        let written = self.append(group, time_seconds);
        self.well.store(written.is_ok(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.count.store(self.next.number, Ordering::Relaxed);
                for (reply, hash) in replies.into_iter().zip(hashes) {
                    // Nobody may listen any more; the receipt stays.
                    let _ = reply.send(Ok(Ticket::new(&hash, opening_key(&self.secret, &hash))));
                }
            }
            Err(error) => {
                tracing::error!("{} receipts could not be written: {error}", replies.len());
                self.next = before;
                for reply in replies {
                    let _ = reply.send(Err(RecordError::Disk(error.to_string())));
                }
            }
        }
    }

    /// Makes a group durable, together with what is to be aborted and committed to.
    fn append(&mut self, group: Vec<Signed>, time_seconds: u64) -> Result<(), StartError> {
        let aborted = self.numbers.to_abort();
        let wanted = self.numbers.wanted(self.log.size(), time_seconds);
        if group.is_empty() && aborted.is_empty() && wanted.is_none() {
            return Ok(());
        }
        let (mut entries, mut bundles, mut settled) = (vec![], vec![], vec![]);
        if !aborted.is_empty() {
            let ranges = Aborted::ranges_of(aborted.iter().copied());
            entries.push(Aborted { ranges, time_seconds }.sign(&self.key));
        }
        if let Some((seeds, mark)) = &wanted {
            mark.write(&self.folder, MARK)?;
            entries.push(seeds.sign(&self.key));
        }
        let list = entries.len();
        for signed in group {
            bundles.push((name_of(&signed.receipt), signed.bundle));
            entries.push(signed.receipt);
            settled.extend(signed.taken);
        }
        if !bundles.is_empty() {
            self.openings.append(&bundles, time_seconds)?;
        }
        let appended = self.log.append(&entries)?;
        self.numbers.were_aborted(&aborted);
        settled.into_iter().for_each(Taken::settle);
        if let Some((seeds, _)) = wanted {
            self.numbers.committed(seeds.first, seeds.end(), appended.first + list as u64 - 1);
            self.marked = appended.size;
        }
        if appended.size >= self.marked + MARK_EVERY {
            self.marked = appended.size;
            // It only saves reading: the one before is as true.
            if let Err(error) = self.numbers.mark(appended.size).write(&self.folder, MARK) {
                tracing::warn!("the next start will read more of the log: {error}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
