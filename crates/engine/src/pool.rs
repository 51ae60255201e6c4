//! Which pages are free. A sequence takes all it can ever need when it is admitted, so it never waits half way.

/// Free pages of the device.
pub(crate) struct FreePages {
    free: Vec<u32>,
    total: usize,
}

impl FreePages {
    pub(crate) fn new(total: usize) -> Self {
        FreePages { free: (0..total as u32).rev().collect(), total }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// `count` pages, or none if there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        let rest = self.free.len().checked_sub(count)?;
        Some(self.free.split_off(rest))
    }

    pub(crate) fn give_back(&mut self, pages: Vec<u32>) {
        self.free.extend(pages);
        assert!(self.free.len() <= self.total, "a page was given back twice");
    }
}
