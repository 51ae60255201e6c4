//! How long an adapter takes to load, in parts.

use super::adapters::Farm;
use super::{Served, ServingArgs, percentile};
use crate::failure::{Failure, io};
use model::{Adapter, AdapterCache, digest};
use std::time::{Duration, Instant};

/// Bytes that forms may take here: all that are made.
const ROOM: u64 = 64 << 30;

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let count = args.adapters.unwrap_or(100);
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, count)?;
    let (model, isa) = (&served.model, args.model.machine.isa()?);
    let cache = AdapterCache::new(&farm.forms(), ROOM);
    let [mut read, mut hash, mut floats, mut digests, mut kept, mut found] = [const { Vec::<Duration>::new() }; 6];
    for number in 0..count {
        let folder = farm.path(number);
        let file = folder.join("adapter_model.safetensors");
        let bytes = timed(&mut read, || std::fs::read(&file).map_err(io(&file)))?;
        timed(&mut hash, || Ok(blake3::hash(&bytes)))?;
        let adapter = timed(&mut floats, || Ok(Adapter::load_on(&folder, model, isa, 1)?))?;
        timed(&mut digests, || Ok(digest::adapter_manifest(&model.plan, &adapter.sites, 1)))?;
        timed(&mut kept, || Ok(cache.load(&folder, model, isa, 1)?))?;
    }
    for number in 0..count {
        let (adapter, kept) = timed(&mut found, || Ok(cache.load(&farm.path(number), model, isa, 1)?))?;
        if kept != model::Kept::Found {
            return Err(Failure(format!("the form of adapter {number} was not found: {kept:?}")));
        }
        drop(adapter);
    }
    println!("{count} adapters, one thread, files in the system's memory; ms");
    println!("{:42} {:>8} {:>8}", "", "p50", "p99");
    for (what, times) in [
        ("reading the floats", &read),
        ("hashing them", &hash),
        ("from floats: read, quantise, pack, digest", &floats),
        ("of that, the digest", &digests),
        ("the same, hashed twice, its form written", &kept),
        ("from its form, files hashed", &found),
    ] {
        println!("{what:42} {:8.3} {:8.3}", percentile(times, 0.5), percentile(times, 0.99));
    }
    Ok(())
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let started = Instant::now();
    let done = work()?;
    times.push(started.elapsed());
    Ok(done)
}
