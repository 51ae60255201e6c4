//! One answer as it comes: pieces of it, then the end with its receipt.

use crate::app::App;
use crate::calls::Said;
use crate::charge::Charge;
use crate::draft::{Draft, Question};
use crate::error::ApiError;
use crate::hex;
use crate::keys::Caller;
use crate::likelihood::Likelihood;
use crate::ticket::Ticket;
use engine::{Completion, Event, Finish, Times};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// An answer being generated. Dropping it cancels it.
pub(crate) struct Answer {
    app: Arc<App>,
    events: mpsc::Receiver<Event>,
    /// Taken when the answer is complete.
    question: Option<Question>,
    /// Pieces that are ready.
    ready: VecDeque<Piece>,
    /// What the engine said at the end.
    completion: Option<Completion>,
    caller: Caller,
    started: Instant,
    /// When the last event came.
    latest: Option<Instant>,
    /// What it is charged, if anybody is.
    charge: Option<Charge>,
    deadline: Instant,
}

/// What comes next of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Piece {
    /// More of it.
    Said(Said),
    /// How likely a token was; before what it says.
    Token(Likelihood),
    /// Nothing yet.
    Quiet,
    /// The answer is complete, and its receipt durable.
    End(End),
}

/// All of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Whole {
    pub(crate) text: String,
    /// Names and arguments.
    pub(crate) calls: Vec<(String, String)>,
    /// Of every token, if asked for.
    pub(crate) likelihoods: Option<Vec<Likelihood>>,
    pub(crate) end: End,
}

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) finish: Finish,
    /// Whether it calls tools.
    pub(crate) called: bool,
    pub(crate) usage: Usage,
    pub(crate) ticket: Ticket,
    pub(crate) times: Times,
    /// When its receipt was begun, and when it was durable.
    pub(crate) closed: (std::time::Instant, std::time::Instant),
}

/// Tokens of one or more answers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
    /// Of the prompt, what was found computed.
    pub(crate) cached: usize,
    /// Of the client's prediction, what was right and what was tried and wrong.
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.cached += other.cached;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
    }
}

impl Answer {
    /// Asks the engine; `param` is where the prompt came from.
    pub(crate) fn begin(
        app: &Arc<App>,
        mut question: Question,
        param: &str,
        caller: Caller,
        charge: Option<Charge>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        if !question.admit(&app.base, |nonce| app.recorder.take(nonce)) {
            return Err(ApiError::busy());
        }
        let events = app.submit(&question, param)?;
        Ok(Answer {
            app: app.clone(),
            events,
            question: Some(question),
            ready: VecDeque::new(),
            completion: None,
            caller,
            started,
            latest: None,
            charge,
            deadline,
        })
    }

    /// What comes next, or [`Piece::Quiet`] if nothing does for as long as `patience`. After the end or an error nothing
    /// may be asked for.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Piece, ApiError> {
        let quiet_at = Instant::now() + patience;
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(piece);
            }
            if let Some(completion) = self.completion.take() {
                return self.end(completion).await.map(Piece::End);
            }
            let event = match timeout_at(quiet_at.min(self.deadline), self.events.recv()).await {
                Err(_) if quiet_at < self.deadline => return Ok(Piece::Quiet),
                Err(_) => return Err(self.too_late()),
                Ok(None) => return Err(ApiError::server("the engine has stopped; the server must be restarted")),
                Ok(Some(event)) => event,
            };
            let ended = !matches!(event, Event::Text(..) | Event::Token(..));
            if !ended && Instant::now() > self.deadline {
                return Err(self.too_late());
            }
            self.take(event)?;
        }
    }

    fn take(&mut self, event: Event) -> Result<(), ApiError> {
        let calls = self.question.as_mut().and_then(|question| question.calls.as_mut());
        let said = match event {
            Event::Token(token, logprobs) => {
                let likelihood = Likelihood::new(self.app.engine.text(), token, &logprobs);
                self.ready.push_back(Piece::Token(likelihood));
                return Ok(());
            }
            Event::Text(text, drawn) => {
                if let Some(charge) = &mut self.charge {
                    charge.note(drawn);
                }
                let said = match calls {
                    Some(calls) => calls.push(&text),
                    None => vec![Said::Text(text)],
                };
                self.clock();
                said
            }
            Event::Done(completion) => {
                self.completion = Some(completion);
                calls.map(|calls| calls.finish()).unwrap_or_default()
            }
            Event::Failed(failure) => {
                self.fail();
                return Err(ApiError::failed(&failure));
            }
        };
        self.ready.extend(said.into_iter().map(Piece::Said));
        Ok(())
    }

    fn clock(&mut self) {
        let now = Instant::now();
        match self.latest.replace(now) {
            None => self.app.metrics.first(now - self.started),
            Some(latest) => self.app.metrics.further(now - latest),
        }
    }

    /// Number and secret of its seed, for whoever would carry the answer on; none if the client chose the seed.
    pub(crate) fn seed(&self) -> Option<(u64, receipt::Hash)> {
        let taken = self.question.as_ref()?.taken.as_ref()?;
        Some((taken.number, taken.origin.secret))
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<Whole, ApiError> {
        let told = self.question.as_ref().is_some_and(|question| question.request.shaping.top_logprobs.is_some());
        let (mut text, mut calls, mut likelihoods) = (String::new(), Vec::<(String, String)>::new(), vec![]);
        loop {
            match self.next(Duration::from_secs(3600)).await? {
                Piece::Said(Said::Text(more)) => text.push_str(&more),
                Piece::Said(Said::Call(_, name)) => calls.push((name, String::new())),
                Piece::Said(Said::Arguments(number, more)) => {
                    if let Some((_, arguments)) = calls.get_mut(number) {
                        arguments.push_str(&more);
                    }
                }
                Piece::Token(likelihood) => likelihoods.push(likelihood),
                Piece::Quiet => {}
                Piece::End(end) => return Ok(Whole { text, calls, likelihoods: told.then_some(likelihoods), end }),
            }
        }
    }

    async fn end(&mut self, completion: Completion) -> Result<End, ApiError> {
        let Some(question) = self.question.take() else { return Err(ApiError::server("the answer ended twice")) };
        let (finish, times) = (completion.finish, completion.times);
        let closing_from = Instant::now();
        let (request, effort) = (&question.request, completion.effort);
        let (prompt, answer) = (request.prompt.len(), completion.tokens.len());
        let predicted = |count| if request.prediction.is_empty() { 0 } else { count };
        let usage = Usage {
            prompt: question.prompt_counted(),
            completion: answer,
            cached: effort.cached_tokens.min(question.prompt_counted()),
            accepted: predicted(effort.drafts_accepted),
            rejected: predicted(effort.drafts_rejected),
        };
        let called = question.calls.as_ref().is_some_and(|calls| calls.any());
        if let Some(key) = &self.caller.0 {
            self.app.paces.count(key, answer as u64);
        }
        // A client that goes now has had its answer: what follows does not end with it.
        let closing = tokio::spawn(close(self.app.clone(), question, completion, self.charge.take(), usage));
        // A disk that hangs must not hold the client for ever; whether the receipt was kept shows later.
        let late = self.deadline.max(Instant::now() + self.app.limits.receipt_deadline);
        let closed = timeout_at(late, closing).await.map_err(|_| self.too_late())?;
        let ticket = closed.map_err(|error| ApiError::server(format!("the receipt could not be made: {error}")))??;
        let took = self.started.elapsed();
        self.app.metrics.complete(finish, prompt, answer, took);
        self.app.metrics.parts(&times);
        let (finished, seconds) = (if finish == Finish::Stop { "stop" } else { "length" }, took.as_secs_f64());
        let key = self.caller.0.as_deref();
        let receipt = hex::encode(&ticket.name);
        tracing::info!(prompt_tokens = prompt, answer_tokens = answer, finished, seconds, receipt, key, "answered");
        let closed = (closing_from.into_std(), std::time::Instant::now());
        Ok(End { finish, called, usage, ticket, times, closed })
    }

    fn too_late(&mut self) -> ApiError {
        self.fail();
        ApiError::deadline(self.app.limits.answer_deadline.as_secs())
    }

    /// There will be no answer, and it is the server's fault.
    fn fail(&mut self) {
        if let Some(charge) = &mut self.charge {
            charge.fail();
        }
    }
}

/// Makes the receipt, and what the answer costs, durable.
async fn close(
    app: Arc<App>,
    question: Question,
    completion: Completion,
    charge: Option<Charge>,
    usage: Usage,
) -> Result<Ticket, ApiError> {
    let mut charge = charge;
    let made = async {
        let base = app.base.clone();
        let draft = tokio::task::spawn_blocking(move || Draft::new(&base, question, completion)).await;
        let draft = draft.map_err(|error| ApiError::server(format!("the receipt could not be made: {error}")))?;
        let draft = draft.map_err(|error| ApiError::server(format!("there are no random numbers: {error}")))?;
        let kept = app.recorder.record(draft).await;
        kept.map_err(|error| ApiError { code: Some("receipt_failed"), ..ApiError::server(error.to_string()) })
    };
    let ticket = match made.await {
        Ok(ticket) => ticket,
        Err(error) => {
            charge.iter_mut().for_each(Charge::fail);
            return Err(error);
        }
    };
    if let Some(charge) = charge {
        let (prompt, cached) = (usage.prompt as u64, usage.cached as u64);
        let output = usage.completion as u64;
        let accepted = (usage.accepted as u64).min(output);
        charge.settle(ledger::Usage { prompt, cached, output, accepted }, hex::encode(&ticket.name)).await;
    }
    Ok(ticket)
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.question.is_some() {
            self.app.metrics.aborted();
        }
    }
}
