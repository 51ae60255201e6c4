//! One answer as it comes: pieces of text, then the end with its receipt.

use crate::app::App;
use crate::draft::{Draft, Question};
use crate::error::ApiError;
use crate::ticket::Ticket;
use engine::{Completion, Event, Finish};
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
    deadline: Instant,
}

/// What comes next of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// More text.
    Text(String),
    /// Nothing yet.
    Quiet,
    /// The answer is complete, and its receipt durable.
    End(End),
}

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
    pub(crate) ticket: Ticket,
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
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        if !question.admit(&app.base, |nonce| app.recorder.take(nonce)) {
            return Err(ApiError::busy());
        }
        let events = app.submit(&question, param)?;
        Ok(Answer { app: app.clone(), events, question: Some(question), deadline })
    }

    /// What comes next, or [`Piece::Quiet`] if nothing does for as long as `patience`. After the end or an error nothing
    /// may be asked for.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Piece, ApiError> {
        let quiet_at = Instant::now() + patience;
        match timeout_at(quiet_at.min(self.deadline), self.events.recv()).await {
            Err(_) if quiet_at < self.deadline => Ok(Piece::Quiet),
            Err(_) => Err(self.too_late()),
            Ok(Some(Event::Text(_))) if Instant::now() > self.deadline => Err(self.too_late()),
            Ok(Some(Event::Text(text))) => Ok(Piece::Text(text)),
            Ok(Some(Event::Done(completion))) => self.end(completion).await.map(Piece::End),
            Ok(Some(Event::Failed(failure))) => Err(ApiError::failed(failure)),
            Ok(None) => Err(ApiError::server("the engine has stopped; the server must be restarted")),
        }
    }

    /// Number and secret of its seed, for whoever would carry the answer on; none if the client chose the seed.
    pub(crate) fn seed(&self) -> Option<(u64, receipt::Hash)> {
        let taken = self.question.as_ref()?.taken.as_ref()?;
        Some((taken.number, taken.origin.secret))
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<(String, End), ApiError> {
        let mut text = String::new();
        loop {
            match self.next(Duration::from_secs(3600)).await? {
                Piece::Text(more) => text.push_str(&more),
                Piece::Quiet => {}
                Piece::End(end) => return Ok((text, end)),
            }
        }
    }

    async fn end(&mut self, completion: Completion) -> Result<End, ApiError> {
        let Some(question) = self.question.take() else { return Err(ApiError::server("the answer ended twice")) };
        let finish = completion.finish;
        let (request, effort) = (&question.request, completion.effort);
        let predicted = |count| if request.prediction.is_empty() { 0 } else { count };
        let usage = Usage {
            prompt: request.prompt.len(),
            completion: completion.tokens.len(),
            cached: effort.cached_tokens,
            accepted: predicted(effort.drafts_accepted),
            rejected: predicted(effort.drafts_rejected),
        };
        let base = self.app.base.clone();
        let draft = tokio::task::spawn_blocking(move || Draft::new(&base, question, completion)).await;
        let draft = draft.map_err(|error| ApiError::server(format!("the receipt could not be made: {error}")))?;
        let draft = draft.map_err(|error| ApiError::server(format!("there are no random numbers: {error}")))?;
        // A disk that hangs must not hold the client for ever; whether the receipt was kept shows later.
        let late = self.deadline.max(Instant::now() + self.app.limits.receipt_deadline);
        let kept = timeout_at(late, self.app.recorder.record(draft)).await.map_err(|_| self.too_late())?;
        let ticket =
            kept.map_err(|error| ApiError { code: Some("receipt_failed"), ..ApiError::server(error.to_string()) })?;
        Ok(End { finish, usage, ticket })
    }

    fn too_late(&self) -> ApiError {
        ApiError::deadline(self.app.limits.answer_deadline.as_secs())
    }
}
