//! A request's body becomes questions the engine takes: read, checked, turned into tokens.

use crate::app::{App, random};
use crate::chat::ChatRequest;
use crate::completions::{CompletionRequest, Prompt};
use crate::draft::Question;
use crate::error::ApiError;
use crate::parameters::Parameters;
use engine::{AdapterHandle, Request};
use model::Message;
use std::sync::Arc;

/// Tokens of a text completion whose client gave no limit.
const COMPLETION_TOKENS: usize = 16;
/// No token of any vocabulary stands for more bytes than this.
const TOKEN_BYTES_MAX: usize = 1024;

/// Which endpoint was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
}

impl Endpoint {
    /// The parameter the prompt comes in.
    pub(crate) fn prompt_parameter(self) -> &'static str {
        match self {
            Endpoint::Chat => "messages",
            Endpoint::Completions => "prompt",
        }
    }
}

/// A checked request.
pub(crate) struct Order {
    /// The model as the client named it.
    pub(crate) model: String,
    /// One for each choice.
    pub(crate) questions: Vec<Question>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl Order {
    /// Reads a request's body. Takes long for long prompts.
    pub(crate) fn read(app: &App, endpoint: Endpoint, body: &[u8]) -> Result<Order, ApiError> {
        match endpoint {
            Endpoint::Chat => Order::read_chat(app, body),
            Endpoint::Completions => Order::read_completion(app, body),
        }
    }

    fn read_chat(app: &App, body: &[u8]) -> Result<Order, ApiError> {
        let ChatRequest { parameters, messages, prediction } = ChatRequest::read(body, draw_seed()?)?;
        let adapter = app.find(&parameters.model)?;
        let prompt = encode_chat(app, &messages)?;
        let mut question = question(app, Endpoint::Chat, &parameters, adapter, prompt)?;
        question.request.prediction = encode_prediction(app, &prediction)?;
        Ok(Order::new(parameters, vec![question]))
    }

    fn read_completion(app: &App, body: &[u8]) -> Result<Order, ApiError> {
        let CompletionRequest { mut parameters, prompts } = CompletionRequest::read(body, draw_seed()?)?;
        let adapter = app.find(&parameters.model)?;
        let mut questions = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let prompt = match prompt {
                Prompt::Tokens(tokens) => tokens,
                Prompt::Text(text) => encode(app, Endpoint::Completions, &text, true)?,
            };
            questions.push(question(app, Endpoint::Completions, &parameters, adapter.clone(), prompt)?);
            if !parameters.seed_from_client {
                parameters.sampling.seed = draw_seed()?;
            }
        }
        Ok(Order::new(parameters, questions))
    }

    fn new(parameters: Parameters, questions: Vec<Question>) -> Order {
        let Parameters { model, stream, include_usage, .. } = parameters;
        Order { model, questions, stream, include_usage }
    }
}

/// 53 bits, so that every reader of JSON can send it back as it is.
fn draw_seed() -> Result<u64, ApiError> {
    random().map(|bytes| u64::from_le_bytes(bytes) >> 11)
}

fn encode_chat(app: &App, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
    let text = app.engine.text();
    if !text.has_chat_template() {
        let message =
            "this model has no chat template: use /v1/completions, or put chat_template.jinja beside the model";
        return Err(ApiError::invalid("messages", message));
    }
    let rendered = text.render_chat(messages).map_err(|error| ApiError::invalid("messages", told(&error)))?;
    encode(app, Endpoint::Chat, &rendered, false)
}

fn encode(app: &App, endpoint: Endpoint, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let param = endpoint.prompt_parameter();
    let context = app.engine.config().context;
    if text.len() / TOKEN_BYTES_MAX > context {
        // Tokenising it would only take long to say the same.
        return Err(ApiError::too_long(param, text.len() / TOKEN_BYTES_MAX, 1, context));
    }
    let encoded = app.engine.text().encode(text, add_special_tokens);
    encoded.map_err(|error| ApiError::invalid(param, told(&error)))
}

/// A prediction changes no answer, so what is too long of it is left out.
fn encode_prediction(app: &App, text: &str) -> Result<Vec<u32>, ApiError> {
    let context = app.engine.config().context;
    let end = text.floor_char_boundary(context.saturating_mul(TOKEN_BYTES_MAX));
    let encoded = app.engine.text().encode(&text[..end], false);
    let mut tokens = encoded.map_err(|error| ApiError::invalid("prediction", told(&error)))?;
    tokens.truncate(context);
    Ok(tokens)
}

/// What went wrong, without this machine's paths.
fn told(error: &model::ModelError) -> String {
    match error {
        model::ModelError::Text { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

fn question(
    app: &App,
    endpoint: Endpoint,
    parameters: &Parameters,
    adapter: Option<Arc<AdapterHandle>>,
    prompt: Vec<u32>,
) -> Result<Question, ApiError> {
    let param = endpoint.prompt_parameter();
    let context = app.engine.config().context;
    let left = context.saturating_sub(prompt.len());
    let tokens_max = parameters.tokens_max.unwrap_or(match endpoint {
        Endpoint::Chat => left.max(1),
        Endpoint::Completions => left.clamp(1, COMPLETION_TOKENS),
    });
    if tokens_max > left {
        return Err(ApiError::too_long(param, prompt.len(), tokens_max, context));
    }
    let stop_tokens = if parameters.ignore_end { vec![] } else { app.engine.text().end_tokens().to_vec() };
    let request = Request {
        adapter,
        sampling: parameters.sampling,
        stop_tokens,
        stop_strings: parameters.stops.clone(),
        ..Request::new(prompt, tokens_max)
    };
    Ok(Question {
        request,
        seed_from_client: parameters.seed_from_client,
        nonce: parameters.nonce.clone(),
        taken: None,
        chat: endpoint == Endpoint::Chat,
    })
}
