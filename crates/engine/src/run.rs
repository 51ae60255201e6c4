//! The thread that drives the engine: steps while there is work, sleeps while there is none.

use crate::adapters::{AdapterHandle, Loaded, Loader};
use crate::core::{Core, Load};
use crate::counters::Counters;
use crate::request::Failure;
use crate::sequence::Sequence;
use model::Adapter;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for a load before looking whether somebody gave up.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the thread is told.
pub(crate) enum Command {
    Add(Box<Sequence>),
    Loaded(Loaded),
    Deliver(Arc<AdapterHandle>, Arc<Adapter>),
    Forget(Arc<AdapterHandle>),
    IsIdle(Sender<bool>),
    Stop,
}

/// What it shows of itself.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shown {
    pub(crate) load: Load,
    pub(crate) counters: Counters,
}

pub(crate) fn run(mut core: Core, inbox: &Receiver<Command>, loader: &Loader, shown: &Mutex<Shown>) {
    let mut computed = false;
    let mut since = Instant::now();
    loop {
        let waiting = Instant::now();
        let idle = core.is_idle();
        let command = if idle {
            inbox.recv().map_err(|_| TryRecvError::Disconnected)
        } else if computed {
            inbox.try_recv()
        } else {
            inbox.recv_timeout(PATIENCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            })
        };
        if idle {
            core.counters().idle_seconds += waiting.elapsed().as_secs_f64();
            since = Instant::now();
        }
        match command {
            Ok(Command::Add(sequence)) => core.add(*sequence),
            Ok(Command::Loaded(loaded)) => core.loaded(loaded),
            Ok(Command::Deliver(handle, adapter)) => core.deliver(&handle, adapter),
            Ok(Command::Forget(handle)) => core.forget(&handle),
            Ok(Command::IsIdle(asked)) => {
                let _ = asked.send(core.is_idle());
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                core.fail_all(&Failure::ShuttingDown);
                return;
            }
            Err(TryRecvError::Empty) => {
                computed = step(&mut core, loader, &mut since);
                show(&mut core, shown);
                continue;
            }
        }
        // After news there may be something to compute; and who asks how full the engine is must see it at once.
        computed = true;
        show(&mut core, shown);
    }
}

fn step(core: &mut Core, loader: &Loader, since: &mut Instant) -> bool {
    let before = *core.counters();
    let computed = core.step(Instant::now());
    core.take_jobs().into_iter().for_each(|handle| loader.push(handle));
    let after = core.counters();
    let busy = |c: &Counters| c.prefill_seconds + c.decode_seconds + c.rejected_seconds + c.recompute_seconds;
    after.other_seconds += (since.elapsed().as_secs_f64() - (busy(after) - busy(&before))).max(0.0);
    *since = Instant::now();
    computed
}

fn show(core: &mut Core, shown: &Mutex<Shown>) {
    let (load, counters) = (core.load(), *core.counters());
    *shown.lock().unwrap_or_else(PoisonError::into_inner) = Shown { load, counters };
}
