//! Requests that wait, in the order they are to be admitted.
//!
//! Within a class of priority, tenants share alike, and within a tenant its adapters (self-clocked fair queueing): each
//! request gets a tag, that of the request admitted last or of its own flow's last one, whichever is later, plus what it
//! asks for times the number of adapters its tenant waits for. A flood of one tenant, or of one adapter, thus queues behind
//! itself. Whoever has waited long moves up a class, and above all classes it is first come, first served: nobody starves.

use crate::request::Priority;
use crate::sequence::Sequence;
use cpu::Hash;
use std::collections::{BTreeMap, HashMap};

/// Steps after which a waiting request moves up a class.
pub(crate) const AGE_STEPS: u64 = 1000;
/// What a request is taken to ask for at most, in tokens of answer: few use up what they allow.
const ANSWER_TOKENS: u64 = 256;

/// A place in the queue: class, tag, order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) class: u8,
    tag: u64,
    arrival: u64,
}

impl Place {
    /// Whether nobody may overtake it any more.
    pub(crate) fn is_aged(&self) -> bool {
        self.class == 0
    }
}

/// One tenant's requests for one adapter.
type Flow = (Hash, Option<u64>);

/// The waiting requests.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Place, Sequence>,
    /// Last tag and number of waiting requests of each flow.
    flows: HashMap<Flow, (u64, u32)>,
    /// Flows that wait, by tenant.
    tenants: HashMap<Hash, u64>,
    /// Tag of what was admitted last.
    clock: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A request begins to wait.
    pub(crate) fn push(&mut self, sequence: Sequence) {
        let flow = flow(&sequence);
        let (last, waiting) = self.flows.get(&flow).copied().unwrap_or_default();
        let tenant = self.tenants.entry(flow.0).or_default();
        *tenant += u64::from(waiting == 0);
        let request = sequence.request();
        let asked = request.prompt.len() as u64 + (request.tokens_max as u64).min(ANSWER_TOKENS);
        let tag = last.max(self.clock) + asked * *tenant;
        self.flows.insert(flow, (tag, waiting + 1));
        let class = match request.priority {
            Priority::High => 1,
            Priority::Normal => 2,
            Priority::Low => 3,
        };
        self.waiting.insert(Place { class, tag, arrival: sequence.arrival() }, sequence);
    }

    /// A sequence that was computed already waits to go on, ahead of its class.
    pub(crate) fn push_front(&mut self, sequence: Sequence) {
        let flow = flow(&sequence);
        let (last, waiting) = self.flows.get(&flow).copied().unwrap_or_default();
        *self.tenants.entry(flow.0).or_default() += u64::from(waiting == 0);
        self.flows.insert(flow, (last, waiting + 1));
        let class = sequence.class();
        self.waiting.insert(Place { class, tag: 0, arrival: sequence.arrival() }, sequence);
    }

    /// All places in order.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.waiting.keys().copied().collect()
    }

    /// All who wait, in order.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.values()
    }

    /// Who waits at a place.
    pub(crate) fn at(&mut self, place: &Place) -> Option<&mut Sequence> {
        self.waiting.get_mut(place)
    }

    /// Takes a request out to be computed.
    pub(crate) fn admit(&mut self, place: &Place) -> Option<Sequence> {
        self.clock = self.clock.max(place.tag);
        let sequence = self.remove(place)?;
        Some(sequence)
    }

    fn remove(&mut self, place: &Place) -> Option<Sequence> {
        let sequence = self.waiting.remove(place)?;
        let flow = flow(&sequence);
        if let Some((last, waiting)) = self.flows.get_mut(&flow) {
            *waiting -= 1;
            if *waiting == 0
                && let Some(tenant) = self.tenants.get_mut(&flow.0)
            {
                *tenant -= 1;
                if *tenant == 0 {
                    self.tenants.remove(&flow.0);
                }
            }
            // A flow that is not ahead of the clock need not be remembered.
            if *waiting == 0 && *last <= self.clock {
                self.flows.remove(&flow);
            }
        }
        Some(sequence)
    }

    /// Takes out those who match.
    pub(crate) fn take_if(&mut self, matches: impl Fn(&Sequence) -> bool) -> Vec<Sequence> {
        let places: Vec<Place> =
            self.waiting.iter().filter(|(_, sequence)| matches(sequence)).map(|(place, _)| *place).collect();
        places.iter().filter_map(|place| self.remove(place)).collect()
    }

    /// Moves those up a class who have waited long. `step` counts steps, as [`Sequence::waits_since`] does.
    pub(crate) fn age(&mut self, step: u64) {
        let old = |(place, sequence): (&Place, &Sequence)| {
            (place.class > 0 && sequence.waits_since() + AGE_STEPS <= step).then_some(*place)
        };
        let places: Vec<Place> = self.waiting.iter().filter_map(old).collect();
        for place in places {
            if let Some(mut sequence) = self.waiting.remove(&place) {
                let class = place.class - 1;
                sequence.wait_from(step, class);
                let tag = if class == 0 { 0 } else { place.tag };
                self.waiting.insert(Place { class, tag, ..place }, sequence);
            }
        }
        // Flows that nobody waits in are kept only while they are ahead.
        let clock = self.clock;
        self.flows.retain(|_, (last, waiting)| *waiting > 0 || *last > clock);
    }
}

fn flow(sequence: &Sequence) -> Flow {
    let request = sequence.request();
    (request.tenant, request.adapter.as_ref().map(|adapter| adapter.id()))
}
