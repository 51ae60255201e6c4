//! One buffer, many threads, disjoint writes.
#![expect(unsafe_code, reason = "threads of one step write disjoint parts of a buffer, which slices cannot express")]

use std::marker::PhantomData;

/// A mutable slice that the threads of one parallel section share. Every access is checked against the bounds.
///
/// # Contract
/// Between two barriers, no element is written by one thread and read or written by another. The executor keeps this
/// by giving each unit of work its own rows, columns or pages; the kernels hold no borrow beyond their call. A breach
/// would be a data race, so a `Shared` is made only in the kernels and the executors built on them.
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: the contract above makes concurrent use free of races; T itself may move between threads.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

impl<'a, T: Copy> Shared<'a, T> {
    /// Shares a slice for the time of its borrow.
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// Elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes one element.
    #[inline(always)]
    pub fn set(&self, at: usize, value: T) {
        assert!(at < self.len);
        // SAFETY: within bounds; disjoint by the contract.
        unsafe { self.start.add(at).write(value) }
    }

    /// Reads one element.
    #[inline(always)]
    pub fn get(&self, at: usize) -> T {
        assert!(at < self.len);
        // SAFETY: within bounds; not being written by the contract.
        unsafe { self.start.add(at).read() }
    }

    /// Copies `values` in from `at` on.
    #[inline(always)]
    pub fn copy_in(&self, at: usize, values: &[T]) {
        assert!(at <= self.len && values.len() <= self.len - at);
        // SAFETY: within bounds; disjoint by the contract; `values` is a borrow, so it does not overlap what we own.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(at), values.len()) }
    }

    /// A part to read, which no other thread writes before the next barrier.
    #[inline(always)]
    pub fn part(&self, at: usize, len: usize) -> &'a [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: within bounds; not being written by the contract.
        unsafe { std::slice::from_raw_parts(self.start.add(at), len) }
    }

    /// A part to write, which no other thread touches before the next barrier.
    #[inline(always)]
    pub fn part_mut(&self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: within bounds; disjoint by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
