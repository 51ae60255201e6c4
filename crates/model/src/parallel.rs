//! Independent jobs over a few threads, which let others go first between jobs.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread that reads a model works before it lets others go first.
const TURN: Duration = Duration::from_micros(300);

thread_local! {
    static BEGUN: Cell<Instant> = Cell::new(Instant::now());
}

/// Lets others go first who want this core, if this thread has worked for a while. Called between small pieces of work by
/// whoever reads models and adapters: a server that computes answers meanwhile must not lose a core for as long as the system
/// gives one at a time, which is milliseconds.
pub(crate) fn give_way() {
    if BEGUN.get().elapsed() >= TURN {
        std::thread::yield_now();
        BEGUN.set(Instant::now());
    }
}

/// Runs `jobs` jobs on up to `threads` threads, in ascending order of start, and gives their results in order.
/// After a failure no further job starts; of the failures met, the one with the lowest number is returned.
pub(crate) fn map<T: Send, E: Send>(
    threads: usize,
    jobs: usize,
    run: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = vec![];
        while !failed.load(Ordering::Relaxed) {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                break;
            }
            let result = run(job);
            give_way();
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            done.push((job, result));
        }
        done
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(jobs)).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(job, _)| *job);
    all.into_iter().map(|(_, result)| result).collect()
}
