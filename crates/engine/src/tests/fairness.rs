//! Nobody's flood drowns another, and nobody starves.

use super::*;
use crate::core::FULL_PATIENCE;
use crate::request::Priority;
use std::time::Duration;

/// Order in which requests are answered, one at a time.
fn order(rig: &mut Rig, receivers: &mut [Receiver<Event>]) -> Vec<usize> {
    let mut order = Vec::new();
    for _ in 0..100_000 {
        rig.step();
        rig.deliver();
        for (number, receiver) in receivers.iter_mut().enumerate() {
            if outcome(receiver).is_some() {
                order.push(number);
            }
        }
        if rig.core.is_idle() {
            return order;
        }
    }
    panic!("it does not come to an end");
}

fn request(tenant: u8, adapter: Option<&Arc<AdapterHandle>>) -> Request {
    Request { tenant: [tenant; 32], adapter: adapter.cloned(), ..drawn(tokens(1, 10), 2, 1) }
}

fn one_at_a_time() -> Rig {
    Rig::new(Config { sequences_max: 1, ..config(16) })
}

/// Has learnt what a step and a token take, from prompts of many lengths.
fn taught(config: Config) -> Rig {
    let mut rig = Rig::new(config);
    for length in 1..40 {
        let mut receiver = rig.submit(drawn(tokens(length, length as usize), 1, length));
        rig.finish();
        done(&mut receiver);
    }
    rig
}

#[test]
fn a_tenants_flood_queues_behind_itself() {
    let mut rig = one_at_a_time();
    let mut receivers: Vec<_> = (0..30).map(|_| rig.submit(request(1, None))).collect();
    receivers.extend((0..3).map(|_| rig.submit(request(2, None))));
    let order = order(&mut rig, &mut receivers);
    let last_of_second = order.iter().position(|number| *number == 32).unwrap();
    assert!(last_of_second < 8, "{order:?}");
}

#[test]
fn an_adapters_flood_queues_behind_itself_and_many_adapters_are_one_tenant() {
    let mut rig = one_at_a_time();
    let handles: Vec<_> = (0..30).map(|i| rig.adapters.insert(&i.to_string(), adapter(i)).unwrap()).collect();
    let mut receivers: Vec<_> = (0..20).map(|_| rig.submit(request(1, Some(&handles[0])))).collect();
    receivers.extend(handles[1..].iter().map(|handle| rig.submit(request(1, Some(handle)))));
    receivers.push(rig.submit(request(2, None)));
    let order = order(&mut rig, &mut receivers);
    let place = |number: usize| order.iter().position(|n| *n == number).unwrap();
    assert!(place(49) < 5, "another tenant's one request waits for none of this one's thirty adapters: {order:?}");
    assert!(place(20) < 5, "another adapter's one request waits for none of the flood: {order:?}");
}

#[test]
fn classes_go_in_order_and_the_lowest_does_not_starve() {
    let mut rig = one_at_a_time();
    let low = Request { priority: Priority::Low, ..request(1, None) };
    let mut low = rig.submit(low);
    let mut served = 0;
    loop {
        // There is always somebody of a higher class.
        let high = Request { priority: Priority::High, ..request(2, None) };
        let mut high = [rig.submit(high.clone()), rig.submit(high)];
        while outcome(&mut high[0]).is_none() {
            rig.step();
        }
        while outcome(&mut high[1]).is_none() {
            rig.step();
            if outcome(&mut low).is_some() {
                assert!(served > 100, "it went first");
                return;
            }
        }
        served += 2;
        assert!(served < 10_000, "it starves");
    }
}

#[test]
fn who_waits_for_an_adapter_holds_nobody_up() {
    let mut rig = one_at_a_time();
    let cold = rig.on_disk("5");
    let mut waits = rig.submit(request(1, Some(&cold)));
    let mut others: Vec<_> = (0..5).map(|_| rig.submit(request(1, None))).collect();
    for _ in 0..50 {
        rig.step();
    }
    others.iter_mut().for_each(|receiver| drop(done(receiver)));
    assert_eq!(rig.deliver(), 1);
    rig.finish();
    done(&mut waits);
}

#[test]
fn a_burst_makes_the_steps_of_streams_under_way_no_longer_than_it_may() {
    let mut rig = taught(Config { slowdown_max: 1.5, draft_tokens: 0, ..config(400) });
    let stream = |seed| drawn(tokens(seed, 5), 900, seed);
    let mut streams: Vec<_> = (0..8).map(|seed| rig.submit(stream(seed))).collect();
    (0..50).for_each(|_| assert!(rig.step()));
    let alone = STEP_NANOSECONDS + 8 * TOKEN_NANOSECONDS;
    let burst: Vec<_> = (100..150).map(|seed| drawn(tokens(seed, 16), 8, seed)).collect();
    let mut receivers: Vec<_> = burst.iter().map(|request| rig.submit(request.clone())).collect();
    let (mut answered, mut most, mut longest, mut steps) = (0, 0, 0, 0);
    while answered < burst.len() {
        let (before, began) = (*rig.core.counters(), rig.clock.load(SeqCst));
        rig.step();
        let after = rig.core.counters();
        let drawn = after.answer_tokens - before.answer_tokens;
        assert!(drawn >= 8, "every stream goes on in every step");
        most = most.max(drawn + after.prefill_tokens - before.prefill_tokens);
        longest = longest.max(rig.clock.load(SeqCst) - began);
        answered += receivers.iter_mut().filter_map(outcome).count();
        steps += 1;
        assert!(steps < 500, "the burst starves");
    }
    // 17 tokens are one and a half times as long as 8; a prompt that ends in the step draws one that is not computed in it.
    assert_eq!(longest, alone * 3 / 2);
    assert!((14..=18).contains(&most), "{most} tokens in a step");
    assert!(streams.iter_mut().all(|receiver| outcome(receiver).is_none()));
    // Without limit the burst has what it likes.
    let mut rig = Rig::new(Config { draft_tokens: 0, ..config(400) });
    let _streams: Vec<_> = (0..8).map(|seed| rig.submit(stream(seed))).collect();
    (0..50).for_each(|_| assert!(rig.step()));
    let _receivers: Vec<_> = burst.iter().map(|request| rig.submit(request.clone())).collect();
    let before = rig.core.counters().prefill_tokens;
    rig.step();
    assert!(rig.core.counters().prefill_tokens - before > 200);
}

#[test]
fn newcomers_wait_for_a_full_machine_but_not_for_long() {
    let config = Config { slowdown_max: 1000.0, draft_tokens: 0, sequences_max: 128, ..config(400) };
    let mut rig = taught(config);
    let before = Instant::now();
    let mut receivers: Vec<_> = (0..120).map(|seed| rig.submit(drawn(tokens(seed, 5), 100, seed))).collect();
    (0..30).for_each(|_| assert!(rig.core.step(before)));
    // Of a step of 90 tokens nine tenths are theirs.
    let running = rig.core.load().running;
    assert!((89..=91).contains(&running), "{running}");
    rig.core.step(Instant::now() + FULL_PATIENCE);
    assert_eq!((rig.core.load().running, rig.core.load().waiting), (120, 0), "all have waited long enough");
    rig.finish();
    receivers.iter_mut().for_each(|receiver| drop(done(receiver)));
}

#[test]
fn waiting_for_a_full_machine_turns_no_order_round() {
    let config = Config { slowdown_max: 1000.0, draft_tokens: 0, sequences_max: 121, ..config(400) };
    let mut rig = taught(config);
    // Of 121 places all but one are taken.
    let _streams: Vec<_> = (0..120).map(|seed| rig.submit(drawn(tokens(seed, 5), 400, seed))).collect();
    rig.core.step(Instant::now() + FULL_PATIENCE);
    assert_eq!(rig.core.load().running, 120);
    let of = |priority, seed| Request { priority, ..drawn(tokens(seed, 5), 1, seed) };
    let before = Instant::now();
    let mut low = rig.submit(of(Priority::Low, 500));
    let between = Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    let mut high = rig.submit(of(Priority::High, 501));
    rig.core.step(before);
    assert_eq!(rig.core.load().waiting, 2, "the machine is full");
    // The low one has waited long enough, the high one not quite.
    rig.core.step(between + FULL_PATIENCE);
    assert!(outcome(&mut high).is_some(), "whoever is first in turn comes in");
    assert!(outcome(&mut low).is_none());
}
