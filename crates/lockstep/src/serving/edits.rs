//! A long file comes back with ten lines changed, and the client predicted the file as it was.

use super::{Dice, Served, ServingArgs, Timed, ask};
use crate::failure::Failure;
use engine::Request;
use exact::sample::Sampling;

/// Tokens of a line.
const LINE: usize = 10;
const EDITS: usize = 10;

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let answer = args.lines * LINE;
    let served = Served::load(args, answer + 64)?;
    let pages = 2 * (answer + 64).div_ceil(cpu::PAGE);
    // What the model answers is the file after the edit, so the prediction is made from it, backwards.
    let sampling = Sampling { temperature: 1.0, seed: 5, ..Sampling::GREEDY };
    let request = Request { sampling, ..Request::new(Dice(1 << 32).tokens(32), answer) };
    let run = |request: &Request, drafts: bool| {
        let engine = served.engine(args, pages, |config| {
            if !drafts {
                config.draft_tokens = 0;
            }
        })?;
        ask(&engine, request.clone())
    };
    println!("{} lines of {LINE} tokens, {EDITS} of them changed", args.lines);
    let plain = run(&request, false)?;
    show("plain", &plain, &plain);
    let blind = run(&request, true)?;
    show("guessing without a prediction", &blind, &plain);
    let prediction = edit(&plain.completion.tokens, args.lines);
    let predicted = run(&Request { prediction, ..request.clone() }, true)?;
    show("with the prediction", &predicted, &plain);
    let wrong = run(&Request { prediction: Dice(9 << 32).tokens(answer), ..request }, true)?;
    show("with a wrong prediction", &wrong, &plain);
    let all = [&blind, &predicted, &wrong];
    if all.iter().all(|timed| same(timed, &plain)) { Ok(()) } else { Err(Failure("an answer changed".to_owned())) }
}

/// The file before the edit: lines replaced, taken out and put in.
fn edit(answer: &[u32], lines: usize) -> Vec<u32> {
    let mut dice = Dice(3 << 32);
    let mut file: Vec<Vec<u32>> = answer.chunks(LINE).map(<[u32]>::to_vec).collect();
    for number in 0..EDITS.min(lines) {
        let line = (number * lines / EDITS + lines / (2 * EDITS)).min(file.len() - 1);
        match number % 3 {
            0 => file[line] = dice.tokens(LINE),
            1 => drop(file.remove(line)),
            _ => file.insert(line, dice.tokens(LINE)),
        }
    }
    file.concat()
}

fn same(timed: &Timed, plain: &Timed) -> bool {
    let (a, b) = (&timed.completion, &plain.completion);
    a.tokens == b.tokens && a.leaves == b.leaves
}

fn show(what: &str, timed: &Timed, plain: &Timed) {
    let effort = timed.completion.effort;
    println!(
        "{what:30} {:9.1} tokens/s  {:5.2}×  guesses right {:6}, wrong {:6}  {}",
        timed.completion.tokens.len() as f64 / timed.total.as_secs_f64(),
        plain.total.as_secs_f64() / timed.total.as_secs_f64(),
        effort.drafts_accepted,
        effort.drafts_rejected,
        if same(timed, plain) { "same bits" } else { "DIFFERENT BITS" }
    );
}
