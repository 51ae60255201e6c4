//! What goes wrong, told the way OpenAI's API tells it, so that its clients raise the errors their users know.

use crate::pace::TooMuch;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::{AdapterError, Failure, Refusal};
use serde_json::{Value, json};

/// An error on its way to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// When it is worth trying again.
    pub(crate) retry_seconds: u64,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: None, retry_seconds: 1 }
    }

    /// The request is wrong; `param` is what to fix.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The request cannot be read at all.
    pub(crate) fn unreadable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter OpenAI knows and this server does not do yet.
    pub(crate) fn unsupported(param: impl Into<String>, what: &str) -> ApiError {
        let param = param.into();
        let message = format!("'{param}' is not supported yet: {what}");
        ApiError { code: Some("unsupported_parameter"), ..ApiError::invalid(param, message) }
    }

    /// Whoever asks may not.
    pub(crate) fn no_key(what: &str) -> ApiError {
        let message = format!("{what}: send the header 'Authorization: Bearer KEY' with a key of this server.");
        ApiError { code: Some("invalid_api_key"), ..ApiError::new(StatusCode::UNAUTHORIZED, message) }
    }

    /// Whoever asks may not, whatever key they send.
    pub(crate) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// There was such a thing.
    pub(crate) fn gone(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GONE, message)
    }

    /// Prompt and answer do not fit.
    pub(crate) fn too_long(param: &str, prompt: usize, answer: usize, context: usize) -> ApiError {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} in \
             the {param}, {answer} in the completion). Please reduce the length of the {param} or completion.",
            prompt.saturating_add(answer)
        );
        ApiError { code: Some("context_length_exceeded"), ..ApiError::invalid(param, message) }
    }

    /// The body has too many bytes.
    pub(crate) fn body_too_large(bytes_max: usize) -> ApiError {
        let message = format!("the request's body is larger than {bytes_max} bytes: send less");
        ApiError { code: Some("request_too_large"), ..ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message) }
    }

    /// The body is not announced as what it has to be.
    pub(crate) fn other_kind(kind: &str) -> ApiError {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send the header 'content-type: {kind}'"))
    }

    /// What is asked contradicts what was done before.
    pub(crate) fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// The client was too slow to say what it wants.
    pub(crate) fn slow_body() -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time: send it again")
    }

    /// The path exists, but not for this method.
    pub(crate) fn wrong_method(method: &str, path: &str) -> ApiError {
        let message = format!("{method} is not allowed on {path}");
        ApiError { code: Some("method_not_allowed"), ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// Too many requests wait.
    pub(crate) fn busy() -> ApiError {
        let message = Refusal::Busy.to_string();
        ApiError { code: Some("queue_full"), ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// A key asks for more than it may, for now.
    pub(crate) fn too_much(too_much: &TooMuch) -> ApiError {
        let TooMuch { what, a_minute, wait } = too_much;
        let retry_seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        let message = format!(
            "Rate limit reached: this key may use {a_minute} {what} a minute. Please try again in {retry_seconds} s."
        );
        let code = Some("rate_limit_exceeded");
        ApiError { code, retry_seconds, ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// A key has spent what it may.
    pub(crate) fn no_money(message: String) -> ApiError {
        let code = Some("insufficient_quota");
        ApiError { code, retry_seconds: 3600, ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// Nobody can tell what a key may spend.
    pub(crate) fn ledger_away(what: String) -> ApiError {
        let message = format!("no request can be charged for now: {what}");
        let code = Some("ledger_away");
        ApiError { code, retry_seconds: 5, ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The answer took too long.
    pub(crate) fn deadline(seconds: u64) -> ApiError {
        let message = format!(
            "the answer was not complete after {seconds} seconds, this server's limit: ask for fewer tokens or try \
             again later"
        );
        ApiError { code: Some("deadline_exceeded"), ..ApiError::new(StatusCode::GATEWAY_TIMEOUT, message) }
    }

    /// Something failed here that the client cannot fix.
    pub(crate) fn server(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The server ends.
    pub(crate) fn shutting_down() -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Refusal::ShuttingDown.to_string())
    }

    /// Why the engine did not take a request whose prompt came in `param`.
    pub(crate) fn refused(refusal: &Refusal, param: &str) -> ApiError {
        match *refusal {
            Refusal::TooLong { prompt, answer, context } => ApiError::too_long(param, prompt, answer, context),
            Refusal::Busy => ApiError::busy(),
            Refusal::ShuttingDown => ApiError::shutting_down(),
            Refusal::NoTokens => ApiError::invalid("max_tokens", refusal.to_string()),
            Refusal::Shaping(_) => ApiError::invalid("min_tokens", refusal.to_string()),
            Refusal::EmptyPrompt | Refusal::UnknownToken(..) => ApiError::invalid(param, refusal.to_string()),
        }
    }

    /// Why the engine did not complete an answer.
    pub(crate) fn failed(failure: &Failure) -> ApiError {
        match failure {
            Failure::Form(error) => {
                let message = format!("the answer could not be held to its form: {error}");
                ApiError { code: Some("form_failed"), ..ApiError::unreadable(message) }
            }
            Failure::ShuttingDown => ApiError::shutting_down(),
            Failure::Deadline => {
                let code = Some("deadline_exceeded");
                ApiError { code, ..ApiError::new(StatusCode::GATEWAY_TIMEOUT, failure.to_string()) }
            }
            Failure::Adapter(_) => ApiError { code: Some("adapter_failed"), ..ApiError::server(failure.to_string()) },
            _ => ApiError::server(failure.to_string()),
        }
    }

    /// Why an adapter was not loaded or unloaded.
    pub(crate) fn adapter(error: &AdapterError) -> ApiError {
        let message = error.to_string();
        match error {
            AdapterError::Unknown(_) => ApiError { code: Some("adapter_not_found"), ..ApiError::not_found(message) },
            AdapterError::Name | AdapterError::Taken(_) => ApiError::invalid("lora_name", message),
            AdapterError::Full | AdapterError::TooManyPinned { .. } => {
                ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message)
            }
            AdapterError::NoRoots => ApiError::new(StatusCode::FORBIDDEN, message),
            _ => ApiError::invalid("lora_path", message),
        }
    }

    /// The key that this takes was not sent.
    pub(crate) fn not_admin() -> ApiError {
        let message = "this changes the server: send its administrator's key as 'Authorization: Bearer KEY'";
        ApiError { code: Some("invalid_api_key"), ..ApiError::new(StatusCode::UNAUTHORIZED, message) }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS if self.code == Some("insufficient_quota") => "insufficient_quota",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// What it is called where there is room for a word only.
    pub(crate) fn name(&self) -> &'static str {
        self.code.unwrap_or(self.kind())
    }

    /// The error as a body, or as an event of a stream.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
