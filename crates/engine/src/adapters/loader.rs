//! Loads adapters in the background, one after the other: reading and quantising takes processor time that computing
//! sequences need, so no more than one is under way, and it gives way to whoever computes.

use super::{AdapterHandle, Disk, Loaded};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a thread that loads yields to threads that compute: it gets about a tenth of a core that both want.
const NICENESS: i32 = 10;

/// An adapter to load, and who waits for it if that is not the engine.
type Job = (Arc<AdapterHandle>, Option<Sender<Loaded>>);

/// The background thread.
pub(crate) struct Loader {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts it; `deliver` is told of each load nobody else waits for.
    pub(crate) fn start(disk: Arc<Disk>, deliver: impl Fn(Loaded) + Send + 'static) -> std::io::Result<Loader> {
        let (jobs, inbox) = channel::<Job>();
        let thread = std::thread::Builder::new().name("lockstep-load".to_owned()).spawn(move || {
            step_back();
            while let Ok((handle, waits)) = inbox.recv() {
                let loaded = disk.load(handle);
                match waits {
                    // Who waited may have gone.
                    Some(waits) => drop(waits.send(loaded)),
                    None => deliver(loaded),
                }
            }
        })?;
        Ok(Loader { jobs: Mutex::new(Some(jobs)), thread: Some(thread) })
    }

    /// Queues a load for the engine, which bounds how many there are.
    pub(crate) fn push(&self, handle: Arc<AdapterHandle>) {
        self.send((handle, None));
    }

    /// Loads an adapter and waits for it.
    pub(crate) fn load(&self, handle: Arc<AdapterHandle>) -> Loaded {
        let (answer, loaded) = channel();
        self.send((handle.clone(), Some(answer)));
        // The thread ends only when the engine does.
        loaded.recv().unwrap_or_else(|_| Loaded {
            handle,
            result: Err("the server is shutting down".into()),
            seconds: 0.0,
        })
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
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
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
