//! Which segments of a step met a value that is not finite. They fail alone: their rows go on as zeros, and no other
//! row reads them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One flag per segment.
pub(crate) struct Failures(Vec<AtomicBool>);

impl Failures {
    pub(crate) fn new(segments: usize) -> Self {
        Failures((0..segments).map(|_| AtomicBool::new(false)).collect())
    }

    pub(crate) fn set(&self, segment: u32) {
        self.0[segment as usize].store(true, Relaxed);
    }

    pub(crate) fn into_flags(self) -> Vec<bool> {
        self.0.into_iter().map(AtomicBool::into_inner).collect()
    }
}
