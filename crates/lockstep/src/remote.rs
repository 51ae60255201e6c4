//! Logs and witnesses that are reached over HTTP, and logs in folders.

use crate::failure::Failure;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use tlog::{Folder, LogError, Source};

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client with a deadline for everything.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false).build();
    config.into()
}

/// A log: its folder, or the address it is served at.
pub(crate) enum Place {
    Folder(Folder),
    Served { address: String, agent: ureq::Agent },
}

impl Place {
    /// From what was typed: an address begins with http:// or https://.
    pub(crate) fn parse(text: &str) -> Place {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Place::Served { address: text.trim_end_matches('/').to_owned(), agent: agent() };
        }
        Place::Folder(Folder(PathBuf::from(text)))
    }
}

impl Source for Place {
    fn get(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        match self {
            Place::Folder(folder) => folder.get(path, bytes_max),
            Place::Served { address, agent } => {
                let what = format!("{address}/{path}");
                fetch(agent, &what, bytes_max).map_err(|failure| LogError::Fetch { what, why: failure.0 })
            }
        }
    }
}

/// The body of a successful answer.
pub(crate) fn fetch(agent: &ureq::Agent, address: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut answer = agent.get(address).call().map_err(|error| Failure(error.to_string()))?;
    if !answer.status().is_success() {
        return Err(Failure(format!("the server answered {}", answer.status())));
    }
    body(&mut answer, bytes_max)
}

/// A body of at most so many bytes.
pub(crate) fn body(answer: &mut ureq::http::Response<ureq::Body>, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![];
    let read = answer.body_mut().as_reader().take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure(error.to_string()))?;
    if bytes.len() > bytes_max {
        return Err(Failure("the answer is too large".to_owned()));
    }
    Ok(bytes)
}
