//! One request on its way through the engine.

mod sharing;

use crate::device::Drawn;
use crate::draft::Drafter;
use crate::prefix::Keys;
use crate::request::{Completion, Effort, Event, Failure, Finish, Priority, Request, Times};
use crate::stop::StopStrings;
use crate::ticket::Ticket;
use crate::time::Use;
use cpu::{Hash, PAGE, Segment, Wanted};
use exact::adjust::Choice;
use grammar::Guide;
use model::{Adapter, Decoder, Text};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// Tokens after which an answer is well under way.
const SETTLED_TOKENS: usize = 32;

/// A request, its tokens so far, and where its keys and values are.
pub(crate) struct Sequence {
    request: Request,
    /// Prompt and answer, and guesses that are being checked.
    tokens: Vec<u32>,
    /// How many of `tokens`, at their end, are guesses.
    drafted: usize,
    /// Tokens whose keys and values are in the pages.
    computed: usize,
    /// Page i holds positions from 64 · i on.
    pages: Vec<u32>,
    /// Pages that others can find.
    published: usize,
    keys: Option<Keys>,
    /// Of every position ever computed: a pre-empted sequence keeps them.
    leaves: Vec<Hash>,
    drafter: Option<Drafter>,
    /// Follows the answer through its form.
    guide: Option<Guide>,
    /// Held while it is being computed.
    adapter: Option<Arc<Adapter>>,
    arrival: u64,
    class: u8,
    since: u64,
    /// Its place among those who wait, until it is admitted for the first time.
    ticket: Option<Ticket>,
    effort: Effort,
    times: Times,
    text: Arc<Text>,
    decoder: Decoder,
    stops: StopStrings,
    events: Sender<Event>,
    finish: Option<Finish>,
    failed: bool,
}

impl Sequence {
    pub(crate) fn new(
        request: Request,
        text: &Arc<Text>,
        guide: Option<Guide>,
        events: Sender<Event>,
        ticket: Option<Ticket>,
    ) -> Self {
        Sequence {
            tokens: request.prompt.clone(),
            drafted: 0,
            computed: 0,
            pages: Vec::new(),
            published: 0,
            keys: None,
            leaves: Vec::new(),
            // A form is followed token by token: a wrong guess could not be taken back.
            drafter: guide.is_none().then(|| Drafter::new(&request.prediction)),
            guide,
            adapter: None,
            arrival: 0,
            class: match request.priority {
                Priority::High => 1,
                Priority::Normal => 2,
                Priority::Low => 3,
            },
            since: 0,
            ticket,
            effort: Effort::default(),
            times: Times::now(),
            text: text.clone(),
            decoder: text.decoder(false),
            stops: StopStrings::new(request.stop_strings.clone()),
            request,
            events,
            finish: None,
            failed: false,
        }
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// Its number among all requests, given when it is queued.
    pub(crate) fn arrival(&self) -> u64 {
        self.arrival
    }

    pub(crate) fn arrive(&mut self, arrival: u64, step: u64) {
        (self.arrival, self.since) = (arrival, step);
    }

    /// Its class of priority, lower first.
    pub(crate) fn class(&self) -> u8 {
        self.class
    }

    /// The step since which it waits in its class.
    pub(crate) fn waits_since(&self) -> u64 {
        self.since
    }

    pub(crate) fn wait_from(&mut self, step: u64, class: u8) {
        (self.since, self.class) = (step, class);
    }

    /// Who keeps pages when they run out: lower first.
    pub(crate) fn seniority(&self) -> (u8, u64) {
        (self.class, self.arrival)
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Since it was asked.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.times.queued)
    }

    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.request.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Tokens that wait to be computed: one while decoding, more of the prompt before. Guesses do not count.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.drafted - self.computed
    }

    /// Whether it only has to go on with its answer.
    pub(crate) fn is_decoding(&self) -> bool {
        self.pending() == 1 && self.computed >= self.request.prompt.len()
    }

    /// Whether its answer is well under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_decoding() && self.answer().len() >= SETTLED_TOKENS
    }

    /// Of the next `count` positions, how many were computed before.
    pub(crate) fn known(&self, count: usize) -> usize {
        self.leaves.len().saturating_sub(self.computed).min(count)
    }

    /// Pages up to and with the position of the next token drawn.
    pub(crate) fn pages_needed(&self) -> usize {
        (self.tokens.len() - self.drafted + 1).div_ceil(PAGE)
    }

    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Pages it lacks to compute its next `count` tokens.
    pub(crate) fn pages_lacking(&self, count: usize) -> usize {
        (self.computed + count).div_ceil(PAGE).saturating_sub(self.pages.len())
    }

    pub(crate) fn add_page(&mut self, page: u32) {
        self.pages.push(page);
    }

    /// Positions its pages have room for beyond its pending tokens.
    pub(crate) fn room(&self) -> usize {
        (self.pages.len() * PAGE).saturating_sub(self.computed + self.pending())
    }

    pub(crate) fn set_adapter(&mut self, adapter: Option<Arc<Adapter>>) {
        self.adapter = adapter;
    }

    /// Lets go of its pages, to be computed again later.
    pub(crate) fn give_up_pages(&mut self) -> Vec<u32> {
        self.drop_drafts();
        (self.computed, self.published) = (0, 0);
        std::mem::take(&mut self.pages)
    }

    /// Whether it was computed before, and gave way.
    pub(crate) fn gave_way(&self) -> bool {
        self.effort.preemptions > 0
    }

    /// It leaves the queue.
    pub(crate) fn note_admission(&mut self) {
        // Its place among those who wait goes with the first time.
        if self.ticket.take().is_some() {
            self.times.admitted = Instant::now();
        }
    }

    pub(crate) fn note_preemption(&mut self) {
        self.effort.preemptions += 1;
    }

    /// Guesses up to `most` tokens ahead, to be checked in the next step.
    pub(crate) fn guess(&mut self, most: usize) {
        let answered = self.tokens.len() - self.request.prompt.len();
        // The last token of an answer is never computed, so the one before it need not be guessed.
        let most = most.min(self.room()).min(self.request.tokens_max.saturating_sub(answered + 1));
        if let Some(drafter) = &mut self.drafter {
            let guesses = drafter.draft(&self.tokens, most);
            self.drafted = guesses.len();
            self.tokens.extend_from_slice(guesses);
        }
    }

    pub(crate) fn drafted(&self) -> usize {
        self.drafted
    }

    fn drop_drafts(&mut self) {
        self.tokens.truncate(self.tokens.len() - self.drafted);
        self.drafted = 0;
    }

    /// Its next `count` tokens for a step, and what it guesses after them.
    pub(crate) fn segment(&self, count: usize) -> Segment<'_> {
        let whole = count == self.pending();
        let drafted = if whole { self.drafted } else { 0 };
        Segment {
            tokens: &self.tokens[self.computed..self.computed + count + drafted],
            start: self.computed,
            pages: &self.pages,
            adapter: self.adapter.as_deref(),
            wanted: match (whole, drafted) {
                (false, _) => Wanted::None,
                (true, 0) => Wanted::Last,
                (true, _) => Wanted::All,
            },
        }
    }

    /// How its next tokens are drawn.
    pub(crate) fn sampling(&self) -> &exact::sample::Sampling {
        &self.request.sampling
    }

    /// What its next token after `before` tokens, guesses among them, is drawn under, but for the mask.
    pub(crate) fn choice(&self, before: usize) -> Choice<'_> {
        let answer = &self.tokens[self.request.prompt.len()..before];
        self.request.shaping.choice(&self.request.prompt, answer, &self.request.stop_tokens)
    }

    /// What gives the mask of its next token.
    pub(crate) fn guide(&self) -> Option<&Guide> {
        self.guide.as_ref()
    }

    /// The step met a value that is not finite. If a guess may be to blame, the step counts for nothing and there are no
    /// more guesses; gives whether it was so.
    pub(crate) fn forgive(&mut self) -> bool {
        let guessed = self.drafted > 0;
        self.effort.drafts_rejected += self.drafted;
        self.drop_drafts();
        self.drafter = None;
        guessed
    }

    /// Takes in a step of `count` tokens: their leaves and those of the guesses, and the tokens drawn after the last of
    /// them and after each guess. Gives how many guesses were right.
    pub(crate) fn advance(
        &mut self,
        count: usize,
        leaves: &[Hash],
        drawn: Vec<Result<Drawn, Failure>>,
    ) -> Result<usize, Failure> {
        let guesses = self.tokens.split_off(self.tokens.len() - self.drafted);
        self.drafted = 0;
        self.take_leaves(&leaves[..count])?;
        let mut right = 0;
        let mut fresh = Vec::new();
        for (number, drawn) in drawn.into_iter().enumerate() {
            let Drawn { token, logprobs } = drawn?;
            assert!(self.computed == self.tokens.len(), "a token was drawn before its past was computed");
            self.tokens.push(token);
            fresh.push(token);
            if let Some(logprobs) = logprobs {
                self.send(Event::Token(token, logprobs));
            }
            self.take_token(token)?;
            if self.finish.is_some() || guesses.get(number) != Some(&token) {
                break;
            }
            right += 1;
            self.take_leaves(&leaves[count + number..=count + number])?;
        }
        self.effort.drafts_accepted += right;
        self.effort.drafts_rejected += guesses.len() - right;
        if let (Some(drafter), false) = (&mut self.drafter, fresh.is_empty()) {
            drafter.learn(guesses.len(), &fresh);
        }
        Ok(right)
    }

    /// Notes the leaves of computed positions. Where some are known from before, they must be the same.
    fn take_leaves(&mut self, leaves: &[Hash]) -> Result<(), Failure> {
        let known = self.known(leaves.len());
        if self.leaves[self.computed..self.computed + known] != leaves[..known] {
            return Err(Failure::Diverged);
        }
        self.leaves.extend_from_slice(&leaves[known..]);
        self.computed += leaves.len();
        Ok(())
    }

    fn take_token(&mut self, token: u32) -> Result<(), Failure> {
        if self.answer().len() == 1 {
            self.times.first = Instant::now();
        }
        if self.request.stop_tokens.contains(&token) {
            self.finish = Some(Finish::Stop);
        } else {
            let passed = self.stops.push(&self.decoder.push(&self.text, token).unwrap_or_default());
            self.send_text(passed.text);
            if passed.stopped {
                self.finish = Some(Finish::Stop);
                return Ok(());
            }
            match self.guide.as_ref().map(|guide| guide.accept(token)).transpose().map_err(Failure::Form)? {
                // Nothing can follow: the form's end needs no token of its own.
                Some(true) => self.finish = Some(Finish::Stop),
                _ if self.answer().len() == self.request.tokens_max => self.finish = Some(Finish::Length),
                _ => {}
            }
        }
        if self.finish.is_some() {
            let passed = self.stops.push(&self.decoder.finish(&self.text).unwrap_or_default());
            self.send_text(passed.text);
            let rest = self.stops.finish();
            self.send_text(rest);
        }
        Ok(())
    }

    /// Whether it is to be retired.
    pub(crate) fn has_ended(&self) -> bool {
        self.finish.is_some() || self.failed
    }

    fn answer(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..self.tokens.len() - self.drafted]
    }

    /// Tells that the answer is complete, if it is. Gives what it brought beside its time.
    pub(crate) fn complete(&mut self) -> Option<Use> {
        let (Some(finish), false) = (self.finish, self.failed) else { return None };
        let adapter = self.request.adapter.as_ref().and_then(|adapter| adapter.digest());
        let (tokens, leaves) = (self.answer().to_vec(), std::mem::take(&mut self.leaves));
        let (cached_tokens, answer_tokens) = (self.effort.cached_tokens as u64, tokens.len() as u64);
        let (effort, times) = (self.effort, Times { last: Instant::now(), ..self.times });
        self.send(Event::Done(Completion { tokens, finish, leaves, adapter, effort, times }));
        Some(Use { cached_tokens, answer_tokens, answers: 1, ..Use::default() })
    }

    /// Tells whoever listens that there will be no answer.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failed = true;
        self.send(Event::Failed(failure));
    }

    fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.send(Event::Text(text, self.answer().len()));
        }
    }

    fn send(&self, event: Event) {
        // The channel has room for every event of an answer; it fails only if nobody listens, which the next step sees.
        let _ = self.events.try_send(event);
    }
}
