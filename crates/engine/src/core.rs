//! The engine's loop, one step at a time, without threads: what is tested is what runs.

mod arrivals;
mod plan;

use crate::adapters::{AdapterHandle, Readiness};
use crate::config::Config;
use crate::counters::{Counters, StepTokens};
use crate::device::{Device, Drawn, RowDraw, Stepped};
use crate::memory::Memory;
use crate::pace::{Crowd, Pace};
use crate::queue::Queue;
use crate::request::{Failure, Purpose};
use crate::schedule::Share;
use crate::sequence::Sequence;
use crate::time::{Clock, Meter, Use, divide};
use cpu::{Draw, Hash, PAGE, Segment, Wanted};
use model::Model;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps between two looks at who has waited long.
const AGE_EVERY: u64 = 64;

/// How long newcomers wait for a full machine to empty; then they come in and all get slower.
pub(crate) const FULL_PATIENCE: Duration = Duration::from_secs(1);

/// Sequences, pages, adapters and the device that advances them.
pub(crate) struct Core {
    device: Box<dyn Device>,
    memory: Memory,
    queue: Queue,
    running: Vec<Sequence>,
    /// Adapters to load, for whoever loads them.
    jobs: Vec<Arc<AdapterHandle>>,
    /// Pinned adapters for which there was no room yet.
    pins: Vec<Arc<AdapterHandle>>,
    base: Hash,
    config: Config,
    arrivals: u64,
    steps: u64,
    counters: Counters,
    meter: Meter,
    pace: Pace,
    /// What adapters took and gave since they were last asked after.
    uses: Vec<(Option<Arc<AdapterHandle>>, Use)>,
}

/// How full the engine is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// Requests that wait for pages, for their adapter, or for their turn.
    pub waiting: usize,
    /// Requests being computed.
    pub running: usize,
    /// Pages in use.
    pub pages_used: usize,
    /// Pages kept for prompts that begin the same, those in use included.
    pub pages_cached: usize,
    /// Pages there can be.
    pub pages_total: usize,
    /// Adapters that are resident, and their bytes.
    pub adapters_resident: usize,
    /// Bytes of resident adapters.
    pub adapters_resident_bytes: u64,
    /// Bytes of adapters that are loaded but not resident.
    pub adapters_host_bytes: u64,
}

impl Core {
    /// `clock` is what time is charged and paced by.
    pub(crate) fn new(device: Box<dyn Device>, model: &Model, config: Config, clock: Clock) -> Self {
        Core {
            device,
            memory: Memory::new(&model.shape, &config),
            pace: Pace::new(config.slowdown_max, config.quick_step),
            queue: Queue::default(),
            running: Vec::new(),
            jobs: Vec::new(),
            pins: Vec::new(),
            base: model.digest,
            config,
            arrivals: 0,
            steps: 0,
            counters: Counters::default(),
            meter: Meter::new(clock),
            uses: Vec::new(),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            waiting: self.queue.len(),
            running: self.running.len(),
            pages_used: self.memory.pages_used(),
            pages_cached: self.memory.pages_cached(),
            pages_total: self.memory.pages_total(),
            adapters_resident: self.memory.tiers.resident(),
            adapters_resident_bytes: self.memory.tiers.resident_bytes(),
            adapters_host_bytes: self.memory.tiers.host_bytes(),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What adapters took and gave since this was asked last; the same one may come several times.
    pub(crate) fn take_uses(&mut self) -> Vec<(Option<Arc<AdapterHandle>>, Use)> {
        std::mem::take(&mut self.uses)
    }

    /// Charges the time since the last charge, in which nothing was computed.
    pub(crate) fn pause(&mut self) {
        let lap = self.meter.lap();
        let (idle, loading) = (self.is_idle(), self.running.is_empty() && self.memory.tiers.ahead() > 0);
        let time = &mut self.counters.time;
        *(match (idle, loading) {
            (true, _) => &mut time.idle,
            (_, true) => &mut time.loading,
            _ => &mut time.held,
        }) += lap;
    }

    pub(crate) fn add(&mut self, mut sequence: Sequence) {
        sequence.arrive(self.arrivals, self.steps);
        self.arrivals += 1;
        if let Some(adapter) = &sequence.request().adapter {
            self.memory.tiers.claim(adapter);
        }
        self.queue.push(sequence);
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// The adapters that must be loaded next; [`Core::loaded`] is told what became of each.
    pub(crate) fn take_jobs(&mut self) -> Vec<Arc<AdapterHandle>> {
        std::mem::take(&mut self.jobs)
    }

    /// Continuous batching: sequences come and go between any two steps. Gives whether anything was computed.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        self.steps += 1;
        if self.steps.is_multiple_of(AGE_EVERY) {
            self.queue.age(self.steps);
        }
        self.drop_unwanted(now);
        self.promote_pins();
        self.admit(now);
        let shares = self.plan();
        let computed = !shares.is_empty();
        if computed {
            self.compute(&shares);
        }
        self.retire();
        computed
    }

    /// Ends everything unfinished.
    pub(crate) fn fail_all(&mut self, failure: &Failure) {
        for mut sequence in self.queue.take_if(|_| true).into_iter().chain(self.running.drain(..)) {
            sequence.fail(failure.clone());
        }
    }

    fn drop_unwanted(&mut self, now: Instant) {
        for mut sequence in self.queue.take_if(|s| s.is_abandoned() || s.is_late(now)) {
            if let Some(adapter) = &sequence.request().adapter {
                self.memory.tiers.unclaim(adapter);
            }
            sequence.fail(Failure::Deadline);
        }
        for sequence in &mut self.running {
            if sequence.is_late(now) {
                sequence.fail(Failure::Deadline);
            }
        }
        let gone: Vec<_> = self.running.extract_if(.., |s| s.is_abandoned() || s.has_ended()).collect();
        for mut sequence in gone {
            self.let_go(&mut sequence);
        }
    }

    /// Takes a sequence's pages and adapter from it.
    fn let_go(&mut self, sequence: &mut Sequence) {
        for (number, page) in sequence.give_up_pages().into_iter().enumerate().rev() {
            self.memory.put_down(number, page);
        }
        sequence.set_adapter(None);
        if let Some(adapter) = &sequence.request().adapter {
            self.memory.put_down_adapter(adapter, &mut *self.device);
        }
    }

    /// Admits in the queue's order. Who waits for an adapter is passed by; who waits for pages is not, nor is who has
    /// waited long for either. Loading begins for those next in turn, whether or not there is a place for them yet. While
    /// the machine is full nobody comes in, until somebody who could has waited for [`FULL_PATIENCE`].
    fn admit(&mut self, now: Instant) {
        let mut full = self.running.len() >= self.config.sequences_max;
        // Tokens of prompts that the next step still has room for.
        let begun = |s: &Sequence| if s.is_decoding() { 0 } else { s.pending() };
        let prompts: usize = self.running.iter().map(begun).sum();
        let mut room = self.pace.beside(self.crowd()).saturating_sub(prompts);
        full |= room == 0;
        let patient = !self.somebody_is_impatient(now);
        for place in self.queue.places() {
            full |= patient && self.pace.is_full(self.running.len());
            let Some(sequence) = self.queue.at(&place) else { continue };
            let handle = sequence.request().adapter.clone();
            let readiness = handle.as_ref().map_or(Readiness::Resident, |handle| self.memory.tiers.readiness(handle));
            let may_load = self.memory.tiers.ahead() < self.config.loads_ahead;
            match (readiness, &handle) {
                (Readiness::Disk, Some(handle)) if may_load => {
                    self.memory.tiers.begin_loading(handle);
                    self.jobs.push(handle.clone());
                    continue;
                }
                (Readiness::Disk | Readiness::Loading, _) => continue,
                _ if full && may_load => continue,
                _ if full => break,
                _ => {}
            }
            if !self.fits(&place) {
                full = true;
                continue;
            }
            if let (Readiness::Loaded, Some(handle)) = (readiness, &handle)
                && !self.memory.promote(handle, &mut *self.device)
            {
                full |= place.is_aged();
                continue;
            }
            if let Some(mut sequence) = self.queue.admit(&place) {
                sequence.note_admission();
                sequence.set_adapter(handle.as_ref().and_then(|handle| self.memory.take_adapter(handle)));
                room = room.saturating_sub(sequence.pending());
                self.running.push(sequence);
                self.running.sort_by_key(Sequence::seniority);
                full = room == 0 || self.running.len() >= self.config.sequences_max;
            }
        }
    }

    /// Whether somebody who waits for nothing but its turn has waited too long for a full machine, or was computed before.
    /// The queue's order stays: then all are let in as if the machine were not full.
    fn somebody_is_impatient(&self, now: Instant) -> bool {
        let tiers = &self.memory.tiers;
        self.queue.sequences().any(|sequence| {
            let impatient = sequence.gave_way() || sequence.waited(now) >= FULL_PATIENCE;
            let is_there =
                |handle: &AdapterHandle| !matches!(tiers.readiness(handle), Readiness::Disk | Readiness::Loading);
            impatient && sequence.request().adapter.as_ref().is_none_or(|handle| is_there(handle))
        })
    }

    /// Who decodes now.
    fn crowd(&self) -> Crowd {
        let mut crowd = Crowd::default();
        for sequence in self.running.iter().filter(|sequence| sequence.is_decoding()) {
            *(if sequence.is_settled() { &mut crowd.settled } else { &mut crowd.young }) += 1;
        }
        crowd
    }

    /// Whether there are pages for a waiting sequence beside those the running ones are about to take.
    fn fits(&mut self, place: &crate::queue::Place) -> bool {
        let lacking = |s: &Sequence| s.pages_needed().saturating_sub(s.pages().len());
        let promised: usize = self.running.iter().map(lacking).sum();
        let Some(sequence) = self.queue.at(place) else { return false };
        let whole = (sequence.pending() - 1) / PAGE;
        let shared = (0..whole).take_while(|n| self.memory.peek(&sequence.key(*n, &self.base)) == Some(true)).count();
        // One more for the answers under way, so that not every newcomer makes somebody give way at once.
        let spare = usize::from(!self.running.is_empty());
        promised + sequence.pages_needed() - shared + spare <= self.memory.pages_obtainable()
    }

    fn compute(&mut self, shares: &[Share]) {
        let segments: Vec<Segment<'_>> =
            shares.iter().map(|share| self.running[share.sequence].segment(share.tokens)).collect();
        let draws = draws(shares, &segments, &self.running);
        self.counters.time.held += self.meter.lap();
        let stepped = self.device.step(&segments, &draws);
        let nanoseconds = self.meter.lap();
        self.pace.learn(segments.iter().map(|segment| segment.tokens.len()).sum(), nanoseconds);
        let drawn_of: Vec<usize> = draws.iter().map(|row| row.draw.segment).collect();
        let tokens = self.apply(shares, &drawn_of, stepped);
        self.charge(shares, &tokens, nanoseconds);
    }

    /// Charges a step to the sequences that had a share in it.
    fn charge(&mut self, shares: &[Share], tokens: &[StepTokens], nanoseconds: u64) {
        self.counters.steps += 1;
        let audit = |share: &Share| self.running[share.sequence].request().purpose == Purpose::Audit;
        let parts: Vec<_> = tokens.iter().copied().zip(shares.iter().map(audit)).collect();
        for ((share, tokens), time) in shares.iter().zip(tokens).zip(divide(nanoseconds, &parts)) {
            let sequence = &self.running[share.sequence];
            self.counters.add_tokens(tokens);
            self.counters.time.add(&time);
            let of = Use { time, prefill_tokens: tokens.prefill, ..Use::default() };
            self.uses.push((sequence.request().adapter.clone(), of));
        }
    }

    /// `drawn_of` names each draw's segment.
    fn apply(&mut self, shares: &[Share], drawn_of: &[usize], stepped: Stepped) -> Vec<StepTokens> {
        let mut tokens = Vec::with_capacity(shares.len());
        let mut drawn = drawn_of.iter().zip(stepped.drawn).peekable();
        for (number, share) in shares.iter().enumerate() {
            let mut own: Vec<Result<Drawn, Failure>> = Vec::new();
            while let Some((_, token)) = drawn.next_if(|(segment, _)| **segment == number) {
                own.push(token);
            }
            let sequence = &mut self.running[share.sequence];
            let (known, drafted) = (sequence.known(share.tokens), sequence.drafted());
            let decoding = sequence.is_decoding();
            let count = own.len();
            let right = match &stepped.failed[number] {
                None => sequence.advance(share.tokens, &stepped.leaves[number], own),
                Some(Failure::NotFinite) if sequence.forgive() => Ok(0),
                Some(failure) => Err(failure.clone()),
            };
            let right = right.unwrap_or_else(|failure| {
                sequence.fail(failure);
                0
            });
            self.counters.answer_tokens += (count.min(right + 1)) as u64;
            let fresh = (share.tokens - known) as u64;
            tokens.push(StepTokens {
                prefill: if decoding { 0 } else { fresh },
                decode: if decoding { fresh } else { 0 },
                accepted: right as u64,
                rejected: (drafted - right) as u64,
                recomputed: known as u64,
            });
            self.publish(share.sequence);
        }
        tokens
    }

    /// Lets others find the pages that became full.
    fn publish(&mut self, number: usize) {
        let sequence = &mut self.running[number];
        while let Some((page, ..)) = sequence.unpublished().filter(|_| self.config.prefix_cache) {
            let key = sequence.key(page, &self.base);
            let Some((page, own, parent, leaves)) = sequence.unpublished() else { return };
            let shared = self.memory.publish(page, own, key, parent, leaves);
            sequence.published(shared);
        }
    }

    fn retire(&mut self) {
        let ended: Vec<_> = self.running.extract_if(.., |sequence| sequence.has_ended()).collect();
        for mut sequence in ended {
            if let Some(of) = sequence.complete() {
                self.uses.push((sequence.request().adapter.clone(), of));
            }
            self.let_go(&mut sequence);
        }
    }
}

/// What is drawn: after the last pending token of a sequence, and after each of its guesses.
fn draws<'a>(shares: &[Share], segments: &[Segment<'_>], running: &'a [Sequence]) -> Vec<RowDraw<'a>> {
    let mut draws = Vec::new();
    for (number, (share, segment)) in shares.iter().zip(segments).enumerate() {
        let rows = match segment.wanted {
            Wanted::None => 0,
            Wanted::Last => 1,
            Wanted::All => segment.tokens.len(),
        };
        let first = segment.start + segment.tokens.len() - rows;
        let sequence = &running[share.sequence];
        draws.extend((0..rows).map(|row| {
            let before = first + row + 1;
            let (sampling, choice) = (*sequence.sampling(), sequence.choice(before));
            let draw = Draw { segment: number, sampling, choice, position: before as u64 };
            RowDraw { draw, row, guide: sequence.guide(), top_logprobs: sequence.request().shaping.top_logprobs }
        }));
    }
    draws
}
