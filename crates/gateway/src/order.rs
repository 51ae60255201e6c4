//! A request's body becomes questions the engine takes: read, checked, turned into tokens.

use crate::app::{App, random};
use crate::calls::Calls;
use crate::chat::ChatRequest;
use crate::completions::{CompletionRequest, Prompt};
use crate::dialect::Dialect;
use crate::draft::Question;
use crate::error::ApiError;
use crate::parameters::{CHOICES_MAX, Parameters, Tier};
use crate::tools::Choice;
use engine::{AdapterHandle, Priority, Request, Shaping};
use grammar::Grammar;
use model::Message;
use serde_json::Value;
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
    /// What OpenTelemetry calls it.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat",
            Endpoint::Completions => "text_completion",
        }
    }

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
    /// Whether the client named the function to call: OpenAI then calls the end of the answer a stop.
    pub(crate) named: bool,
    /// The class of service that is told, if the client named one.
    pub(crate) tier: Option<Tier>,
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
        let ChatRequest { parameters, messages, prediction, tools, form, top_logprobs } =
            ChatRequest::read(body, draw_seed()?)?;
        let adapter = app.find(&parameters.model)?;
        let text = app.engine.text();
        let dialect = Dialect::of(text.template_source().unwrap_or_default());
        let (messages, described) = dialect.conversation(messages, tools.as_ref());
        let prompt = encode_chat(app, &messages, &described)?;
        let calling = tools.as_ref().and_then(|tools| dialect.form(tools, text));
        let form = match (form, calling) {
            (Some(_), Some(_)) => {
                let message = "'response_format' and 'tools' both hold the answer to a form: send one of them";
                return Err(ApiError::invalid("response_format", message));
            }
            (Some(form), None) => Some(app.compile(&form, "response_format")?),
            (None, Some(calling)) => Some(app.compile(&calling, "tools")?),
            (None, None) => None,
        };
        let named = tools.as_ref().is_some_and(|tools| matches!(tools.choice, Choice::Named(_)));
        let calls = tools.map(|tools| {
            let names = tools.callable().map(|function| function.name.clone()).collect();
            Calls::new(dialect, names, tools.parallel)
        });
        let asked = Asked { endpoint: Endpoint::Chat, adapter, form, top_logprobs, calls };
        let mut questions = asked.questions(app, &parameters, vec![prompt])?;
        let prediction = encode_prediction(app, &prediction)?;
        questions.iter_mut().for_each(|question| question.request.prediction = prediction.clone());
        Ok(Order::new(parameters, questions, named))
    }

    fn read_completion(app: &App, body: &[u8]) -> Result<Order, ApiError> {
        let CompletionRequest { parameters, prompts, form, top_logprobs } =
            CompletionRequest::read(body, draw_seed()?)?;
        let adapter = app.find(&parameters.model)?;
        let encode = |prompt| match prompt {
            Prompt::Tokens(tokens) => Ok(tokens),
            Prompt::Text(text) => encode(app, Endpoint::Completions, &text, true),
        };
        let prompts = prompts.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let form = form.map(|form| app.compile(&form, "response_format")).transpose()?;
        let asked = Asked { endpoint: Endpoint::Completions, adapter, form, top_logprobs, calls: None };
        let questions = asked.questions(app, &parameters, prompts)?;
        Ok(Order::new(parameters, questions, false))
    }

    fn new(parameters: Parameters, questions: Vec<Question>, named: bool) -> Order {
        let Parameters { model, stream, include_usage, tier, .. } = parameters;
        Order { model, questions, stream, include_usage, named, tier }
    }
}

/// What all choices of a request share beside its parameters.
struct Asked {
    endpoint: Endpoint,
    adapter: Option<Arc<AdapterHandle>>,
    form: Option<Arc<Grammar>>,
    top_logprobs: Option<usize>,
    calls: Option<Calls>,
}

impl Asked {
    /// One question for each choice: `n` to each prompt. Those of one prompt have seeds that follow each other if the
    /// client gave the first, and otherwise seeds of their own.
    fn questions(&self, app: &App, parameters: &Parameters, prompts: Vec<Vec<u32>>) -> Result<Vec<Question>, ApiError> {
        let count = prompts.len().saturating_mul(parameters.n);
        if count > CHOICES_MAX {
            let message = format!("the request asks for {count} answers, and may for {CHOICES_MAX}");
            return Err(ApiError::invalid("n", message));
        }
        let mut questions = Vec::with_capacity(count);
        for prompt in prompts {
            for number in 0..parameters.n {
                let mut question = self.question(app, parameters, prompt.clone())?;
                let seed = &mut question.request.sampling.seed;
                if parameters.seed_from_client {
                    *seed = seed.wrapping_add(number as u64);
                } else if !questions.is_empty() {
                    *seed = draw_seed()?;
                }
                question.counted = number == 0;
                questions.push(question);
            }
        }
        Ok(questions)
    }

    fn question(&self, app: &App, parameters: &Parameters, prompt: Vec<u32>) -> Result<Question, ApiError> {
        let param = self.endpoint.prompt_parameter();
        let context = app.engine.config().context;
        let left = context.saturating_sub(prompt.len());
        let tokens_max = parameters.tokens_max.unwrap_or(match self.endpoint {
            Endpoint::Chat => left.max(1),
            Endpoint::Completions => left.clamp(1, COMPLETION_TOKENS.max(parameters.tokens_min)),
        });
        if tokens_max > left {
            return Err(ApiError::too_long(param, prompt.len(), tokens_max, context));
        }
        if parameters.tokens_min > tokens_max {
            let message = format!("'min_tokens' is {} and the answer has at most {tokens_max}", parameters.tokens_min);
            return Err(ApiError::invalid("min_tokens", message));
        }
        if self.form.is_some() && parameters.ignore_end {
            let message = "'ignore_eos' cannot be asked for together with a form: the answer ends where the form does";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        let mut stop_tokens = if parameters.ignore_end { vec![] } else { app.engine.text().end_tokens().to_vec() };
        stop_tokens.extend(&parameters.stop_tokens);
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        let shaping = Shaping {
            adjust: parameters.adjust.clone(),
            tokens_min: parameters.tokens_min,
            form: self.form.clone(),
            top_logprobs: self.top_logprobs,
        };
        let request = Request {
            adapter: self.adapter.clone(),
            sampling: parameters.sampling,
            stop_tokens,
            stop_strings: parameters.stops.clone(),
            shaping,
            priority: match parameters.tier {
                Some(Tier::Flex) => Priority::Low,
                Some(Tier::Default) | None => Priority::Normal,
            },
            ..Request::new(prompt, tokens_max)
        };
        let chat = self.endpoint == Endpoint::Chat;
        let seed_from_client = parameters.seed_from_client;
        Ok(Question {
            request,
            seed_from_client,
            nonce: parameters.nonce.clone(),
            taken: None,
            chat,
            counted: true,
            calls: self.calls.clone(),
        })
    }
}

/// 53 bits, so that every reader of JSON can send it back as it is.
fn draw_seed() -> Result<u64, ApiError> {
    random().map(|bytes| u64::from_le_bytes(bytes) >> 11)
}

fn encode_chat(app: &App, messages: &[Message], tools: &[Value]) -> Result<Vec<u32>, ApiError> {
    let text = app.engine.text();
    if !text.has_chat_template() {
        let message =
            "this model has no chat template: use /v1/completions, or put chat_template.jinja beside the model";
        return Err(ApiError::invalid("messages", message));
    }
    let bytes = messages.iter().map(|message| message.content.len()).sum();
    check_bytes(app, "messages", bytes)?;
    text.encode_chat(messages, tools).map_err(|error| ApiError::invalid("messages", told(&error)))
}

fn encode(app: &App, endpoint: Endpoint, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let param = endpoint.prompt_parameter();
    check_bytes(app, param, text.len())?;
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

/// Tokenising what is much too long would only take long to say so.
fn check_bytes(app: &App, param: &str, bytes: usize) -> Result<(), ApiError> {
    let (context, least) = (app.engine.config().context, bytes / TOKEN_BYTES_MAX);
    if least > context { Err(ApiError::too_long(param, least, 1, context)) } else { Ok(()) }
}

/// What went wrong, without this machine's paths.
fn told(error: &model::ModelError) -> String {
    match error {
        model::ModelError::Text { what, .. } => what.clone(),
        other => other.to_string(),
    }
}
