//! What all requests share.

use crate::billing::Billing;
use crate::dashboard::Dashboard;
use crate::device_time::DeviceTime;
use crate::draft::{Base, Question};
use crate::error::ApiError;
use crate::hex;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::pace::Paces;
use crate::recorder::Recorder;
use crate::server::Limits;
use crate::trace::Traces;
use engine::{AdapterHandle, Engine, Event};
use grammar::{Grammar, GrammarError, Source, Vocabulary};
use ledger::AccountId;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// Names told to a client that asks for a model that is not there.
const NAMES_SHOWN: usize = 20;

/// The engine, the names it is known by, and the receipts it leaves.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) base_name: String,
    pub(crate) base: Base,
    pub(crate) recorder: Recorder,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    pub(crate) device_time: DeviceTime,
    pub(crate) dashboard: Dashboard,
    pub(crate) keys: Keys,
    pub(crate) paces: Paces,
    /// Who is charged for what; without it nobody is.
    pub(crate) billing: Option<Arc<Billing>>,
    /// The account of whoever operates this node.
    pub(crate) operator: AccountId,
    /// When the server started.
    pub(crate) created_seconds: u64,
    /// One permit for each prompt being turned into tokens.
    pub(crate) tokenising: Arc<Semaphore>,
    /// One permit for each request with a form being compiled: apart, so that no form keeps a plain prompt waiting.
    pub(crate) forming: Arc<Semaphore>,
    /// The tokenizer's tokens as forms need them; made when the first form is asked for.
    pub(crate) vocabulary: OnceLock<Result<Arc<Vocabulary>, GrammarError>>,
    /// One permit for each KiB of bodies in memory.
    pub(crate) bodies: Arc<Semaphore>,
    /// One permit for an adapter being loaded on a client's behalf.
    pub(crate) loading: Arc<Semaphore>,
    /// Hash of the key that changing adapters takes; without one, whoever reaches the server may.
    pub(crate) admin: Option<blake3::Hash>,
}

impl App {
    /// The adapter behind a model's name; none for the base.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Arc<AdapterHandle>>, ApiError> {
        if name == self.base_name {
            return Ok(None);
        }
        match self.engine.adapters().find(name) {
            Some(adapter) => Ok(Some(adapter)),
            None => Err(self.no_such_model(name)),
        }
    }

    /// Makes sure that an adapter's digest is known: seeds and receipts commit to it. Takes as long as loading does, the
    /// first time that the adapter is asked for.
    pub(crate) async fn identify(&self, adapter: &Arc<AdapterHandle>, deadline: Instant) -> Result<(), ApiError> {
        if adapter.digest().is_some() {
            return Ok(());
        }
        let turn = timeout_at(deadline, Arc::clone(&self.loading).acquire_owned()).await;
        let permit = turn.map_err(|_| ApiError::deadline(self.limits.answer_deadline.as_secs()))?;
        let (engine, adapter) = (self.engine.clone(), adapter.clone());
        let identified = tokio::task::spawn_blocking(move || {
            let identified = engine.identify(&adapter);
            drop(permit);
            identified
        });
        let identified = identified.await.map_err(|error| ApiError::server(format!("loading broke off: {error}")))?;
        identified.map_err(|error| ApiError { code: Some("adapter_failed"), ..ApiError::server(error.to_string()) })
    }

    /// Compiles what an answer is to be held to; `param` is where it came from. Takes long for large ones.
    pub(crate) fn compile(&self, source: &Source, param: &str) -> Result<Arc<Grammar>, ApiError> {
        let vocabulary = self.vocabulary.get_or_init(|| Vocabulary::new(self.engine.text()));
        let vocabulary = vocabulary.as_ref().map_err(|error| ApiError::unsupported(param, &error.to_string()))?;
        vocabulary.compile(source).map_err(|error| {
            let message = format!("'{param}' cannot be kept to: {error}");
            ApiError { code: Some("invalid_form"), ..ApiError::invalid(param, message) }
        })
    }

    fn no_such_model(&self, name: &str) -> ApiError {
        let adapters = self.engine.adapters().list();
        let names: Vec<&str> =
            std::iter::once(self.base_name.as_str()).chain(adapters.iter().map(|adapter| adapter.name())).collect();
        let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
        let more = match names.len().saturating_sub(NAMES_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more (GET /v1/models)"),
        };
        let short: String = name.chars().take(200).collect();
        let message = format!("The model '{short}' does not exist. Models here: {shown}{more}.");
        ApiError { code: Some("model_not_found"), param: Some("model".to_owned()), ..ApiError::not_found(message) }
    }

    /// Queues a question; `param` is where its prompt came from.
    pub(crate) fn submit(&self, question: &Question, param: &str) -> Result<mpsc::Receiver<Event>, ApiError> {
        self.engine.submit(question.request.clone()).map_err(|refusal| ApiError::refused(&refusal, param))
    }

    /// What decides answers beside the request: the arithmetic and the base.
    pub(crate) fn fingerprint(&self) -> String {
        format!("lockstep-{}-{}", exact::VERSION, hex::encode(&self.engine.model().digest[..6]))
    }
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(ApiError::server(format!("the operating system gives no random numbers: {error}"))),
    }
}
