//! Every dialect, whole and cut anywhere.

use crate::calls::{Calls, Said};
use crate::dialect::Dialect;

/// What an answer says, with adjacent pieces joined.
fn said(dialect: Dialect, pieces: &[&str], parallel: bool) -> Vec<Said> {
    let mut calls = Calls::new(dialect, vec!["f".into(), "g".into()], parallel);
    let mut all: Vec<Said> = pieces.iter().flat_map(|piece| calls.push(piece)).collect();
    all.extend(calls.finish());
    let mut joined: Vec<Said> = vec![];
    for said in all {
        match (joined.last_mut(), said) {
            (Some(Said::Text(text)), Said::Text(more)) => text.push_str(&more),
            (Some(Said::Arguments(_, text)), Said::Arguments(_, more)) => text.push_str(&more),
            (_, said) => joined.push(said),
        }
    }
    joined
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

fn call(number: usize, name: &str, arguments: &str) -> [Said; 2] {
    [Said::Call(number, name.into()), Said::Arguments(number, arguments.into())]
}

/// However the text is cut, the same is said.
fn check(dialect: Dialect, answer: &str, want: &[Said]) {
    assert_eq!(said(dialect, &[answer], true), want, "{answer}");
    for cut in (1..answer.len()).filter(|cut| answer.is_char_boundary(*cut)) {
        assert_eq!(said(dialect, &[&answer[..cut], &answer[cut..]], true), want, "{answer} cut at {cut}");
    }
    let letters: Vec<String> = answer.chars().map(String::from).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    assert_eq!(said(dialect, &letters, true), want, "{answer} letter by letter");
}

#[test]
fn hermes_calls_are_found_between_text() {
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\"], \"ü\": {\"b\\\"\": \"</tool_call>\"}}}\n</tool_call>";
    let arguments = "{\"a\": [1, \"}\"], \"ü\": {\"b\\\"\": \"</tool_call>\"}}";
    check(Dialect::Hermes, one, &call(0, "f", arguments));
    let two = format!("I look. <b>\n{one}\n<tool_call>{{\"arguments\":{{}},\"name\":\"g\"}}</tool_call>\n");
    let want = [&[text("I look. <b>\n")][..], &call(0, "f", arguments), &call(1, "g", "{}")].concat();
    check(Dialect::Hermes, &two, &want);
    check(Dialect::Hermes, "no <tool call at all <tool_", &[text("no <tool call at all <tool_")]);
    let only_first = said(Dialect::Hermes, &[&two], false);
    assert_eq!(only_first, [&[text("I look. <b>\n")][..], &call(0, "f", arguments)].concat());
}

#[test]
fn llama_mistral_and_plain_calls_are_found() {
    check(Dialect::Llama, "{\"name\": \"f\", \"parameters\": {\"x\": 1.5}}", &call(0, "f", "{\"x\": 1.5}"));
    check(Dialect::Llama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", &call(0, "f", "{}"));
    check(Dialect::Llama, "It is {\"x\": 1}.", &[text("It is {\"x\": 1}.")]);
    check(Dialect::Llama, "{\"x\": 1} is JSON", &[text("{\"x\": 1} is JSON")]);
    let two = [call(0, "f", "{}"), call(1, "g", "{\"y\": null}")].concat();
    let list = "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"y\": null}}]";
    check(Dialect::Mistral, &format!("[TOOL_CALLS]{list}"), &two);
    check(Dialect::Mistral, &format!("[TOOL_CALLS] {list}"), &two);
    check(Dialect::Plain, &format!("{{\"tool_calls\": {list}}}"), &two);
    check(Dialect::Plain, "It costs 5 {euros}.", &[text("It costs 5 {euros}.")]);
}

#[test]
fn calls_of_what_is_not_there_and_broken_ones_are_text_or_end_early() {
    // A vertical tab is white space elsewhere, not in JSON.
    for dialect in [Dialect::Hermes, Dialect::Mistral, Dialect::Llama, Dialect::Plain] {
        check(dialect, "\u{b}{{", &[text("\u{b}{{")]);
    }
    check(Dialect::Llama, "<|python_tag|>[\u{b}{{", &[text("\u{b}{{")]);
    check(Dialect::Llama, "{\"name\": \"rm\", \"parameters\": {}}", &[text("{\"name\": \"rm\", \"parameters\": {}}")]);
    // An answer cut short in the middle of a call tells what there was of it.
    check(Dialect::Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ", &call(0, "f", "{\"a\": "));
    check(Dialect::Hermes, "<tool_call>{\"nam", &[text("{\"nam")]);
}

#[test]
fn templates_tell_their_dialect() {
    let of = Dialect::of;
    assert_eq!(of("{% if tools %}<tool_call>{% endif %}"), Dialect::Hermes);
    assert_eq!(of("{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}"), Dialect::Mistral);
    assert_eq!(of("{% if tools %}Environment: ipython{% endif %}"), Dialect::Llama);
    assert_eq!(of("{{ messages }}"), Dialect::Plain);
}
