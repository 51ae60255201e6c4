//! When there is not enough for all: who gives way, and that it costs time only.

use super::*;
use crate::request::Priority;
use std::time::Duration;

#[test]
fn pages_are_taken_as_they_are_needed() {
    let mut rig = Rig::new(config(8));
    // Each may need all pages, and uses two.
    let mut receivers: Vec<_> = (0..3)
        .map(|i| {
            let stop_tokens = (0..300).collect();
            rig.submit(Request { stop_tokens, ..drawn(tokens(i, 100), 400, i) })
        })
        .collect();
    rig.step();
    assert_eq!(receivers.iter_mut().filter_map(outcome).count(), 2, "256 tokens of prompt a step");
    rig.finish();
}

#[test]
fn the_youngest_gives_way_and_goes_on_later_with_the_same_bits() {
    for prefix_cache in [false, true] {
        let mut rig = Rig::new(Config { prefix_cache, draft_tokens: 0, ..config(10) });
        let requests: Vec<Request> = (0..4).map(|i| drawn(tokens(i, 70), 400, i)).collect();
        let mut receivers: Vec<_> = requests.iter().map(|request| rig.submit(request.clone())).collect();
        rig.finish();
        assert!(rig.core.counters().preemptions > 0 && rig.core.counters().recomputed_tokens > 0);
        let efforts: Vec<usize> = requests
            .iter()
            .zip(&mut receivers)
            .map(|(request, receiver)| {
                let completion = done(receiver);
                let preemptions = completion.effort.preemptions;
                assert_eq!(bits(completion), quiet(request));
                preemptions
            })
            .collect();
        assert_eq!(efforts[0], 0, "the oldest never gives way");
        assert_eq!(rig.core.load().pages_used, 0);
    }
}

#[test]
fn the_lower_class_gives_way_to_the_higher() {
    let mut rig = Rig::new(Config { draft_tokens: 0, ..config(8) });
    let low = Request { priority: Priority::Low, ..drawn(tokens(1, 70), 400, 1) };
    let high = Request { priority: Priority::High, ..drawn(tokens(2, 70), 400, 2) };
    let mut low_receiver = rig.submit(low.clone());
    rig.step();
    let mut high_receiver = rig.submit(high.clone());
    rig.finish();
    let (low_done, high_done) = (done(&mut low_receiver), done(&mut high_receiver));
    assert_eq!((low_done.effort.preemptions, high_done.effort.preemptions), (1, 0));
    assert_eq!((bits(low_done), bits(high_done)), (quiet(&low), quiet(&high)));
}

#[test]
fn a_request_whose_time_is_over_ends_whether_it_waits_or_runs() {
    let mut rig = Rig::new(Config { sequences_max: 1, ..config(16) });
    let late = Request { deadline: Some(Instant::now() + Duration::from_secs(5)), ..drawn(tokens(1, 70), 500, 1) };
    let mut receivers = [rig.submit(late.clone()), rig.submit(late.clone())];
    let mut patient = rig.submit(drawn(tokens(1, 70), 3, 1));
    rig.step();
    rig.core.step(Instant::now() + Duration::from_secs(6));
    for receiver in &mut receivers {
        assert_eq!(outcome(receiver).unwrap().unwrap_err(), Failure::Deadline);
    }
    rig.finish();
    done(&mut patient);
    assert_eq!(rig.core.load().pages_used, 0);
}

#[test]
fn cancelled_requests_leave_nothing_behind() {
    let mut rig = Rig::new(config(16));
    let handle = rig.on_disk("5");
    for _ in 0..3 {
        let adapter = Some(handle.clone());
        let receivers: Vec<_> =
            (0..6).map(|i| rig.submit(Request { adapter: adapter.clone(), ..drawn(tokens(i, 90), 300, i) })).collect();
        rig.step();
        rig.deliver();
        rig.step();
        drop(receivers);
        rig.step();
        assert!(rig.core.is_idle());
        assert_eq!(rig.core.load().pages_used, 0);
    }
}
