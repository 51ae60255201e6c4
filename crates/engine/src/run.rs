//! The thread that drives the engine: steps while there is work, sleeps while there is none.

use crate::adapters::{AdapterHandle, Haste, Loaded, Loader};
use crate::core::{Core, Load};
use crate::counters::Counters;
use crate::request::Failure;
use crate::sequence::Sequence;
use crate::time::Use;
use model::Adapter;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for a load before looking whether somebody gave up.
const PATIENCE: Duration = Duration::from_millis(20);
/// Requests that wait, at most, for an adapter's load to go at once.
const FEW: usize = 16;
/// How often it shows itself while it has nothing to do.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// What the thread is told.
pub(crate) enum Command {
    Add(Box<Sequence>),
    Loaded(Loaded),
    Deliver(Arc<AdapterHandle>, Arc<Adapter>),
    Forget(Arc<AdapterHandle>),
    /// Pin, or no longer.
    Pin(Arc<AdapterHandle>, bool),
    IsIdle(Sender<bool>),
    /// Charge the time until now, and show it.
    Show(Sender<()>),
    Stop,
}

/// What it shows of itself.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) load: Load,
    pub(crate) counters: Counters,
    /// What the base took by itself.
    pub(crate) base: Use,
    /// What adapters took, by name.
    pub(crate) adapters: BTreeMap<String, Use>,
}

pub(crate) fn run(mut core: Core, inbox: &Receiver<Command>, loader: &Loader, shown: &Mutex<Shown>) {
    let mut computed = false;
    loop {
        let command = if computed && !core.is_idle() {
            inbox.try_recv()
        } else {
            // Who asks what the time went into must not wait for the next request.
            let patience = if core.is_idle() { SHOW_EVERY } else { PATIENCE };
            let news = inbox.recv_timeout(patience).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            });
            core.pause();
            news
        };
        match command {
            Ok(Command::Add(sequence)) => core.add(*sequence),
            Ok(Command::Loaded(loaded)) => core.loaded(loaded),
            Ok(Command::Deliver(handle, adapter)) => core.deliver(&handle, adapter),
            Ok(Command::Forget(handle)) => core.forget(&handle),
            Ok(Command::Pin(handle, pinned)) => core.pin(&handle, pinned),
            Ok(Command::IsIdle(asked)) => {
                let _ = asked.send(core.is_idle());
            }
            Ok(Command::Show(asked)) => {
                core.pause();
                show(&mut core, shown);
                let _ = asked.send(());
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                core.fail_all(&Failure::ShuttingDown);
                return;
            }
            Err(TryRecvError::Empty) => {
                computed = core.step(Instant::now());
                let haste = if core.waiting() <= FEW { Haste::Quick } else { Haste::Patient };
                core.take_jobs().into_iter().for_each(|handle| loader.push(handle, haste));
                show(&mut core, shown);
                continue;
            }
        }
        // After news there may be something to compute; and who asks how full the engine is must see it at once.
        computed = true;
        show(&mut core, shown);
    }
}

fn show(core: &mut Core, shown: &Mutex<Shown>) {
    let uses = core.take_uses();
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    (shown.load, shown.counters) = (core.load(), *core.counters());
    for (adapter, more) in uses {
        match adapter {
            None => shown.base.add(&more),
            Some(adapter) => match shown.adapters.get_mut(adapter.name()) {
                Some(own) => own.add(&more),
                None => {
                    shown.adapters.insert(adapter.name().to_owned(), more);
                }
            },
        }
    }
}
