//! Loads adapters in the background, one after the other: reading and quantising takes processor time that computing
//! sequences need, so no more than one is under way. Where many wait, it gives way to whoever computes: their burst shall not
//! be felt by others. Where few wait, their loads are soon over and go at once.

use super::{AdapterHandle, Disk, Loaded};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a thread that loads for many yields to threads that compute: it gets about a seventh of a core that both want.
const NICENESS: i32 = 8;

/// How long a patient load lets a quick one go ahead.
const STEP_ASIDE: Duration = Duration::from_millis(1);

/// An adapter to load, and who waits for it if that is not the engine.
type Job = (Arc<AdapterHandle>, Option<Sender<Loaded>>);

/// How much a load matters beside what is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Haste {
    /// Few wait.
    Quick,
    /// Many wait, for one another as well.
    Patient,
}

/// The background threads, one for each haste: a thread that has stepped back cannot step forward again.
pub(crate) struct Loader {
    quick: Mutex<Option<Sender<Job>>>,
    patient: Mutex<Option<Sender<Job>>>,
    /// Quick loads that are queued or under way.
    hurried: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts it; `deliver` is told of each load nobody else waits for.
    pub(crate) fn start(disk: Arc<Disk>, deliver: impl Fn(Loaded) + Clone + Send + 'static) -> std::io::Result<Loader> {
        let (turn, hurried) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let start = |haste| {
            let (jobs, inbox) = channel::<Job>();
            let (disk, deliver, turn, hurried) = (disk.clone(), deliver.clone(), turn.clone(), hurried.clone());
            let work = move || {
                if haste == Haste::Patient {
                    step_back();
                }
                while let Ok((handle, waits)) = inbox.recv() {
                    if haste == Haste::Patient && hurried.load(Ordering::Relaxed) > 0 {
                        // Whoever hurries takes the next turn.
                        std::thread::sleep(STEP_ASIDE);
                    }
                    let loaded = {
                        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                        disk.load(handle)
                    };
                    if haste == Haste::Quick {
                        hurried.fetch_sub(1, Ordering::Relaxed);
                    }
                    match waits {
                        // Who waited may have gone.
                        Some(waits) => drop(waits.send(loaded)),
                        None => deliver(loaded),
                    }
                }
            };
            let thread = std::thread::Builder::new().name("lockstep-load".to_owned()).spawn(work)?;
            Ok::<_, std::io::Error>((Mutex::new(Some(jobs)), thread))
        };
        let ((quick, one), (patient, other)) = (start(Haste::Quick)?, start(Haste::Patient)?);
        Ok(Loader { quick, patient, hurried, threads: vec![one, other] })
    }

    /// Queues a load for the engine, which bounds how many there are.
    pub(crate) fn push(&self, handle: Arc<AdapterHandle>, haste: Haste) {
        self.send((handle, None), haste);
    }

    /// Loads an adapter and waits for it.
    pub(crate) fn load(&self, handle: Arc<AdapterHandle>, haste: Haste) -> Loaded {
        let (answer, loaded) = channel();
        self.send((handle.clone(), Some(answer)), haste);
        // The threads end only when the engine does.
        loaded.recv().unwrap_or_else(|_| Loaded {
            handle,
            result: Err("the server is shutting down".into()),
            seconds: 0.0,
        })
    }

    fn send(&self, job: Job, haste: Haste) {
        let jobs = match haste {
            Haste::Patient => &self.patient,
            Haste::Quick => {
                self.hurried.fetch_add(1, Ordering::Relaxed);
                &self.quick
            }
        };
        if let Some(jobs) = &*jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = jobs.send(job);
        }
    }
}

/// Lets other threads of this process go first; where the system knows no such thing, nothing happens.
fn step_back() {
    // On Linux a thread has its own niceness.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

impl Drop for Loader {
    fn drop(&mut self) {
        for jobs in [&self.quick, &self.patient] {
            drop(jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
