//! Pinned host memory that copies to the device pass through, so that they run beside everything else and the source may
//! go at once.
#![expect(unsafe_code, reason = "pinned memory comes from the driver as a bare pointer")]

use crate::driver::failed;
use crate::launcher::DeviceError;
use cudarc::driver::{result, sys};

/// Two halves: one is filled while the other is being copied.
pub(crate) struct Staging {
    start: *mut u8,
    half_bytes: usize,
    half: usize,
    used: usize,
    /// Recorded when the copies out of a half have been asked for.
    done: [sys::CUevent; 2],
}

impl Staging {
    /// Two halves of `half_bytes` each. The context is current.
    pub(crate) fn new(half_bytes: usize) -> Result<Staging, DeviceError> {
        let event = || {
            result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(|error| failed("making an event", error))
        };
        let done = [event()?, event()?];
        // SAFETY: freed in `free`; every byte is written before it is copied.
        let start =
            unsafe { result::malloc_host(2 * half_bytes, 0) }.map_err(|error| failed("pinning memory", error))?;
        Ok(Staging { start: start.cast(), half_bytes, half: 0, used: 0, done })
    }

    /// Copies `bytes` to the device address `to`, in the order of `stream`.
    pub(crate) fn write(&mut self, stream: sys::CUstream, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let fail = |error| failed("copying to the device", error);
        let mut written = 0;
        while written < bytes.len() {
            if self.used == self.half_bytes {
                // SAFETY: event and stream are alive; the other half is filled only once its copies are done.
                unsafe {
                    result::event::record(self.done[self.half], stream).map_err(fail)?;
                    self.half = 1 - self.half;
                    result::event::synchronize(self.done[self.half]).map_err(fail)?;
                }
                self.used = 0;
            }
            let count = (bytes.len() - written).min(self.half_bytes - self.used);
            // SAFETY: the range lies in this half, which no copy under way reads from; the destination lies in a buffer,
            // as the launcher's contract says.
            unsafe {
                let part =
                    std::slice::from_raw_parts_mut(self.start.add(self.half * self.half_bytes + self.used), count);
                part.copy_from_slice(&bytes[written..written + count]);
                result::memcpy_htod_async(to + written as u64, part, stream).map_err(fail)?;
            }
            written += count;
            self.used += count;
        }
        Ok(())
    }

    /// Gives the memory back. The streams it was used with have ended, the context is current.
    pub(crate) fn free(&mut self) {
        // SAFETY: came from `malloc_host`; called once, by the driver's drop.
        unsafe {
            let _ = result::free_host(self.start.cast());
            for event in self.done {
                let _ = result::event::destroy(event);
            }
        }
    }
}
