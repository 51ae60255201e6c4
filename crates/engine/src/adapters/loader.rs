//! Loads adapters in the background, one after the other: reading and quantising takes processor time that computing
//! sequences need, so no more than one is under way.

use super::{AdapterHandle, Disk, Loaded};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The background thread.
pub(crate) struct Loader {
    jobs: Option<Sender<Arc<AdapterHandle>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts it; `deliver` is told of each load and says whether to go on.
    pub(crate) fn start(disk: Arc<Disk>, deliver: impl Fn(Loaded) -> bool + Send + 'static) -> std::io::Result<Loader> {
        let (jobs, inbox) = channel::<Arc<AdapterHandle>>();
        let thread = std::thread::Builder::new().name("lockstep-load".to_owned()).spawn(move || {
            while let Ok(handle) = inbox.recv() {
                if !deliver(disk.load(handle)) {
                    return;
                }
            }
        })?;
        Ok(Loader { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a load. The engine bounds how many there are.
    pub(crate) fn push(&self, handle: Arc<AdapterHandle>) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only when the engine does.
            let _ = jobs.send(handle);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
