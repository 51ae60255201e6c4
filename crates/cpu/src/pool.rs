//! Threads that do one section of work together, many thousand times a second.
//!
//! A section starts when the caller bumps the epoch and ends when every thread has finished. Workers spin for a moment
//! before they sleep: sections follow each other within microseconds while a step runs, and idle servers must not burn
//! a core.
#![expect(unsafe_code, reason = "a section borrows from the caller's stack, which thread lifetimes cannot express")]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::{self, JoinHandle, Thread};

/// Spins before a worker sleeps and before the caller lets others have its core, some 50 microseconds where a pause takes
/// 140 cycles. When programs compete for the cores, longer spinning only keeps them from whom it waits for.
const SPINS: usize = 1_000;

type Section = &'static (dyn Fn(usize) + Sync);

struct State {
    /// Counts sections; a change starts one.
    epoch: AtomicUsize,
    section: UnsafeCell<Option<Section>>,
    /// Workers still inside the current section.
    busy: AtomicUsize,
    panicked: AtomicBool,
    closing: AtomicBool,
    asleep: Vec<AtomicBool>,
}

// SAFETY: `section` is written only by the caller while no worker is inside a section, and the release store of
// `epoch` orders that write before every worker's read.
unsafe impl Sync for State {}

/// A fixed set of threads; the caller is one of them.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
    shares: Arc<[Share]>,
}

/// Units that are one thread's unless another has nothing left to do: a range of numbers, start in the upper half of the word. In a
/// cache line of its own.
#[repr(align(64))]
struct Share(AtomicU64);

impl Share {
    fn set(&self, units: Range<usize>) {
        self.0.store((units.start as u64) << 32 | units.end as u64, Relaxed);
    }

    /// Takes the first unit, or the last.
    fn take(&self, last: bool) -> Option<usize> {
        let halves = |word: u64| (word >> 32, word & u64::from(u32::MAX));
        let rest = |word| {
            let (start, end) = halves(word);
            (start < end).then(|| if last { start << 32 | (end - 1) } else { (start + 1) << 32 | end })
        };
        let (start, end) = halves(self.0.fetch_update(Relaxed, Relaxed, rest).ok()?);
        Some(if last { end - 1 } else { start } as usize)
    }
}

impl Pool {
    /// A pool of `threads` threads in all, at least one.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let extra = threads.max(1) - 1;
        let state = Arc::new(State {
            epoch: AtomicUsize::new(0),
            section: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            asleep: (0..extra).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Vec::with_capacity(extra);
        for number in 0..extra {
            let state = state.clone();
            let name = format!("lockstep-{}", number + 1);
            workers.push(thread::Builder::new().name(name).spawn(move || work(&state, number))?);
        }
        let handles = workers.iter().map(|worker| worker.thread().clone()).collect();
        let shares = (0..threads.max(1)).map(|_| Share(AtomicU64::new(0))).collect();
        Ok(Pool { state, workers, handles, shares })
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `section` on every thread, each with its number, and returns when all are done.
    pub fn run(&mut self, section: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            section(0);
            return;
        }
        // SAFETY: the reference is used only until `busy` is zero again, which this function waits for, also when the
        // caller's own share panics.
        let section_static: Section = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Section>(section) };
        // SAFETY: no worker is inside a section now; `&mut self` keeps other callers out.
        unsafe { *self.state.section.get() = Some(section_static) };
        self.state.busy.store(self.workers.len(), Relaxed);
        self.state.epoch.fetch_add(1, SeqCst);
        for (asleep, handle) in self.state.asleep.iter().zip(&self.handles) {
            if asleep.load(SeqCst) {
                handle.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| section(0)));
        let mut spins = 0;
        while self.state.busy.load(Acquire) != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!self.state.panicked.load(Relaxed), "a worker thread panicked");
    }

    /// Runs `unit(thread, i)` for every i below `count`. Each thread begins with a run of its own, in order, so that what it
    /// reads follows what it read before; who is done takes units from the ends of others' runs.
    pub fn each(&mut self, count: usize, unit: impl Fn(usize, usize) + Sync) {
        if count == 1 {
            unit(0, 0);
            return;
        }
        assert!(u32::try_from(count).is_ok(), "more units than a share can count");
        let shares = self.shares.clone();
        let threads = shares.len();
        for (thread, share) in shares.iter().enumerate() {
            share.set(count * thread / threads..count * (thread + 1) / threads);
        }
        self.run(&|thread| {
            while let Some(i) = shares[thread].take(false) {
                unit(thread, i);
            }
            for other in 1..threads {
                while let Some(i) = shares[(thread + other) % threads].take(true) {
                    unit(thread, i);
                }
            }
        });
    }
}

fn work(state: &State, number: usize) {
    assert!(exact::float_environment_is_standard(), "this thread's floating-point unit is not in its standard state");
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while state.epoch.load(Acquire) == seen {
            if state.closing.load(Relaxed) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                state.asleep[number].store(true, SeqCst);
                if state.epoch.load(SeqCst) == seen && !state.closing.load(SeqCst) {
                    thread::park();
                }
                state.asleep[number].store(false, SeqCst);
            }
        }
        seen = seen.wrapping_add(1);
        // SAFETY: the epoch changed, so the caller has written the section and waits for us before it writes again.
        if let Some(section) = unsafe { *state.section.get() }
            && catch_unwind(AssertUnwindSafe(|| section(number + 1))).is_err()
        {
            state.panicked.store(true, Relaxed);
        }
        state.busy.fetch_sub(1, Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.closing.store(true, SeqCst);
        for handle in &self.handles {
            handle.unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker's panic was reported when it happened.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_exactly_once_in_every_section() {
        for threads in 1..4 {
            let mut pool = Pool::new(threads).unwrap();
            for round in 0..300 {
                let counts: Vec<AtomicUsize> = (0..round % 40).map(|_| AtomicUsize::new(0)).collect();
                pool.each(counts.len(), |_, i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
                if round % 100 == 0 {
                    thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn who_is_done_takes_the_units_of_who_is_not() {
        let mut pool = Pool::new(2).unwrap();
        let (counts, done) = ([const { AtomicUsize::new(0) }; 40], AtomicUsize::new(0));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        pool.each(counts.len(), |_, i| {
            // The first unit ends when all others have: half of them are its own thread's, and must be taken.
            while i == 0 && done.load(Acquire) < counts.len() - 1 {
                assert!(std::time::Instant::now() < deadline, "nobody takes the other units");
                thread::yield_now();
            }
            counts[i].fetch_add(1, Relaxed);
            done.fetch_add(1, Release);
        });
        assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
    }
}
