//! Guessing ahead changes how many steps an answer takes, and nothing else.

use super::*;

fn run(config: Config, request: &Request) -> (Completion, u64) {
    let mut rig = Rig::new(config);
    let mut receiver = rig.submit(request.clone());
    rig.finish();
    (done(&mut receiver), rig.core.counters().steps)
}

#[test]
fn a_right_prediction_takes_few_steps_and_gives_the_same_bits() {
    let request = drawn(tokens(1, 90), 400, 1);
    let want = quiet(&request);
    let (completion, steps) = run(config(16), &Request { prediction: want.0.clone(), ..request });
    assert!(steps < 40, "{steps} steps");
    assert!(completion.effort.drafts_accepted > 350);
    assert_eq!(bits(completion), want);
}

#[test]
fn a_prediction_with_edits_takes_fewer_steps_and_gives_the_same_bits() {
    let request = drawn(tokens(1, 90), 400, 1);
    let want = quiet(&request);
    let mut prediction = want.0.clone();
    prediction[50] ^= 1;
    prediction.drain(150..156);
    prediction.splice(250..250, [1, 2, 3, 4, 5]);
    let (completion, steps) = run(config(16), &Request { prediction, ..request });
    assert!(steps < 100, "{steps} steps");
    assert!(completion.effort.drafts_rejected > 0);
    assert_eq!(bits(completion), want);
}

#[test]
fn a_wrong_prediction_is_let_alone_and_gives_the_same_bits() {
    let request = drawn(tokens(1, 90), 300, 1);
    let want = quiet(&request);
    let (completion, steps) = run(config(16), &Request { prediction: tokens(99, 500), ..request });
    assert!(steps <= 301, "{steps} steps");
    let effort = completion.effort;
    assert!(effort.drafts_rejected > 0 && effort.drafts_rejected < 100, "{effort:?}");
    assert_eq!(bits(completion), want);
}

#[test]
fn an_answer_that_stops_among_guesses_stops_there() {
    let plain = drawn(tokens(1, 90), 300, 1);
    let (answer, _) = quiet(&plain);
    let stop = answer[100];
    let request = Request { stop_tokens: vec![stop], ..plain };
    let want = quiet(&request);
    let (completion, _) = run(config(16), &Request { prediction: answer, ..request });
    assert!(completion.effort.drafts_accepted > 0);
    assert_eq!(bits(completion), want);
}

#[test]
fn guesses_are_counted_and_those_that_were_wrong_leave_no_trace_in_shared_pages() {
    let first = drawn(tokens(1, 60), 200, 1);
    let (answer, leaves) = quiet(&first);
    let mut rig = Rig::new(config(32));
    let mut wrong = answer.clone();
    (10..200).step_by(9).for_each(|i| wrong[i] ^= 5);
    let mut receiver = rig.submit(Request { prediction: wrong, ..first.clone() });
    rig.finish();
    assert_eq!(bits(done(&mut receiver)), (answer.clone(), leaves));
    // Whoever goes on from there finds pages that wrong guesses were written to and then written over.
    let next = drawn([first.prompt, answer].concat(), 50, 9);
    let mut receiver = rig.submit(next.clone());
    rig.finish();
    let completion = done(&mut receiver);
    assert_eq!(completion.effort.cached_tokens, 256);
    assert_eq!(bits(completion), quiet(&next));
    let counters = *rig.core.counters();
    assert_eq!(counters.answer_tokens, 250);
    assert!(counters.drafts_accepted > 0 && counters.drafts_rejected > 0);
}
