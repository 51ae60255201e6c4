//! One request on its way through the engine.

use crate::request::{Completion, Event, Failure, Finish, Request};
use crate::stop::StopStrings;
use cpu::{Hash, PAGE, Segment, Wanted};
use model::{Decoder, Text};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// A request, its tokens so far, and where its keys and values are.
pub(crate) struct Sequence {
    request: Request,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// Tokens whose keys and values are in the pages.
    computed: usize,
    /// Taken at admission, for all it can ever need.
    pub(crate) pages: Vec<u32>,
    leaves: Vec<Hash>,
    text: Arc<Text>,
    decoder: Decoder,
    stops: StopStrings,
    events: Sender<Event>,
    ended: bool,
}

impl Sequence {
    pub(crate) fn new(request: Request, text: &Arc<Text>, events: Sender<Event>) -> Self {
        Sequence {
            tokens: request.prompt.clone(),
            computed: 0,
            pages: Vec::new(),
            leaves: Vec::new(),
            text: text.clone(),
            decoder: text.decoder(false),
            stops: StopStrings::new(request.stop_strings.clone()),
            request,
            events,
            ended: false,
        }
    }

    /// Pages for the longest it can become.
    pub(crate) fn pages_needed(&self) -> usize {
        (self.request.prompt.len() + self.request.tokens_max).div_ceil(PAGE)
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens that wait to be computed: one while decoding, more of the prompt before.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Its next `count` tokens for a step.
    pub(crate) fn segment(&self, count: usize) -> Segment<'_> {
        Segment {
            tokens: &self.tokens[self.computed..self.computed + count],
            start: self.computed,
            pages: &self.pages,
            adapter: self.request.adapter.as_deref(),
            wanted: if count == self.pending() { Wanted::Last } else { Wanted::None },
        }
    }

    /// How its next token is drawn.
    pub(crate) fn sampling(&self) -> &exact::sample::Sampling {
        &self.request.sampling
    }

    /// Takes in a step of `count` tokens and the token drawn after them, if one was. Gives whether the answer is complete.
    pub(crate) fn advance(&mut self, count: usize, leaves: Vec<Hash>, drawn: Option<u32>) -> bool {
        self.computed += count;
        self.leaves.extend(leaves);
        let Some(token) = drawn else { return false };
        assert!(self.computed == self.tokens.len(), "a token was drawn before its past was computed");
        self.tokens.push(token);
        let mut finish = None;
        if self.request.stop_tokens.contains(&token) {
            finish = Some(Finish::Stop);
        } else {
            let passed = self.stops.push(&self.decoder.push(&self.text, token).unwrap_or_default());
            self.send_text(passed.text);
            if passed.stopped {
                self.complete(Finish::Stop);
                return true;
            }
            if self.answer().len() == self.request.tokens_max {
                finish = Some(Finish::Length);
            }
        }
        let Some(finish) = finish else { return false };
        let passed = self.stops.push(&self.decoder.finish(&self.text).unwrap_or_default());
        self.send_text(passed.text);
        let rest = self.stops.finish();
        self.send_text(rest);
        self.complete(finish);
        true
    }

    /// Marks it for retirement.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    fn answer(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    fn complete(&mut self, finish: Finish) {
        let leaves = std::mem::take(&mut self.leaves);
        self.send(Event::Done(Completion { tokens: self.answer().to_vec(), finish, leaves }));
    }

    /// Tells whoever listens that there will be no answer.
    pub(crate) fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.send(Event::Text(text));
        }
    }

    fn send(&self, event: Event) {
        // The channel has room for every event of an answer; it fails only if nobody listens, which the next step sees.
        let _ = self.events.try_send(event);
    }
}
