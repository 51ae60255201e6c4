//! Where time goes adds up, by purpose and by adapter.

use super::{Rig, adapter, config, done, tokens};
use crate::request::{Purpose, Request};
use crate::time::Time;
use std::sync::atomic::Ordering::SeqCst;

#[test]
fn every_adapter_is_charged_its_part_and_audits_apart() {
    let mut rig = Rig::new(config(64));
    let one = rig.adapters.insert("one", adapter(1)).unwrap();
    let asked = [(None, Purpose::Serve), (Some(one.clone()), Purpose::Serve), (Some(one), Purpose::Audit)];
    let mut receivers: Vec<_> = (0..)
        .zip(asked)
        .map(|(number, (adapter, purpose))| {
            rig.submit(Request { adapter, purpose, ..Request::new(tokens(number + 1, 100), 20) })
        })
        .collect();
    rig.finish();
    receivers.iter_mut().for_each(|receiver| assert_eq!(done(receiver).tokens.len(), 20));
    let (mut sum, mut base, mut own) = (Time::default(), Time::default(), Time::default());
    let mut answers = 0;
    for (adapter, of) in rig.core.take_uses() {
        sum.add(&of.time);
        answers += of.answers;
        (if adapter.is_none() { &mut base } else { &mut own }).add(&of.time);
    }
    let total = rig.core.counters().time;
    assert_eq!(answers, 3);
    assert_eq!((sum.busy(), sum.total()), (total.busy(), total.busy()), "only computing is charged to adapters");
    assert!(base.prefill > 0 && base.decode > 0 && base.audit == 0);
    assert!(own.prefill > 0 && own.decode > 0 && own.audit > 0);
    assert_eq!(rig.core.counters().answer_tokens, 60);
}

#[test]
fn time_is_charged_once() {
    let mut rig = Rig::new(config(64));
    let mut receiver = rig.submit(Request::new(tokens(1, 200), 10));
    rig.finish();
    done(&mut receiver);
    rig.core.pause();
    let total = rig.core.counters().time;
    assert_eq!(total.total(), rig.clock.load(SeqCst));
    assert_eq!(total.busy(), total.total(), "nothing else takes time here");
    rig.clock.fetch_add(5_000_000, SeqCst);
    rig.core.pause();
    let after = rig.core.counters().time;
    assert_eq!((after.idle - total.idle, after.total() - total.total()), (5_000_000, 5_000_000));
}
