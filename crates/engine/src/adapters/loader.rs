//! Loads adapters in the background, one after the other: reading and quantising takes processor time that computing
//! sequences need, so no more than one is under way.

use super::{AdapterHandle, Source};
use exact::Isa;
use model::{Adapter, Model};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// What became of a load.
pub(crate) struct Loaded {
    pub(crate) handle: Arc<AdapterHandle>,
    /// The adapter, or why not, in words.
    pub(crate) result: Result<Arc<Adapter>, Arc<str>>,
    pub(crate) seconds: f64,
}

/// Loads an adapter here and now.
pub(crate) fn load(handle: Arc<AdapterHandle>, model: &Model, isa: Isa) -> Loaded {
    let started = Instant::now();
    let folder = match &handle.source {
        Source::Memory(adapter) => {
            let result = Ok(adapter.clone());
            return Loaded { handle, result, seconds: 0.0 };
        }
        Source::Folder(folder) => folder,
    };
    let result = match catch_unwind(AssertUnwindSafe(|| Adapter::load_on(folder, model, isa, 1))) {
        Ok(Ok(adapter)) if handle.note(&adapter) => Ok(Arc::new(adapter)),
        Ok(Ok(_)) => Err(format!(
            "the files of adapter {} changed since it was registered: load it again under a name",
            handle.name()
        )
        .into()),
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(_) => Err(format!("loading adapter {} broke off; this is a defect of the server", handle.name()).into()),
    };
    Loaded { handle, result, seconds: started.elapsed().as_secs_f64() }
}

/// The background thread.
pub(crate) struct Loader {
    jobs: Option<Sender<Arc<AdapterHandle>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts it; `deliver` is told of each load and says whether to go on.
    pub(crate) fn start(
        model: Arc<Model>,
        isa: Isa,
        deliver: impl Fn(Loaded) -> bool + Send + 'static,
    ) -> std::io::Result<Loader> {
        let (jobs, inbox) = channel::<Arc<AdapterHandle>>();
        let thread = std::thread::Builder::new().name("lockstep-load".to_owned()).spawn(move || {
            while let Ok(handle) = inbox.recv() {
                if !deliver(load(handle, &model, isa)) {
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
