//! Stop strings: text is held back while it could still be the beginning of one.

/// Watches an answer's text as it grows.
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What may be passed on after more text arrived.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    pub(crate) text: String,
    pub(crate) stopped: bool,
}

impl StopStrings {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        StopStrings { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes in more text; gives what comes before any possible stop.
    pub(crate) fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Passed { text, stopped: true };
        }
        let keep = self.stops.iter().map(|stop| longest_overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, now that nothing follows.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that begins `stop`.
fn longest_overlap(text: &str, stop: &str) -> usize {
    let ends = text.char_indices().map(|(at, _)| &text[at..]);
    ends.filter(|end| end.len() < stop.len()).find(|end| stop.starts_with(end)).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_before_a_stop_is_passed_and_the_stop_is_not() {
        let mut stops = StopStrings::new(vec!["END".into(), "\n\n".into()]);
        assert_eq!(stops.push("one E"), Passed { text: "one ".into(), stopped: false });
        assert_eq!(stops.push("NE"), Passed { text: "EN".into(), stopped: false });
        assert_eq!(stops.push("ND two"), Passed { text: String::new(), stopped: true });
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(pieces in proptest::collection::vec("[abé]{0,3}", 0..12), stop in "[abé]{1,4}") {
            let whole = pieces.concat();
            let want = whole.split(stop.as_str()).next().unwrap_or("").to_owned();
            let mut watch = StopStrings::new(vec![stop.clone()]);
            let mut got = String::new();
            let mut stopped = false;
            for piece in &pieces {
                let passed = watch.push(piece);
                got.push_str(&passed.text);
                stopped |= passed.stopped;
                if stopped { break; }
            }
            if !stopped { got.push_str(&watch.finish()); }
            prop_assert_eq!(got, want);
            prop_assert_eq!(stopped, whole.contains(&stop));
        }
    }
}
