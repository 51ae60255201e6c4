//! Pages kept for sequences that begin the same.
//!
//! A full page is known by a key that commits to everything that decided its contents: arithmetic, base, adapter,
//! tenant, and every token up to its end. A page found under a key holds what would be computed, to the bit, so it is
//! shared by reference; its trace leaves are kept with it. A changed adapter has another digest, hence other keys.
//!
//! What is not in use is let go cheapest first: a page's value is what recomputing it costs for each of its bytes, added
//! to the value of what was let go last (the Greedy-Dual rule), so that old worth fades and later pages of a long prompt,
//! which cost more, stay longer. A page goes only after those that continue it.

use cpu::Hash;
use std::collections::{BTreeSet, HashMap};

/// Keys of one sequence's pages.
pub(crate) struct Keys {
    keys: Vec<Hash>,
    root: Hash,
}

impl Keys {
    /// The chain of a base, an adapter and a tenant. Tenants do not share pages: how fast an answer comes must not tell
    /// one what another asked.
    pub(crate) fn new(base: &Hash, adapter: Option<&Hash>, tenant: &Hash) -> Keys {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"lockstep prefix 1").update(&exact::VERSION.to_le_bytes()).update(base);
        hasher.update(&[u8::from(adapter.is_some())]).update(adapter.unwrap_or(&[0; 32])).update(tenant);
        Keys { keys: Vec::new(), root: *hasher.finalize().as_bytes() }
    }

    /// The key of page `page`, whose tokens must be known: `tokens` are those of the sequence.
    pub(crate) fn of(&mut self, page: usize, tokens: &[u32]) -> Hash {
        while self.keys.len() <= page {
            let from = self.keys.len() * cpu::PAGE;
            let mut hasher = blake3::Hasher::new();
            hasher.update(self.keys.last().unwrap_or(&self.root));
            for token in &tokens[from..from + cpu::PAGE] {
                hasher.update(&token.to_le_bytes());
            }
            self.keys.push(*hasher.finalize().as_bytes());
        }
        self.keys[page]
    }
}

struct Entry {
    key: Hash,
    /// The page before it, if it has one.
    parent: Option<u32>,
    leaves: Box<[Hash]>,
    /// Cached pages that continue it.
    children: u32,
    /// Whether a sequence holds it.
    used: bool,
    value: u64,
}

/// The pages that can be found again.
#[derive(Default)]
pub(crate) struct Prefixes {
    by_key: HashMap<Hash, u32>,
    entries: HashMap<u32, Entry>,
    /// Those that may go, by value.
    idle: BTreeSet<(u64, u32)>,
}

impl Prefixes {
    /// The page under a key.
    pub(crate) fn find(&self, key: &Hash) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Whether a page can be found.
    pub(crate) fn holds(&self, page: u32) -> bool {
        self.entries.contains_key(&page)
    }

    /// The trace's leaves of a page's positions.
    pub(crate) fn leaves(&self, page: u32) -> &[Hash] {
        self.entries.get(&page).map_or(&[], |entry| &entry.leaves)
    }

    /// Makes a page that is in use findable. `parent` is the page before it in its sequence.
    pub(crate) fn insert(&mut self, page: u32, key: Hash, parent: Option<u32>, leaves: &[Hash]) {
        assert!(leaves.len() == cpu::PAGE && !self.holds(page), "only full pages are kept, and only once");
        if let Some(parent) = parent.and_then(|parent| self.entries.get_mut(&parent)) {
            parent.children += 1;
        }
        self.by_key.insert(key, page);
        let leaves = leaves.into();
        self.entries.insert(page, Entry { key, parent, leaves, children: 0, used: true, value: 0 });
    }

    /// A sequence takes the page up.
    pub(crate) fn take_up(&mut self, page: u32) {
        if let Some(entry) = self.entries.get_mut(&page) {
            entry.used = true;
            self.idle.remove(&(entry.value, page));
        }
    }

    /// The last sequence that held the page put it down. Gives false if the page cannot be found again.
    pub(crate) fn put_down(&mut self, page: u32, value: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&page) else { return false };
        (entry.used, entry.value) = (false, value);
        if entry.children == 0 {
            self.idle.insert((value, page));
        }
        true
    }

    /// The least value of what may go.
    pub(crate) fn cheapest(&self) -> Option<u64> {
        self.idle.first().map(|(value, _)| *value)
    }

    /// Lets the page of the least value go.
    pub(crate) fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.idle.pop_first()?;
        let entry = self.entries.remove(&page)?;
        self.by_key.remove(&entry.key);
        if let Some((parent, above)) = entry.parent.and_then(|page| Some((page, self.entries.get_mut(&page)?))) {
            above.children -= 1;
            if above.children == 0 && !above.used {
                self.idle.insert((above.value, parent));
            }
        }
        Some(page)
    }

    /// Pages that can be found.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(adapter: Option<&Hash>, tenant: &Hash, tokens: &[u32], page: usize) -> Hash {
        Keys::new(&[1; 32], adapter, tenant).of(page, tokens)
    }

    #[test]
    fn a_key_commits_to_base_adapter_tenant_and_every_token_before_it() {
        let tokens: Vec<u32> = (0..192).collect();
        let own = key(None, &[0; 32], &tokens, 2);
        assert_eq!(own, key(None, &[0; 32], &tokens, 2));
        assert_ne!(own, Keys::new(&[2; 32], None, &[0; 32]).of(2, &tokens));
        assert_ne!(own, key(Some(&[0; 32]), &[0; 32], &tokens, 2));
        assert_ne!(own, key(None, &[9; 32], &tokens, 2));
        for at in [0, 63, 64, 191] {
            let mut other = tokens.clone();
            other[at] += 1000;
            assert_ne!(own, key(None, &[0; 32], &other, 2), "token {at}");
        }
    }

    #[test]
    fn a_page_goes_after_those_that_continue_it_and_cheap_ones_first() {
        let mut prefixes = Prefixes::default();
        let leaves = [[7; 32]; cpu::PAGE];
        prefixes.insert(0, [0; 32], None, &leaves);
        prefixes.insert(1, [1; 32], Some(0), &leaves);
        prefixes.insert(2, [2; 32], None, &leaves);
        assert_eq!(prefixes.evict(), None, "all are in use");
        for (page, value) in [(0, 1), (1, 9), (2, 5)] {
            assert!(prefixes.put_down(page, value));
        }
        assert_eq!([prefixes.evict(), prefixes.evict(), prefixes.evict()], [Some(2), Some(1), Some(0)]);
        assert!(!prefixes.put_down(0, 1));
    }
}
