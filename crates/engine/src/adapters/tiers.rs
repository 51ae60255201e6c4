//! Where each adapter is that somebody asked for: on disk, on its way, in host memory, or resident.

use super::{AdapterHandle, Whereabouts};
use model::Adapter;
use std::collections::HashMap;
use std::sync::Arc;

enum Place {
    Disk,
    Loading,
    Host(Arc<Adapter>),
    Resident(Arc<Adapter>),
}

struct Slot {
    handle: Arc<AdapterHandle>,
    place: Place,
    /// Whether it may not go; as the bytes that are busy reckon it.
    pinned: bool,
    /// Sequences being computed with it.
    users: u32,
    /// Requests that wait and will need it.
    claims: u32,
    /// What it costs to have back, as [`crate::memory`] counts.
    value: u64,
    /// When it was used last, for host memory.
    stamp: u64,
}

impl Slot {
    fn is_busy(&self) -> bool {
        self.users > 0 || self.pinned
    }

    /// Puts it somewhere, and lets that be seen.
    fn put(&mut self, place: Place) {
        self.handle.show(match &place {
            Place::Disk => Whereabouts::Disk,
            Place::Loading => Whereabouts::Loading,
            Place::Host(_) => Whereabouts::Host,
            Place::Resident(_) => Whereabouts::Resident,
        });
        self.place = place;
    }
}

/// What stands between a request and its adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Readiness {
    Resident,
    /// It needs room.
    Loaded,
    Loading,
    /// Loading must be asked for.
    Disk,
}

/// All adapters in use or waited for, and those kept for later.
pub(crate) struct Tiers {
    slots: HashMap<u64, Slot>,
    host_budget: u64,
    host_bytes: u64,
    resident_bytes: u64,
    busy_bytes: u64,
    /// Being loaded, or loaded and waited for.
    ahead: usize,
    clock: u64,
}

impl Tiers {
    pub(crate) fn new(host_budget: u64) -> Tiers {
        Tiers {
            slots: HashMap::new(),
            host_budget,
            host_bytes: 0,
            resident_bytes: 0,
            busy_bytes: 0,
            ahead: 0,
            clock: 0,
        }
    }

    /// Bytes of adapters that are resident.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Bytes of resident adapters that cannot go now.
    pub(crate) fn busy_bytes(&self) -> u64 {
        self.busy_bytes
    }

    /// Bytes kept beside the residents.
    pub(crate) fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    /// How many are resident.
    pub(crate) fn resident(&self) -> usize {
        self.slots.values().filter(|slot| matches!(slot.place, Place::Resident(_))).count()
    }

    /// How many are being loaded, or were and have not been used yet.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    fn slot(&mut self, handle: &AdapterHandle) -> Option<&mut Slot> {
        self.slots.get_mut(&handle.id())
    }

    fn ensure(&mut self, handle: &Arc<AdapterHandle>) -> &mut Slot {
        self.slots.entry(handle.id()).or_insert_with(|| Slot {
            handle: handle.clone(),
            place: Place::Disk,
            pinned: handle.is_pinned(),
            users: 0,
            claims: 0,
            value: 0,
            stamp: 0,
        })
    }

    /// A request begins to wait for it.
    pub(crate) fn claim(&mut self, handle: &Arc<AdapterHandle>) {
        let slot = self.ensure(handle);
        slot.claims += 1;
        if slot.claims == 1 && matches!(slot.place, Place::Host(_)) {
            self.ahead += 1;
        }
    }

    /// A request waits no longer.
    pub(crate) fn unclaim(&mut self, handle: &AdapterHandle) {
        let Some(slot) = self.slot(handle) else { return };
        slot.claims -= 1;
        if slot.claims == 0 {
            if matches!(slot.place, Place::Host(_)) {
                self.ahead -= 1;
            }
            self.tidy(handle.id());
            self.trim_host();
        }
    }

    /// Where a claimed adapter is.
    pub(crate) fn readiness(&self, handle: &AdapterHandle) -> Readiness {
        match self.slots.get(&handle.id()).map(|slot| &slot.place) {
            Some(Place::Resident(_)) => Readiness::Resident,
            Some(Place::Host(_)) => Readiness::Loaded,
            Some(Place::Loading) => Readiness::Loading,
            Some(Place::Disk) | None if handle.in_memory().is_some() => Readiness::Loaded,
            Some(Place::Disk) | None => Readiness::Disk,
        }
    }

    /// Loading begins.
    pub(crate) fn begin_loading(&mut self, handle: &Arc<AdapterHandle>) {
        let slot = self.ensure(handle);
        assert!(matches!(slot.place, Place::Disk), "an adapter is loaded twice at once");
        slot.put(Place::Loading);
        self.ahead += 1;
    }

    /// Loading ended, well or not, or somebody brings an adapter that was loaded elsewhere.
    pub(crate) fn finish_loading(&mut self, handle: &Arc<AdapterHandle>, adapter: Option<Arc<Adapter>>) {
        self.clock += 1;
        let clock = self.clock;
        let slot = self.ensure(handle);
        let was_loading = matches!(slot.place, Place::Loading);
        if !was_loading && !matches!(slot.place, Place::Disk) {
            return;
        }
        let claimed = slot.claims > 0;
        slot.stamp = clock;
        let arrived = adapter.as_ref().map(|adapter| adapter.bytes() as u64);
        slot.put(adapter.map_or(Place::Disk, Place::Host));
        if was_loading {
            self.ahead -= 1;
        }
        if let Some(bytes) = arrived {
            self.host_bytes += bytes;
            self.ahead += usize::from(claimed);
        }
        self.tidy(handle.id());
        self.trim_host();
    }

    /// The adapter, if it is loaded and not resident.
    pub(crate) fn loaded_adapter(&self, handle: &AdapterHandle) -> Option<Arc<Adapter>> {
        match self.slots.get(&handle.id()).map(|slot| &slot.place) {
            Some(Place::Host(adapter)) => Some(adapter.clone()),
            Some(Place::Disk) => handle.in_memory().cloned(),
            _ => None,
        }
    }

    /// It becomes resident; room was made.
    pub(crate) fn promote(&mut self, handle: &AdapterHandle, adapter: &Arc<Adapter>) {
        let bytes = adapter.bytes() as u64;
        let Some(slot) = self.slots.get_mut(&handle.id()) else { return };
        if matches!(slot.place, Place::Host(_)) {
            self.host_bytes -= bytes;
            self.ahead -= usize::from(slot.claims > 0);
        }
        slot.put(Place::Resident(adapter.clone()));
        self.resident_bytes += bytes;
        if slot.is_busy() {
            self.busy_bytes += bytes;
        }
    }

    /// A sequence takes up a resident adapter it waited for.
    pub(crate) fn take_up(&mut self, handle: &AdapterHandle) -> Option<Arc<Adapter>> {
        let slot = self.slots.get_mut(&handle.id())?;
        let Place::Resident(adapter) = &slot.place else { return None };
        let adapter = adapter.clone();
        let was_busy = slot.is_busy();
        slot.users += 1;
        slot.claims -= 1;
        if !was_busy {
            self.busy_bytes += adapter.bytes() as u64;
        }
        Some(adapter)
    }

    /// A sequence puts it down. Gives it if it goes at once, because its name was unloaded.
    pub(crate) fn put_down(&mut self, handle: &AdapterHandle, value: u64) -> Option<Arc<Adapter>> {
        let slot = self.slots.get_mut(&handle.id())?;
        slot.users -= 1;
        slot.value = value;
        if slot.users > 0 {
            return None;
        }
        if let (Place::Resident(adapter), false) = (&slot.place, slot.pinned) {
            self.busy_bytes -= adapter.bytes() as u64;
        }
        let gone = slot.handle.is_retired() && slot.claims == 0;
        if gone { self.demote(handle.id()) } else { None }
    }

    /// The resident adapter that costs least to have back among those nobody uses; those that are waited for come last.
    pub(crate) fn cheapest(&self) -> Option<(u64, u64)> {
        let idle = self.slots.iter().filter(|(_, slot)| matches!(slot.place, Place::Resident(_)) && !slot.is_busy());
        let (id, slot) = idle.min_by_key(|(id, slot)| (slot.claims > 0, slot.value, **id))?;
        Some((slot.value, *id))
    }

    /// A resident adapter nobody uses goes back to host memory.
    pub(crate) fn demote(&mut self, id: u64) -> Option<Arc<Adapter>> {
        self.clock += 1;
        let slot = self.slots.get_mut(&id)?;
        let Place::Resident(adapter) = &slot.place else { return None };
        assert!(slot.users == 0, "an adapter in use lost its place");
        let (adapter, bytes) = (adapter.clone(), adapter.bytes() as u64);
        self.resident_bytes -= bytes;
        if slot.pinned {
            self.busy_bytes -= bytes;
        }
        slot.stamp = self.clock;
        if slot.handle.in_memory().is_some() {
            slot.put(Place::Disk);
        } else {
            slot.put(Place::Host(adapter.clone()));
            self.host_bytes += bytes;
            self.ahead += usize::from(slot.claims > 0);
        }
        self.tidy(id);
        self.trim_host();
        Some(adapter)
    }

    /// It may not go from now on, or may go again.
    pub(crate) fn pin(&mut self, handle: &Arc<AdapterHandle>, pinned: bool) {
        if !pinned && !self.slots.contains_key(&handle.id()) {
            return;
        }
        let slot = self.ensure(handle);
        let was_busy = slot.is_busy();
        slot.pinned = pinned;
        let is_busy = slot.is_busy();
        if let Place::Resident(adapter) = &slot.place {
            let bytes = adapter.bytes() as u64;
            match (was_busy, is_busy) {
                (false, true) => self.busy_bytes += bytes,
                (true, false) => self.busy_bytes -= bytes,
                _ => {}
            }
        }
        if !pinned {
            self.tidy(handle.id());
            self.trim_host();
        }
    }

    /// A name was unloaded or replaced: what nobody needs goes at once. Gives it if it was resident.
    pub(crate) fn forget(&mut self, handle: &AdapterHandle) -> Option<Arc<Adapter>> {
        let slot = self.slots.get(&handle.id())?;
        if slot.users == 0 && slot.claims == 0 && matches!(slot.place, Place::Resident(_)) {
            return self.demote(handle.id());
        }
        self.tidy(handle.id());
        None
    }

    /// Drops a slot that says nothing any more.
    fn tidy(&mut self, id: u64) {
        let Some(slot) = self.slots.get(&id) else { return };
        if slot.users > 0 || slot.claims > 0 {
            return;
        }
        match &slot.place {
            // One in memory that waits for room has nowhere else to wait.
            Place::Disk if slot.pinned && slot.handle.in_memory().is_some() && !slot.handle.is_retired() => return,
            Place::Disk => {}
            Place::Host(adapter) if slot.handle.is_retired() => self.host_bytes -= adapter.bytes() as u64,
            _ => return,
        }
        slot.handle.show(Whereabouts::Disk);
        self.slots.remove(&id);
    }

    /// Host memory lets go of what was used longest ago, is not pinned and nobody waits for.
    fn trim_host(&mut self) {
        while self.host_bytes > self.host_budget {
            let is_idle = |slot: &Slot| matches!(slot.place, Place::Host(_)) && slot.claims == 0 && !slot.pinned;
            let idle = self.slots.iter().filter(|(_, slot)| is_idle(slot));
            let Some((id, bytes)) = idle.min_by_key(|(_, slot)| slot.stamp).map(|(id, slot)| match &slot.place {
                Place::Host(adapter) => (*id, adapter.bytes() as u64),
                _ => (*id, 0),
            }) else {
                return;
            };
            self.host_bytes -= bytes;
            if let Some(slot) = self.slots.remove(&id) {
                slot.handle.show(Whereabouts::Disk);
            }
        }
    }
}
