//! Buffers the kernels read: aligned to a cache line, on large pages where the system grants them.
#![expect(unsafe_code, reason = "one system call that only advises")]

use bytemuck::{Pod, Zeroable};

/// One cache line, the unit of alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zero-initialised bytes, aligned to 64. The length is rounded up to a whole cache line.
#[derive(Clone, Default)]
pub struct AlignedBytes(Vec<Line>);

impl AlignedBytes {
    /// `bytes` zeros. Large buffers ask for huge pages, which streaming reads gain from.
    pub fn zeroed(bytes: usize) -> Self {
        let lines = bytes.div_ceil(64);
        let mut buffer: Vec<Line> = Vec::with_capacity(lines);
        advise_huge_pages(&mut buffer);
        buffer.resize(lines, Line([0; 64]));
        AlignedBytes(buffer)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// The bytes, to write.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len() * 64
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes room for at least `bytes`; what was there is zeroed if it grows.
    pub fn grow(&mut self, bytes: usize) {
        if self.len() < bytes {
            *self = AlignedBytes::zeroed(bytes);
        }
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(buffer: &mut Vec<Line>) {
    const HUGE: usize = 2 << 20;
    let start = (buffer.as_mut_ptr() as usize).next_multiple_of(HUGE);
    let end = (buffer.as_mut_ptr() as usize + buffer.capacity() * 64) / HUGE * HUGE;
    if end > start {
        // SAFETY: the range lies inside our own allocation; the advice changes no contents.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: &mut Vec<Line>) {}
