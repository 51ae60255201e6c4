//! Prompts that begin the same are computed once, and nothing tells whose they were.

use super::*;

#[test]
fn a_prompt_seen_before_is_not_computed_again_and_gives_the_same_bits() {
    let mut rig = Rig::new(config(32));
    let request = drawn(tokens(1, 300), 40, 3);
    let mut got = Vec::new();
    for _ in 0..3 {
        let mut receiver = rig.submit(request.clone());
        rig.finish();
        got.push(done(&mut receiver));
    }
    assert_eq!([0, 1, 2].map(|i: usize| got[i].effort.cached_tokens), [0, 256, 256]);
    assert_eq!(rig.core.counters().prefill_tokens, 300 + 44 + 44);
    let want = quiet(&request);
    got.into_iter().for_each(|completion| assert_eq!(bits(completion), want));
}

#[test]
fn prompts_that_come_together_are_computed_once() {
    let mut rig = Rig::new(config(64));
    let shared = tokens(2, 256);
    let requests: Vec<Request> = (0..8).map(|i| drawn([&shared[..], &tokens(50 + i, 30)].concat(), 10, i)).collect();
    let mut receivers: Vec<_> = requests.iter().map(|request| rig.submit(request.clone())).collect();
    rig.finish();
    assert_eq!(rig.core.counters().prefill_tokens, 256 + 8 * 30);
    for (request, receiver) in requests.iter().zip(&mut receivers) {
        assert_eq!(bits(done(receiver)), quiet(request));
    }
}

#[test]
fn a_conversation_finds_its_own_answer_computed() {
    let mut rig = Rig::new(config(32));
    let first = drawn(tokens(3, 100), 100, 1);
    let mut receiver = rig.submit(first.clone());
    rig.finish();
    let answer = done(&mut receiver).tokens;
    let next = drawn([first.prompt, answer, tokens(4, 20)].concat(), 5, 2);
    let mut receiver = rig.submit(next.clone());
    rig.finish();
    let got = done(&mut receiver);
    assert_eq!(got.effort.cached_tokens, 192);
    assert_eq!(bits(got), quiet(&next));
}

#[test]
fn tenants_share_no_pages() {
    let mut rig = Rig::new(config(32));
    let request = drawn(tokens(1, 300), 4, 3);
    let mut cached = |tenant: u8| {
        let mut receiver = rig.submit(Request { tenant: [tenant; 32], ..request.clone() });
        rig.finish();
        done(&mut receiver).effort.cached_tokens
    };
    assert_eq!([cached(1), cached(2), cached(1), cached(2)], [0, 0, 256, 256]);
}

#[test]
fn an_adapter_reloaded_under_its_name_never_meets_the_old_ones_pages() {
    let mut rig = Rig::new(config(32));
    let prompt = tokens(1, 300);
    let mut run = |seed: u64, replace: bool| {
        if replace {
            let old = rig.adapters.remove("same").unwrap();
            rig.core.forget(&old);
        }
        let handle = rig.adapters.insert("same", adapter(seed)).unwrap();
        let mut receiver = rig.submit(Request { adapter: Some(handle), ..drawn(prompt.clone(), 20, 1) });
        rig.finish();
        done(&mut receiver)
    };
    let (old, new, again) = (run(7, false), run(8, true), run(7, true));
    assert_eq!([&old, &new, &again].map(|completion| completion.effort.cached_tokens), [0, 0, 256]);
    assert_ne!(old.leaves, new.leaves);
    assert_ne!(old.adapter, new.adapter);
    assert_eq!(bits(old), bits(again));
    let named = |seed: u64| {
        let rig = Rig::new(config(16));
        let handle = rig.adapters.insert(&seed.to_string(), adapter(seed)).unwrap();
        quiet(&Request { adapter: Some(handle), ..drawn(prompt.clone(), 20, 1) })
    };
    assert_eq!(bits(new), named(8));
}

#[test]
fn what_is_kept_makes_way_for_what_is_needed() {
    let mut rig = Rig::new(config(8));
    for seed in 0..20 {
        let request = drawn(tokens(seed, 200), 40, seed);
        let mut receiver = rig.submit(request.clone());
        rig.finish();
        assert_eq!(bits(done(&mut receiver)), quiet(&request));
        assert_eq!(rig.core.load().pages_used, 0);
    }
    assert_eq!(rig.core.counters().preemptions, 0);
    assert!(rig.core.load().pages_cached > 4);
}
