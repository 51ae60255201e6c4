//! How many requests wait, all in all and of each tenant: the bound that keeps memory bounded.

use cpu::Hash;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts those who wait.
#[derive(Default)]
pub(crate) struct Tickets {
    tenants: Mutex<(usize, HashMap<Hash, usize>)>,
}

/// A place among those who wait, given back when it is dropped.
pub(crate) struct Ticket {
    tickets: Arc<Tickets>,
    tenant: Hash,
}

impl Tickets {
    /// A place for a tenant, if there is one. Nobody who gives a name takes more than half of the places, so that there
    /// is one for somebody else.
    pub(crate) fn take(self: &Arc<Tickets>, tenant: Hash, most: usize) -> Option<Ticket> {
        let mut guard = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, tenants) = &mut *guard;
        let own = tenants.get(&tenant).copied().unwrap_or(0);
        if *all >= most || own >= own_most(&tenant, most) {
            return None;
        }
        *all += 1;
        tenants.insert(tenant, own + 1);
        Some(Ticket { tickets: self.clone(), tenant })
    }

    /// Whether there is a place for a tenant now.
    pub(crate) fn has_room(&self, tenant: &Hash, most: usize) -> bool {
        let guard = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, tenants) = &*guard;
        *all < most && tenants.get(tenant).copied().unwrap_or(0) < own_most(tenant, most)
    }

    /// Places taken now.
    pub(crate) fn taken(&self) -> usize {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The most places of one tenant; who has no name is everybody.
fn own_most(tenant: &Hash, most: usize) -> usize {
    if *tenant == [0; 32] { most } else { most.div_ceil(2) }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut guard = self.tickets.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, tenants) = &mut *guard;
        *all -= 1;
        if let Some(own) = tenants.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_one_tenant_leaves_half_to_others() {
        let tickets = Arc::new(Tickets::default());
        let greedy: Vec<Ticket> = (0..10).filter_map(|_| tickets.take([1; 32], 8)).collect();
        assert_eq!(greedy.len(), 4);
        assert!(!tickets.has_room(&[1; 32], 8) && tickets.has_room(&[2; 32], 8));
        let others: Vec<Ticket> = (2..20).filter_map(|i| tickets.take([i; 32], 8)).collect();
        assert_eq!(others.len(), 4);
        assert!(!tickets.has_room(&[0; 32], 8));
        drop(greedy);
        assert_eq!((0..10).map_while(|_| tickets.take([0; 32], 8).map(std::mem::forget)).count(), 4);
    }
}
