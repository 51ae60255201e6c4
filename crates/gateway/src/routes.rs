//! What is answered where.

use crate::answer::Answer;
use crate::app::{App, now_seconds, random};
use crate::body;
use crate::charge::Charge;
use crate::draft::Question;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::order::{Endpoint, Order};
use crate::shape::Shape;
use crate::trace::Trace;
use crate::{adapters, countersigned, dashboard, hex, log, metrics, models, receipts, stream};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Where a non-streamed answer names its receipts.
const RECEIPT_HEADER: &str = "x-lockstep-receipt";

/// Where an answer tells its seeds' numbers and secrets.
const SEED_HEADER: HeaderName = HeaderName::from_static("x-lockstep-seed");

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let chat = |State(app): State<Arc<App>>, request| complete(app, Endpoint::Chat, request);
    let completions = |State(app): State<Arc<App>>, request| complete(app, Endpoint::Completions, request);
    Router::new()
        .route("/", get(welcome))
        .route("/health", get(health))
        .route("/metrics", get(metrics::get))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models::list))
        // Names may have slashes.
        .route("/v1/models/{*id}", get(models::get))
        .route("/v1/receipts/{id}", get(receipts::get))
        .route("/v1/receipts/{id}/countersignature", get(countersigned::get).post(countersigned::post))
        .route("/v1/log/{*path}", get(log::get))
        .route("/v1/prices", get(prices))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/v1/pin_lora_adapter", post(adapters::pin))
        .route("/v1/unpin_lora_adapter", post(adapters::unpin))
        .merge(dashboard::router(app.clone()))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Whether a path wants a key. The log is for everybody, and receipts are opened by what their own address holds.
fn is_closed(app: &App, path: &str) -> bool {
    let open = ["/v1/log/", "/v1/receipts/", "/v1/prices"];
    // Changing adapters takes a key of its own, if there is one.
    let adapters = app.admin.is_some() && path.ends_with("_lora_adapter");
    path.starts_with("/v1/") && !adapters && !open.iter().any(|open| path.starts_with(open))
}

/// Asks for a key where one is needed, and counts what is refused.
async fn guard(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match app.keys.caller(request.headers()) {
        Err(error) if is_closed(&app, &path) => error.into_response(),
        caller => {
            request.extensions_mut().insert(caller.unwrap_or(Caller(None)));
            next.run(request).await
        }
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        app.metrics.error(status.as_u16());
        tracing::info!(%method, path, status = status.as_u16(), "refused");
    }
    response
}

/// A response with JSON.
pub(crate) fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn complete(app: Arc<App>, endpoint: Endpoint, request: Request<Body>) -> Result<Response, ApiError> {
    let started = Instant::now();
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller(None));
    let mut trace = app.traces.begin(endpoint, Some(request.headers()), started);
    let received = match body::receive(&app, request).await {
        Ok(received) => received,
        Err(error) => {
            trace.fail(&error);
            return Err(error);
        }
    };
    traced(app, endpoint, caller, received, started, trace).await
}

/// Answers a request whose body is here, on behalf of `caller`.
pub(crate) async fn answer(
    app: Arc<App>,
    endpoint: Endpoint,
    caller: Caller,
    received: body::Received,
    started: Instant,
) -> Result<Response, ApiError> {
    let trace = app.traces.begin(endpoint, None, started);
    traced(app, endpoint, caller, received, started, trace).await
}

async fn traced(
    app: Arc<App>,
    endpoint: Endpoint,
    caller: Caller,
    received: body::Received,
    started: Instant,
    mut trace: Trace,
) -> Result<Response, ApiError> {
    let answered = begin(app, endpoint, caller, received, started, &mut trace).await;
    if let Err(error) = &answered {
        trace.fail(error);
    }
    answered
}

/// Gives the whole answer, or the stream in which it will come, and its trace with it.
async fn begin(
    app: Arc<App>,
    endpoint: Endpoint,
    caller: Caller,
    received: body::Received,
    started: Instant,
    trace: &mut Trace,
) -> Result<Response, ApiError> {
    let tenant = tenant(&caller);
    // A flood costs no tokenising.
    if app.engine.is_draining() {
        return Err(ApiError::shutting_down());
    }
    if !app.engine.has_room(&tenant) {
        return Err(ApiError::busy());
    }
    let deadline = started + app.limits.answer_deadline;
    let order = timeout_at(deadline, read(&app, endpoint, received)).await;
    let mut order = order.map_err(|_| ApiError::deadline(app.limits.answer_deadline.as_secs()))??;
    for question in &mut order.questions {
        if let Some(adapter) = &question.request.adapter {
            app.identify(adapter, deadline).await?;
        }
        question.request.tenant = tenant;
        question.request.deadline = Some(deadline.into_std());
    }
    check_pace(&app, &caller, &order.questions)?;
    let prefix = match endpoint {
        Endpoint::Chat => "chatcmpl",
        Endpoint::Completions => "cmpl",
    };
    let id = format!("{prefix}-{}", hex::encode(&random::<16>()?));
    trace.ask(&order, &id);
    let charges = hold(&app, &caller, &id, &order, started).await?;
    let shape = Shape {
        endpoint,
        id: id.clone(),
        created_seconds: now_seconds(),
        fingerprint: app.fingerprint(),
        model: order.model,
        include_usage: order.include_usage,
        named: order.named,
        tier: order.tier,
    };
    // All are queued before the first is waited for; if one is refused, the others are dropped and so cancelled.
    let param = endpoint.prompt_parameter();
    let ask = |(question, charge)| Answer::begin(&app, question, param, caller.clone(), charge, started, deadline);
    let answers = order.questions.into_iter().zip(charges).map(ask).collect::<Result<Vec<_>, _>>()?;
    let seeds = seeds_header(&answers);
    if order.stream {
        let mut response = stream::respond(shape, answers, std::mem::take(trace));
        response.headers_mut().extend(seeds);
        return Ok(response);
    }
    let mut whole = Vec::with_capacity(answers.len());
    for (choice, answer) in answers.into_iter().enumerate() {
        let answer = answer.whole().await?;
        trace.answer(choice, &answer.end, shape.finish_reason(&answer.end));
        whole.push(answer);
    }
    let mut response = json_response(&shape.whole(&whole));
    let ids: Vec<String> = whole.iter().map(|answer| answer.end.ticket.id()).collect();
    if let Ok(ids) = HeaderValue::from_str(&ids.join(", ")) {
        response.headers_mut().insert(RECEIPT_HEADER, ids);
    }
    response.headers_mut().extend(seeds);
    Ok(response)
}

/// Whether the key may ask for as much now.
fn check_pace(app: &App, caller: &Caller, questions: &[Question]) -> Result<(), ApiError> {
    let Some(key) = &caller.0 else { return Ok(()) };
    let prompt: usize = questions.iter().map(Question::prompt_counted).sum();
    let admitted = app.paces.admit(key, &app.keys.allowance(key), prompt as u64, std::time::Instant::now());
    admitted.map_err(|too_much| ApiError::too_much(&too_much))
}

/// Holds the most that each answer can cost. If one cannot be held, the others are let go.
async fn hold(
    app: &App,
    caller: &Caller,
    id: &str,
    order: &Order,
    started: Instant,
) -> Result<Vec<Option<Charge>>, ApiError> {
    let holds = (0..).zip(&order.questions).map(|(number, question)| {
        let (id, tokens) = (format!("{id}-{number}"), (question.prompt_counted(), question.request.tokens_max));
        Charge::hold(app, caller, id, &order.model, tokens, started)
    });
    futures_util::future::join_all(holds).await.into_iter().collect()
}

/// Prices and splits, for everybody.
async fn prices(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    match &app.billing {
        Some(billing) => Ok(json_response(&billing.published())),
        None => Err(ApiError::not_found("this server charges nobody")),
    }
}

/// What the node's share of each seed is, told when the request is admitted: `NUMBER:SECRET` for each choice.
fn seeds_header(answers: &[Answer]) -> Option<(HeaderName, HeaderValue)> {
    let told = |(number, secret): (u64, receipt::Hash)| format!("{number}:{}", hex::encode(&secret));
    let seeds: Vec<String> = answers.iter().filter_map(|answer| answer.seed().map(told)).collect();
    if seeds.is_empty() {
        return None;
    }
    Some((SEED_HEADER, HeaderValue::from_str(&seeds.join(", ")).ok()?))
}

/// Whose request it is, by the key's name: tenants share the device alike, and pages are found by this too, so none finds
/// another's. Without keys there is one tenant: a header that is not checked would make as many as a client likes.
fn tenant(caller: &Caller) -> [u8; 32] {
    let Some(name) = &caller.0 else { return [0; 32] };
    *blake3::Hasher::new().update(b"lockstep tenant 2").update(name.as_bytes()).finalize().as_bytes()
}

/// Reads and tokenises on threads that may take long, a few at once.
async fn read(app: &Arc<App>, endpoint: Endpoint, received: body::Received) -> Result<Order, ApiError> {
    // Forms may take long to compile. A message that mentions one waits with them, and loses nothing else.
    let named = |name: &str| received.bytes.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    let formed = ["\"response_format\"", "\"structured_outputs\"", "\"tools\""].into_iter().any(named);
    let permits = if formed { &app.forming } else { &app.tokenising };
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| ApiError::shutting_down())?;
    let app = Arc::clone(app);
    let read = tokio::task::spawn_blocking(move || {
        let order = Order::read(&app, endpoint, &received.bytes);
        drop(permit);
        order
    });
    read.await.map_err(|error| ApiError::server(format!("the request could not be read: {error}")))?
}

async fn welcome(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let text = welcome_text(&app);
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/html") { dashboard::welcome(&text) } else { text.into_response() }
}

fn welcome_text(app: &App) -> String {
    format!(
        "Lockstep serves {} and {} adapters on it. Every answer carries a signed receipt.\n\n\
         Point an OpenAI client at /v1 on this address, with any API key:\n\
         \x20 GET  /v1/models              the base model and the adapters, by name\n\
         \x20 POST /v1/chat/completions    a conversation\n\
         \x20 POST /v1/completions         plain text\n\
         \x20 GET  /v1/receipts/ID         the receipt of an answer and what opens it (?format=json to read it)\n\
         \x20 GET  /v1/log/checkpoint       the newest head of the log of receipts, and its tiles beside it\n\
         \x20 GET  /dashboard              pages to see it, try it, and catch a cheat\n\
         \x20 GET  /metrics                what it measures, for Prometheus\n\
         \x20 GET  /health                 whether this server is well, and how full\n",
        app.base_name,
        app.engine.adapters().count(),
    )
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let load = app.engine.load();
    let well = app.recorder.is_well();
    let mut response = json_response(&json!({
        "status": if app.engine.is_draining() { "ending: no new requests" } else if well { "ok" } else { "receipts cannot be kept: the disk needs attention" },
        "node": hex::encode(&app.recorder.node()),
        "receipts": app.recorder.count(),
        "log": {"origin": app.recorder.log().origin(), "size": app.recorder.log().size()},
        "load": {
            "waiting": load.waiting,
            "running": load.running,
            "pages_used": load.pages_used,
            "pages_cached": load.pages_cached,
            "pages_total": load.pages_total,
            "adapters_resident": load.adapters_resident,
            "adapters_resident_bytes": load.adapters_resident_bytes,
            "adapters_host_bytes": load.adapters_host_bytes,
        },
    }));
    if !well || app.engine.is_draining() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn nowhere(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("There is nothing at {method} {}; GET / tells what there is.", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(method.as_str(), uri.path())
}
