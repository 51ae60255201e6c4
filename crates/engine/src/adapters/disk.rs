//! Adapters on disk: their folders, and their quantised forms if those are kept.

use super::{AdapterHandle, Source};
use exact::Isa;
use model::{Adapter, AdapterCache, Kept, Model};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What became of a load.
pub(crate) struct Loaded {
    pub(crate) handle: Arc<AdapterHandle>,
    /// The adapter, or why not, in words.
    pub(crate) result: Result<Arc<Adapter>, Arc<str>>,
    pub(crate) seconds: f64,
}

/// What adapters are read with.
pub(crate) struct Disk {
    model: Arc<Model>,
    isa: Isa,
    forms: OnceLock<AdapterCache>,
}

impl Disk {
    pub(crate) fn new(model: Arc<Model>, isa: Isa) -> Disk {
        Disk { model, isa, forms: OnceLock::new() }
    }

    /// Keeps quantised forms there from now on. Can be done once; gives whether it was.
    pub(crate) fn keep(&self, forms: AdapterCache) -> bool {
        self.forms.set(forms).is_ok()
    }

    /// Loads an adapter here and now, on one thread: the others compute.
    pub(crate) fn load(&self, handle: Arc<AdapterHandle>) -> Loaded {
        let started = Instant::now();
        let result = match &handle.source {
            Source::Memory(adapter) => Ok(adapter.clone()),
            Source::Folder(folder) => {
                let read = || match self.forms.get() {
                    Some(forms) => forms.load(folder, &self.model, self.isa, 1),
                    None => Adapter::load_on(folder, &self.model, self.isa, 1).map(|adapter| (adapter, Kept::Made)),
                };
                match catch_unwind(AssertUnwindSafe(read)) {
                    Ok(Ok((adapter, kept))) => checked(&handle, adapter, &kept),
                    Ok(Err(error)) => Err(error.to_string().into()),
                    Err(_) => {
                        Err(format!("loading adapter {} broke off: a defect of the server", handle.name()).into())
                    }
                }
            }
        };
        Loaded { handle, result, seconds: started.elapsed().as_secs_f64() }
    }
}

/// One name, one content.
fn checked(handle: &AdapterHandle, adapter: Adapter, kept: &Kept) -> Result<Arc<Adapter>, Arc<str>> {
    if let Kept::Complaint(complaint) = kept {
        tracing::warn!(adapter = handle.name(), "{complaint}");
    }
    if handle.note(&adapter) {
        return Ok(Arc::new(adapter));
    }
    let name = handle.name();
    Err(format!("the files of adapter {name} changed since it was registered: load it again under a name").into())
}
