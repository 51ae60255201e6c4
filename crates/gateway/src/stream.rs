//! Answers as server-sent events.
//!
//! Nothing runs on its own: each event is made when the connection asks for it, and when the connection drops the stream
//! its answers are dropped and cancelled with it. What a slow reader leaves waiting stays in the engine's bounded channel.

use crate::answer::{Answer, Piece, Usage};
use crate::error::ApiError;
use crate::likelihood::Likelihood;
use crate::shape::Shape;
use crate::trace::Trace;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// After this much silence a comment keeps the connection open, and shows whether anybody still listens.
const SILENCE_MAX: Duration = Duration::from_secs(10);

struct Stream {
    shape: Shape,
    /// Answers that have not ended, with their choice's number.
    answers: VecDeque<(usize, Answer)>,
    /// Events that are ready.
    ready: VecDeque<Bytes>,
    usage: Usage,
    /// Tokens of the front answer that no event has told yet, and characters of it that were told.
    tokens: Vec<Likelihood>,
    offset: usize,
    /// Whether the last event is made.
    ended: bool,
    trace: Trace,
}

/// The response that streams these answers, choice after choice.
pub(crate) fn respond(shape: Shape, answers: Vec<Answer>, trace: Trace) -> Response {
    let ready = (0..answers.len()).filter_map(|index| shape.first_chunk(index)).map(|chunk| event(&chunk)).collect();
    let answers = answers.into_iter().enumerate().collect();
    let (usage, tokens) = (Usage::default(), vec![]);
    let stream = Stream { shape, answers, ready, usage, tokens, offset: 0, ended: false, trace };
    let events = futures_util::stream::unfold(stream, |mut stream| async {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies not to gather events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        if self.ended {
            return None;
        }
        loop {
            let Some((index, answer)) = self.answers.front_mut() else { return Some(self.finish()) };
            let index = *index;
            return Some(match answer.next(SILENCE_MAX).await {
                Ok(Piece::Token(likelihood)) => {
                    self.tokens.push(likelihood);
                    continue;
                }
                Ok(Piece::Said(said)) => {
                    let tokens = std::mem::take(&mut self.tokens);
                    event(&self.shape.said_chunk(index, &said, &tokens, &mut self.offset))
                }
                Ok(Piece::Quiet) => Bytes::from_static(b": still working\n\n"),
                Ok(Piece::End(end)) => {
                    self.usage += end.usage;
                    self.trace.answer(index, &end, self.shape.finish_reason(&end));
                    self.answers.pop_front();
                    let tokens = std::mem::take(&mut self.tokens);
                    let chunk = self.shape.last_chunk(index, &end, &tokens, &mut self.offset);
                    self.offset = 0;
                    event(&chunk)
                }
                Err(error) => self.fail(&error),
            });
        }
    }

    fn finish(&mut self) -> Bytes {
        self.ended = true;
        drop(std::mem::take(&mut self.trace));
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        if !self.shape.include_usage {
            return done;
        }
        self.ready.push_back(done);
        event(&self.shape.usage_chunk(self.usage))
    }

    /// The stream ends with the error, and without `[DONE]`.
    fn fail(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        self.answers.clear();
        self.trace.fail(error);
        drop(std::mem::take(&mut self.trace));
        event(&error.to_json())
    }
}
