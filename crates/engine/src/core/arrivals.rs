//! Adapters that come, stay and go.

use super::Core;
use crate::adapters::{AdapterHandle, Loaded, Readiness};
use crate::memory::Memory;
use crate::request::Failure;
use crate::sequence::Sequence;
use model::Adapter;
use std::sync::Arc;

impl Core {
    /// An adapter was loaded, or could not be.
    pub(crate) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { handle, result, seconds } = loaded;
        self.counters.loader_nanoseconds += (seconds * 1e9) as u64;
        let room = self.memory.adapters_bytes_max();
        let result = result.and_then(|adapter| match adapter.bytes() as u64 {
            bytes if bytes > room => Err(crate::AdapterError::TooLarge { bytes, room }.to_string().into()),
            _ => Ok(adapter),
        });
        match result {
            Ok(adapter) => self.deliver(&handle, adapter),
            Err(what) => {
                self.memory.tiers.finish_loading(&handle, None);
                let waits = |s: &Sequence| s.request().adapter.as_ref().is_some_and(|own| own.id() == handle.id());
                for mut sequence in self.queue.take_if(waits) {
                    self.memory.tiers.unclaim(&handle);
                    sequence.fail(Failure::Adapter(what.clone()));
                }
            }
        }
    }

    /// An adapter is there, from wherever.
    pub(crate) fn deliver(&mut self, handle: &Arc<AdapterHandle>, adapter: Arc<Adapter>) {
        self.counters.adapters_loaded += 1;
        self.memory.tiers.finish_loading(handle, Some(adapter));
        if handle.is_pinned() {
            self.pins.push(handle.clone());
            self.promote_pins();
        }
    }

    /// An adapter stays resident from now on, and becomes so as soon as there is room; or may go again.
    pub(crate) fn pin(&mut self, handle: &Arc<AdapterHandle>, pinned: bool) {
        self.memory.tiers.pin(handle, pinned);
        match self.memory.tiers.readiness(handle) {
            Readiness::Disk if pinned => {
                self.memory.tiers.begin_loading(handle);
                self.jobs.push(handle.clone());
            }
            Readiness::Loaded if pinned => {
                self.pins.push(handle.clone());
                self.promote_pins();
            }
            // On its way it is promoted when it is there.
            _ => {}
        }
    }

    pub(super) fn promote_pins(&mut self) {
        let (memory, device) = (&mut self.memory, &mut *self.device);
        let is_loaded = |memory: &Memory, handle: &AdapterHandle| memory.tiers.readiness(handle) == Readiness::Loaded;
        self.pins.retain(|handle| {
            let wanted = handle.is_pinned() && !handle.is_retired() && is_loaded(memory, handle);
            wanted && !memory.promote(handle, device)
        });
    }

    /// A name was unloaded or replaced: its adapter goes as soon as nobody needs it.
    pub(crate) fn forget(&mut self, handle: &AdapterHandle) {
        if let Some(adapter) = self.memory.tiers.forget(handle) {
            self.device.drop_adapter(&adapter);
        }
    }
}
