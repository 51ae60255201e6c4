//! What this machine can do at most, measured: the yardstick beside every benchmark.

use crate::Isa;
use crate::memory::AlignedBytes;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Measured limits of this machine with a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes read from memory per second.
    pub read_bytes: f64,
    /// Products and additions of 8-bit integers per second (two operations a pair), operands in registers.
    pub int8_ops: f64,
}

/// Measures for about a second with `threads` threads.
pub fn measure(isa: Isa, threads: usize) -> Limits {
    Limits { read_bytes: read_rate(threads), int8_ops: int8_rate(isa, threads) }
}

/// Best of several passes over memory far larger than the caches.
fn read_rate(threads: usize) -> f64 {
    const BYTES: usize = 512 << 20;
    let mut buffers: Vec<AlignedBytes> = (0..threads).map(|_| AlignedBytes::zeroed(BYTES / threads)).collect();
    for buffer in &mut buffers {
        buffer.as_bytes_mut().fill(1);
    }
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for buffer in &buffers {
                scope.spawn(|| black_box(sum(black_box(buffer.as_bytes()))));
            }
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..10).map(|_| pass()).fold(0.0, f64::max)
}

/// Reads four parts side by side and asks for what comes a little later, so that the memory system has as many requests to
/// overlap as it can.
fn sum(bytes: &[u8]) -> u64 {
    const WORDS: usize = 64;
    /// How many steps ahead memory is asked.
    const AHEAD: usize = 2;
    let words: &[u64] = bytemuck::cast_slice(bytes);
    let part = words.len() / 4 / WORDS * WORDS;
    let parts: [&[u64]; 4] = std::array::from_fn(|i| &words[i * part..(i + 1) * part]);
    let mut lanes = [0u64; WORDS];
    for start in (0..part).step_by(WORDS) {
        for part in parts {
            if let Some(ahead) = part.get(start + AHEAD * WORDS..start + (AHEAD + 1) * WORDS) {
                crate::kernels::fetch(bytemuck::cast_slice(ahead));
            }
            for (lane, word) in lanes.iter_mut().zip(&part[start..start + WORDS]) {
                *lane ^= word;
            }
        }
    }
    lanes.iter().fold(0, |a, b| a ^ b)
}

/// Best of several runs of products alone.
fn int8_rate(isa: Isa, threads: usize) -> f64 {
    let run = || {
        let start = Instant::now();
        let ops: f64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let (start, mut ops) = (Instant::now(), 0.0);
                        while start.elapsed() < Duration::from_millis(60) {
                            ops += crate::kernels::saturate(isa);
                        }
                        ops
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(0.0)).sum()
        });
        ops / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| run()).fold(0.0, f64::max)
}
