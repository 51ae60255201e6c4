//! Calls of tools in an answer's text, found as it comes. What a stream tells piece by piece and what a whole answer
//! says come from the same reader.

use crate::dialect::{CALLS_MAX, Dialect};
use crate::object::{Part, Reader};

/// White space of JSON. What may stand before an object is the same wherever that is asked, or reading would go in circles.
const BLANK: [char; 4] = [' ', '\n', '\r', '\t'];

/// A piece of an answer that may call tools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Text(String),
    /// A call begins: its number in the answer, and the function.
    Call(usize, String),
    /// More of a call's arguments, as JSON.
    Arguments(usize, String),
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    dialect: Dialect,
    names: Vec<String>,
    calls_max: usize,
    /// Calls begun.
    count: usize,
    /// Whether the answer has said text.
    spoke: bool,
    place: Place,
    /// What may be the beginning of a mark or of a call.
    held: String,
}

#[derive(Clone, Debug)]
enum Place {
    /// Where text may be.
    Outside,
    /// Between the opening of a list of calls and its end.
    Between,
    /// In the object of a call.
    Object(Box<Reader>),
}

impl Calls {
    /// A reader for calls of these functions.
    pub(crate) fn new(dialect: Dialect, names: Vec<String>, parallel: bool) -> Calls {
        let calls_max = if parallel { CALLS_MAX } else { 1 };
        Calls { dialect, names, calls_max, count: 0, spoke: false, place: Place::Outside, held: String::new() }
    }

    /// Whether a call was made.
    pub(crate) fn any(&self) -> bool {
        self.count > 0
    }

    /// Takes in more text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Said> {
        let mut said = vec![];
        self.held.push_str(text);
        while self.advance(&mut said) {}
        self.spoke |= said.iter().any(|said| matches!(said, Said::Text(_)));
        said
    }

    /// What was held back, at the end of the answer.
    pub(crate) fn finish(&mut self) -> Vec<Said> {
        let mut held = match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Object(object) if !object.named() => object.taken().to_owned(),
            _ => String::new(),
        };
        held += &std::mem::take(&mut self.held);
        // White space after a call is no text.
        if held.is_empty() || (self.any() && held.trim().is_empty()) { vec![] } else { vec![Said::Text(held)] }
    }

    /// Reads on; gives whether there may be more to read.
    fn advance(&mut self, said: &mut Vec<Said>) -> bool {
        match &mut self.place {
            Place::Outside => self.outside(said),
            Place::Between => self.between(),
            Place::Object(_) => self.object(said),
        }
    }

    fn outside(&mut self, said: &mut Vec<Said>) -> bool {
        // Llama and the plain form begin with the object itself, and only at the start of the answer.
        let begins = matches!(self.dialect, Dialect::Llama | Dialect::Plain) && self.count == 0 && !self.spoke;
        let opening = self.dialect.opening();
        let object = self.held.trim_start_matches(BLANK);
        if begins && !self.held.is_empty() && object.is_empty() {
            return false;
        }
        if begins && self.dialect == Dialect::Llama && object.starts_with('{') {
            self.place = Place::Between;
            return true;
        }
        if let Some(at) = self.held.find(opening) {
            let before: String = self.held.drain(..at + opening.len()).collect();
            let before = &before[..at];
            if !(before.is_empty() || (self.any() && before.trim().is_empty())) {
                said.push(Said::Text(before.to_owned()));
            }
            self.place = Place::Between;
            return true;
        }
        // Text, but for an end that could become the opening, and white space that may stand before it.
        let keep = (0..=self.held.len())
            .filter(|at| self.held.is_char_boundary(*at))
            .find(|at| opening.starts_with(&self.held[*at..]))
            .unwrap_or(self.held.len());
        let keep = if self.any() { self.held[..keep].trim_end().len() } else { keep };
        let text: String = self.held.drain(..keep).collect();
        if !text.is_empty() {
            said.push(Said::Text(text));
        }
        false
    }

    /// Skips to the next object, or to where text may be.
    fn between(&mut self) -> bool {
        let skipped = |letter: char| BLANK.contains(&letter) || matches!(letter, '[' | ',' | ';');
        let skipped = self.held.len() - self.held.trim_start_matches(skipped).len();
        self.held.drain(..skipped);
        if self.held.starts_with('{') && self.count < self.calls_max {
            self.place = Place::Object(Box::default());
            return true;
        }
        let closing = match self.dialect {
            Dialect::Hermes => "</tool_call>",
            Dialect::Mistral => "]",
            Dialect::Llama => "",
            Dialect::Plain => "]}",
        };
        if closing.starts_with(self.held.as_str()) && self.held.len() < closing.len() || self.held.is_empty() {
            return false;
        }
        if self.held.starts_with(closing) {
            self.held.drain(..closing.len());
        }
        self.place = Place::Outside;
        // One call was asked for: what follows is not told.
        if self.count >= self.calls_max {
            self.held.clear();
            return false;
        }
        !self.held.is_empty()
    }

    fn object(&mut self, said: &mut Vec<Said>) -> bool {
        let Place::Object(reader) = &mut self.place else { return false };
        let text = std::mem::take(&mut self.held);
        let (used, parts) = reader.push(&text, &self.names);
        let mut failed = None;
        let mut ended = false;
        for part in parts {
            match part {
                Part::Name(name) => {
                    said.push(Said::Call(self.count, name));
                    self.count += 1;
                }
                Part::Arguments(text) => said.push(Said::Arguments(self.count - 1, text)),
                Part::End => ended = true,
                // It was no call: all of it is text.
                Part::Wrong => failed = Some(reader.taken().to_owned()),
            }
        }
        if let Some(taken) = failed {
            said.push(Said::Text(taken));
            self.spoke = true;
            self.place = Place::Outside;
        } else if ended {
            self.place = Place::Between;
        }
        self.held = text[used..].to_owned();
        !self.held.is_empty() && !matches!(self.place, Place::Object(_))
    }
}
