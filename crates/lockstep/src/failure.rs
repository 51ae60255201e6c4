//! Why a command could not do its work, in words for the person who typed it.

/// An error message, complete as it stands.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure(error.to_string())
            }
        })*
    };
}
from!(model::ModelError, exact::IsaError, cuda::DeviceError, serde_json::Error, tlog::LogError);
from!(ledger::LedgerError, ledger::StatementError, returns::ReturnsError);
from!(engine::Refusal, engine::Failure, engine::AdapterError, gateway::OtlpError);

/// A file or folder that could not be used, and why.
pub(crate) fn io(what: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure(format!("{}: {error}", what.display()))
}
