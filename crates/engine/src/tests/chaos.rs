//! Everything at once, from one seed: warm and cold prefixes, pre-emption, guesses right and wrong, adapters evicted and
//! loaded and replaced, chunks, cancellations, classes, tenants, threads, instruction sets. Every answer that comes has
//! the tokens and the trace of a quiet machine.

use super::*;
use crate::request::Priority;
use std::collections::BTreeMap;

const ADAPTERS: usize = 6;

/// A way to run the engine.
fn any_config(dice: &mut Dice) -> Config {
    let each = adapter(0).bytes() as u64;
    let pages = 9 + dice.below(30);
    let isas = Isa::available();
    Config {
        threads: 1 + dice.below(2),
        isa: isas[dice.below(isas.len())],
        memory: pages as u64 * page_bytes() + (1 + dice.below(4)) as u64 * each,
        host_memory: dice.below(4) as u64 * each,
        sequences_max: [2, 5, 64][dice.below(3)],
        step_tokens: [7, 40, 256][dice.below(3)],
        slowdown_max: [1.01, 1.5, f64::INFINITY][dice.below(3)],
        context: 8 * 64,
        prefix_cache: dice.below(4) > 0,
        draft_tokens: [0, 8, 64][dice.below(3)],
        loads_ahead: 1 + dice.below(4),
        ..config(pages)
    }
}

struct Asked {
    request: Request,
    want: Bits,
}

/// Requests that begin alike, some of them predicted, well or badly.
fn requests(dice: &mut Dice) -> Vec<Asked> {
    let handles = Rig::new(config(16)).adapters;
    let handles: Vec<_> =
        (0..ADAPTERS).map(|i| handles.register(&i.to_string(), Path::new("/nowhere")).unwrap()).collect();
    (0..36)
        .map(|number| {
            let common = tokens(dice.below(3) as u64, [40, 130, 200][dice.below(3)]);
            let prompt = [common, tokens(1000 + number, 1 + dice.below(60))].concat();
            let mut request = drawn(prompt, 1 + dice.below(220), number);
            if dice.below(3) == 0 {
                request.sampling = Sampling::GREEDY;
            }
            request.adapter = dice.below(ADAPTERS + 2).checked_sub(2).map(|i| handles[i].clone());
            if dice.below(4) == 0 {
                request.stop_tokens = vec![dice.below(300) as u32];
            }
            let want = quiet(&request);
            if dice.below(2) == 0 {
                request.prediction = want.0.clone();
                for _ in 0..dice.below(5) {
                    let at = dice.below(request.prediction.len());
                    request.prediction[at] = dice.below(300) as u32;
                }
            }
            request.tenant = [dice.below(2) as u8; 32];
            request.priority = [Priority::High, Priority::Normal, Priority::Low][dice.below(3)];
            Asked { request, want }
        })
        .collect()
}

/// One run; gives how many answers came, and what it took.
fn run(asked: &[Asked], dice: &mut Dice) -> (usize, crate::Counters) {
    let mut rig = Rig::new(any_config(dice));
    let mut names: BTreeMap<String, Arc<AdapterHandle>> = BTreeMap::new();
    let mut open: Vec<(usize, Receiver<Event>)> = Vec::new();
    let mut loading: Vec<Arc<AdapterHandle>> = Vec::new();
    let (mut next, mut answered) = (0, 0);
    let mut cancelled = 0;
    for _ in 0..200_000 {
        if next == asked.len() && open.is_empty() {
            assert_eq!(answered + cancelled, asked.len());
            let load = rig.core.load();
            assert_eq!((load.pages_used, load.running, load.waiting), (0, 0, 0));
            return (answered, *rig.core.counters());
        }
        if next < asked.len() && dice.below(3) == 0 {
            let mut request = asked[next].request.clone();
            if let Some(handle) = request.adapter.take() {
                let name = handle.name().to_owned();
                // Now and then the name is registered anew.
                if dice.below(5) == 0
                    && let Some(old) = names.remove(&name)
                {
                    rig.adapters.remove(&name).unwrap();
                    rig.core.forget(&old);
                }
                let handle = names.entry(name).or_insert_with_key(|name| rig.on_disk(name));
                request.adapter = Some(handle.clone());
            }
            open.push((next, rig.submit(request)));
            next += 1;
        }
        if !open.is_empty() && dice.below(150) == 0 {
            open.swap_remove(dice.below(open.len()));
            cancelled += 1;
        }
        rig.step();
        loading.extend(rig.core.take_jobs());
        if !loading.is_empty() && dice.below(4) == 0 {
            let handle = loading.swap_remove(dice.below(loading.len()));
            rig.deliver_one(handle);
        }
        open.retain_mut(|(number, receiver)| match outcome(receiver) {
            None => true,
            Some(completion) => {
                assert!(bits(completion.unwrap()) == asked[*number].want, "answer {number} is not the quiet one");
                answered += 1;
                false
            }
        });
    }
    panic!("it does not come to an end: {:?}", rig.core.load());
}

#[test]
fn whatever_happens_around_it_an_answer_has_the_bits_of_a_quiet_machine() {
    let mut dice = Dice(2026);
    let asked = requests(&mut dice);
    let rounds = std::env::var("LOCKSTEP_CHAOS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(16);
    let mut total = crate::Counters::default();
    let mut answered = 0;
    for _ in 0..rounds {
        let (answers, counters) = run(&asked, &mut dice);
        answered += answers;
        total.preemptions += counters.preemptions;
        total.cached_tokens += counters.cached_tokens;
        total.drafts_accepted += counters.drafts_accepted;
        total.drafts_rejected += counters.drafts_rejected;
        total.adapters_loaded += counters.adapters_loaded;
        total.recomputed_tokens += counters.recomputed_tokens;
    }
    println!("{answered} answers; {total:?}");
    // Whether everything that should happen did.
    let happened = [total.preemptions, total.cached_tokens, total.drafts_accepted, total.drafts_rejected];
    assert!(happened.iter().all(|count| *count > 50), "{total:?}");
    assert!(total.adapters_loaded > ADAPTERS as u64 * rounds && total.recomputed_tokens > 0, "{total:?}");
    assert!(answered > 25 * rounds as usize);
}
