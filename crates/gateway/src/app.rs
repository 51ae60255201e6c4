//! What all requests share.

use crate::draft::{Base, Question};
use crate::error::ApiError;
use crate::hex;
use crate::recorder::Recorder;
use crate::server::Limits;
use engine::{Engine, Event};
use model::Adapter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};

/// Names told to a client that asks for a model that is not there.
const NAMES_SHOWN: usize = 20;

/// The engine, the names it is known by, and the receipts it leaves.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) base_name: String,
    pub(crate) adapters: BTreeMap<String, Arc<Adapter>>,
    pub(crate) base: Base,
    pub(crate) recorder: Recorder,
    pub(crate) limits: Limits,
    /// When the server started.
    pub(crate) created_seconds: u64,
    /// One permit for each prompt being turned into tokens.
    pub(crate) tokenising: Arc<Semaphore>,
    /// One permit for each KiB of bodies in memory.
    pub(crate) bodies: Arc<Semaphore>,
}

impl App {
    /// The adapter behind a model's name; none for the base.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Arc<Adapter>>, ApiError> {
        if name == self.base_name {
            return Ok(None);
        }
        match self.adapters.get(name) {
            Some(adapter) => Ok(Some(adapter.clone())),
            None => Err(self.no_such_model(name)),
        }
    }

    fn no_such_model(&self, name: &str) -> ApiError {
        let names: Vec<&str> =
            std::iter::once(&self.base_name).chain(self.adapters.keys()).map(String::as_str).collect();
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
