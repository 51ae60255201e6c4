//! One gateway: so many requests in flight, each held, then settled or released, then told.

use crate::Args;
use crate::requests::Request;
use ledger::{Config, Done, Ledger, LedgerError, Refusal};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Works through its requests from one on. A request is told when its end is durable.
pub(crate) async fn work(args: &Args, config: Config, gateway: u64, from: u64) {
    let ledger = Ledger::open(config).await.unwrap();
    let next = Arc::new(AtomicU64::new(from));
    let tasks: Vec<_> = (0..args.concurrency)
        .map(|_| {
            let (ledger, next, args) = (ledger.clone(), next.clone(), args.clone());
            tokio::spawn(async move {
                let mut waits = vec![];
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= args.requests() {
                        return waits;
                    }
                    serve(&ledger, &Request::of(args.seed, gateway, number), &mut waits).await;
                    // One call, so that a line is told whole or not at all.
                    std::io::stdout().write_all(format!("done {number}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    let mut waits = vec![];
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    drop(ledger);
    waits.sort_unstable();
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!("a hold or a settlement waits {:.2} ms, in one of a hundred cases {:.2} ms", at(50), at(99));
    println!("ticks {}", ticks("self"));
}

async fn serve(ledger: &Ledger, request: &Request, waits: &mut Vec<Duration>) {
    let begun = Instant::now();
    match retried(|| ledger.hold(request.hold())).await {
        // Ended before a kill, and not told.
        Ok(_) | Err(LedgerError::Refused(Refusal::Ended { .. })) => {}
        Err(error) => unreachable!("{}: {error}", request.id()),
    }
    waits.push(begun.elapsed());
    let begun = Instant::now();
    match request.settlement() {
        Some(settlement) => retried(|| ledger.settle(settlement.clone())).await.unwrap(),
        None => retried(|| ledger.release(request.id())).await.unwrap(),
    };
    waits.push(begun.elapsed());
}

/// Asks again with the same id as long as nobody knows whether it was done.
async fn retried<F: Future<Output = Result<Done, LedgerError>>>(ask: impl Fn() -> F) -> Result<Done, LedgerError> {
    loop {
        match ask().await {
            Err(LedgerError::Away(_) | LedgerError::Slow(_)) => {}
            result => return result,
        }
    }
}

/// Hundredths of a second of processor time that a process took.
pub(crate) fn ticks(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, the 12th and 13th word.
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let word = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    word(12) + word(13)
}
