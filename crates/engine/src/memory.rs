//! One budget for pages and resident adapters. Whoever needs room takes what is free, then what is cheapest to have back:
//! pages kept for later prompts, or adapters nobody uses.

use crate::adapters::{AdapterHandle, Tiers};
use crate::config::{Config, MemoryPlan};
use crate::device::Device;
use crate::prefix::Prefixes;
use cpu::{Hash, PAGE};
use model::{Adapter, Mlp, Shape};
use std::sync::Arc;

/// Operations that could be done while one byte of an adapter is read and quantised, roughly.
const RELOAD_OPS_PER_BYTE: u64 = 40_000;

/// Pages, who uses them, and the adapters beside them.
pub(crate) struct Memory {
    plan: MemoryPlan,
    /// Sequences that hold each page.
    users: Vec<u32>,
    /// Free pages that have memory, and those that have none.
    warm: Vec<u32>,
    cold: Vec<u32>,
    in_use: usize,
    prefixes: Prefixes,
    pub(crate) tiers: Tiers,
    cost: PageCost,
    /// The value of what was let go last.
    clock: u64,
    keep_prefixes: bool,
}

/// What recomputing a page costs, in operations for each of its bytes.
struct PageCost {
    ops_per_byte: u64,
    /// More for each page before it: attention reads them all.
    ops_per_byte_and_page: u64,
}

impl PageCost {
    fn of(shape: &Shape, page_bytes: u64) -> PageCost {
        let attention = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.key_heads) * shape.layers;
        let gated = |mlp: &Mlp| match *mlp {
            Mlp::Gated { width } => 3 * shape.hidden * width,
            Mlp::Experts { chosen, width, .. } => 3 * shape.hidden * width * chosen,
        };
        let weights = attention + shape.mlps.iter().map(gated).sum::<usize>();
        let reads = 4 * shape.layers * shape.heads * shape.head_dim * PAGE;
        let per_byte = |ops: usize| (ops * PAGE) as u64 / page_bytes.max(1);
        PageCost { ops_per_byte: per_byte(2 * weights), ops_per_byte_and_page: per_byte(reads) }
    }

    fn value(&self, page: usize) -> u64 {
        self.ops_per_byte + self.ops_per_byte_and_page * page as u64
    }
}

impl Memory {
    pub(crate) fn new(shape: &Shape, config: &Config) -> Memory {
        let plan = config.plan(shape);
        Memory {
            users: vec![0; plan.pages_max],
            warm: Vec::new(),
            cold: (0..plan.pages_max as u32).rev().collect(),
            in_use: 0,
            prefixes: Prefixes::default(),
            tiers: Tiers::new(plan.host_bytes),
            cost: PageCost::of(shape, plan.page_bytes),
            clock: 0,
            keep_prefixes: config.prefix_cache,
            plan,
        }
    }

    /// Pages that sequences hold.
    pub(crate) fn pages_used(&self) -> usize {
        self.in_use
    }

    /// Pages kept for later prompts, in use or not.
    pub(crate) fn pages_cached(&self) -> usize {
        self.prefixes.len()
    }

    /// Pages there can be.
    pub(crate) fn pages_total(&self) -> usize {
        self.users.len()
    }

    /// Pages that could be taken now if everything nobody uses were let go.
    pub(crate) fn pages_obtainable(&self) -> usize {
        let room = self.plan.shared_bytes.saturating_sub(self.tiers.busy_bytes());
        ((room / self.plan.page_bytes) as usize).min(self.users.len()).saturating_sub(self.in_use)
    }

    /// The most bytes adapters may take.
    pub(crate) fn adapters_bytes_max(&self) -> u64 {
        self.plan.adapters_bytes_max
    }

    fn held_bytes(&self) -> u64 {
        (self.users.len() - self.cold.len()) as u64 * self.plan.page_bytes + self.tiers.resident_bytes()
    }

    /// A page of its own for a sequence.
    pub(crate) fn take(&mut self, device: &mut dyn Device) -> Option<u32> {
        loop {
            if let Some(page) = self.warm.pop() {
                return Some(self.hold(page));
            }
            if self.held_bytes() + self.plan.page_bytes <= self.plan.shared_bytes
                && let Some(page) = self.cold.pop()
            {
                return Some(self.hold(page));
            }
            if !self.let_go_cheapest(device, !self.cold.is_empty()) {
                return None;
            }
        }
    }

    fn hold(&mut self, page: u32) -> u32 {
        assert!(self.users[page as usize] == 0, "a free page is in use");
        self.users[page as usize] = 1;
        self.in_use += 1;
        page
    }

    /// Lets the cheapest idle page go, or the cheapest idle adapter if that may help.
    fn let_go_cheapest(&mut self, device: &mut dyn Device, adapters_help: bool) -> bool {
        let adapter = if adapters_help { self.tiers.cheapest() } else { None };
        match (self.prefixes.cheapest(), adapter) {
            (None, None) => return false,
            (page, Some((value, id))) if page.is_none_or(|page| value < page) => {
                self.clock = self.clock.max(value);
                if let Some(adapter) = self.tiers.demote(id) {
                    device.drop_adapter(&adapter);
                }
            }
            (Some(value), _) => {
                self.clock = self.clock.max(value);
                self.warm.extend(self.prefixes.evict());
            }
            (None, Some(_)) => return false,
        }
        true
    }

    /// Takes up the page under a key, and its trace's leaves, if it is there.
    pub(crate) fn find(&mut self, key: &Hash) -> Option<(u32, &[Hash])> {
        let page = self.prefixes.find(key)?;
        if self.users[page as usize] == 0 {
            self.in_use += 1;
            self.prefixes.take_up(page);
        }
        self.users[page as usize] += 1;
        Some((page, self.prefixes.leaves(page)))
    }

    /// Whether the page under a key is there, and if so whether somebody uses it.
    pub(crate) fn peek(&self, key: &Hash) -> Option<bool> {
        self.prefixes.find(key).map(|page| self.users[page as usize] > 0)
    }

    /// Keeps a full page for others. If another holds the same already, that one is taken up in its place.
    pub(crate) fn publish(&mut self, number: usize, page: u32, key: Hash, parent: Option<u32>, leaves: &[Hash]) -> u32 {
        if !self.keep_prefixes || self.prefixes.holds(page) {
            return page;
        }
        match self.find(&key).map(|(same, _)| same) {
            Some(same) => {
                self.put_down(number, page);
                same
            }
            None => {
                self.prefixes.insert(page, key, parent, leaves);
                page
            }
        }
    }

    /// A sequence lets go of the page that holds its positions from 64 · `number` on.
    pub(crate) fn put_down(&mut self, number: usize, page: u32) {
        let users = &mut self.users[page as usize];
        assert!(*users > 0, "a page was given back twice");
        *users -= 1;
        if *users == 0 {
            self.in_use -= 1;
            if !self.prefixes.put_down(page, self.clock + self.cost.value(number)) {
                self.warm.push(page);
            }
        }
    }

    /// Makes an adapter that is loaded resident, if there can be room.
    pub(crate) fn promote(&mut self, handle: &AdapterHandle, device: &mut dyn Device) -> bool {
        let Some(adapter) = self.tiers.loaded_adapter(handle) else { return false };
        let bytes = adapter.bytes() as u64;
        let pages = self.in_use as u64 * self.plan.page_bytes;
        let busy = self.tiers.busy_bytes() + bytes;
        if busy > self.plan.adapters_bytes_max || pages + busy > self.plan.shared_bytes {
            return false;
        }
        // What pages leave to adapters is theirs up to their most; beyond, adapters make way for each other.
        while self.tiers.resident_bytes() + bytes > self.plan.adapters_bytes_max {
            let Some((value, id)) = self.tiers.cheapest() else { return false };
            self.clock = self.clock.max(value);
            if let Some(adapter) = self.tiers.demote(id) {
                device.drop_adapter(&adapter);
            }
        }
        while self.held_bytes() + bytes > self.plan.shared_bytes {
            if let Some(page) = self.warm.pop() {
                device.release_page(page);
                self.cold.push(page);
            } else if !self.let_go_cheapest(device, true) {
                return false;
            }
        }
        self.tiers.promote(handle, &adapter);
        device.keep_adapter(&adapter);
        true
    }

    /// A sequence takes up a resident adapter.
    pub(crate) fn take_adapter(&mut self, handle: &AdapterHandle) -> Option<Arc<Adapter>> {
        self.tiers.take_up(handle)
    }

    /// A sequence puts an adapter down.
    pub(crate) fn put_down_adapter(&mut self, handle: &AdapterHandle, device: &mut dyn Device) {
        let dropped = self.tiers.put_down(handle, self.clock + RELOAD_OPS_PER_BYTE);
        if let Some(adapter) = dropped {
            device.drop_adapter(&adapter);
        }
    }
}
