//! API keys: who may use the server, and under what name.
//!
//! A server without keys serves everybody. A file of keys has one line for each, `NAME HASH`: the hash is BLAKE3 of the
//! key in hexadecimal, so the file opens nothing to whoever reads it. What the key may do follows, if it is bounded:
//! `budget=5.00` (dollars it may spend beyond what is paid in), `requests=60` and `tokens=100000` (a minute). Keys are random and long, which is why one hash
//! without a salt is enough.

use crate::app::random;
use crate::error::ApiError;
use crate::hex;
use crate::pace::Allowance;
use crate::start::StartError;
use axum::http::{HeaderMap, header};
use ledger::Micros;
use std::path::Path;
use std::sync::Arc;

/// What every new key starts with.
const PREFIX: &str = "lsk-";
/// What is wrong with what a key may do.
const BOUNDS: &str = "after the hash may come budget=DOLLARS, requests=COUNT and tokens=COUNT (a minute)";
/// Bytes a file of keys may have.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The keys of a server.
#[derive(Clone, Default)]
pub struct Keys {
    known: Vec<Key>,
}

/// A key.
#[derive(Clone)]
struct Key {
    name: Arc<str>,
    hash: blake3::Hash,
    budget: Micros,
    allowance: Allowance,
}

impl Key {
    fn new(name: &str, hash: blake3::Hash) -> Key {
        Key { name: name.into(), hash, budget: Micros::ZERO, allowance: Allowance::default() }
    }

    /// Reads what a key may do.
    fn bounded(mut self, words: &str) -> Result<Key, &'static str> {
        for word in words.split_whitespace() {
            let (what, value) = word.split_once('=').ok_or(BOUNDS)?;
            let count = || value.parse().ok().filter(|count| *count > 0).ok_or(BOUNDS);
            match what {
                "budget" => {
                    self.budget = value.parse().ok().filter(|budget: &Micros| budget.is_amount()).ok_or(BOUNDS)?
                }
                "requests" => self.allowance.requests = Some(count()?),
                "tokens" => self.allowance.tokens = Some(count()?),
                _ => return Err(BOUNDS),
            }
        }
        Ok(self)
    }
}

/// Whose request it is; none if the server has no keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller(pub(crate) Option<Arc<str>>);

impl Keys {
    /// Reads a file of keys. Empty lines and those that start with `#` are passed over.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a name and a hash.
    pub fn read(path: &Path) -> Result<Keys, StartError> {
        let bytes = std::fs::metadata(path).map_err(StartError::file(path))?.len();
        let wrong = |line, what| StartError::Keys { path: path.to_owned(), line, what };
        if bytes > FILE_BYTES_MAX {
            return Err(wrong(0, "the file is too large to be a list of keys"));
        }
        let text = std::fs::read_to_string(path).map_err(StartError::file(path))?;
        let mut keys = Keys::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, rest) = line.split_once(' ').ok_or_else(|| wrong(number, "a line is a name and a hash"))?;
            let (hash, bounds) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
            let hash: [u8; 32] =
                hex::decode(hash).ok_or_else(|| wrong(number, "the hash must have 64 hexadecimal digits"))?;
            if keys.known.iter().any(|known| *known.name == *name) {
                return Err(wrong(number, "a key before has the same name"));
            }
            let key = Key::new(name, hash.into()).bounded(bounds).map_err(|what| wrong(number, what))?;
            keys.known.push(key);
        }
        if keys.known.is_empty() {
            return Err(wrong(0, "there is no key in it: nobody could use the server"));
        }
        Ok(keys)
    }

    /// Adds a key as it is.
    pub fn add(&mut self, name: &str, key: &str) {
        self.known.push(Key::new(name, blake3::hash(key.as_bytes())));
    }

    /// Every name, and what it may spend beyond what it has paid in.
    pub(crate) fn budgets(&self) -> Vec<(String, Micros)> {
        self.known.iter().map(|key| (key.name.to_string(), key.budget)).collect()
    }

    /// What a key may ask for in a minute.
    pub(crate) fn allowance(&self, name: &str) -> Allowance {
        self.known.iter().find(|key| *key.name == *name).map(|key| key.allowance).unwrap_or_default()
    }

    /// A new key, and its line for the file.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn create(name: &str) -> Result<(String, String), StartError> {
        let bytes: [u8; 24] = random().map_err(|_| StartError::Random(getrandom::Error::UNSUPPORTED))?;
        let key = format!("{PREFIX}{}", hex::encode(&bytes));
        let line = format!("{name} {}", blake3::hash(key.as_bytes()).to_hex());
        Ok((key, line))
    }

    /// Whose key a request carries.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.known.is_empty() {
            return Ok(Caller(None));
        }
        let value =
            headers.get(header::AUTHORIZATION).ok_or_else(|| ApiError::no_key("You didn't provide an API key"))?;
        let value = value.as_bytes();
        let key = match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(ApiError::no_key("The API key must come as a bearer token")),
        };
        match self.find(key) {
            Some(name) => Ok(Caller(Some(name))),
            None => Err(ApiError::no_key("Incorrect API key provided")),
        }
    }

    /// Whether there are none: everybody is served.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The name of a key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Arc<str>> {
        let hash = blake3::hash(key);
        // All are compared, each in the same time whatever it holds: how long it takes tells nothing.
        let mut found = None;
        for key in &self.known {
            if key.hash == hash {
                found = Some(key.name.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_key_from_a_file_is_known_by_its_name_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let ((key, line), (other, other_line)) = (Keys::create("ada").unwrap(), Keys::create("bob").unwrap());
        std::fs::write(&path, format!("# keys\n\n{line}\n{other_line}\n")).unwrap();
        assert!(!line.contains(&key[4..]));
        let keys = Keys::read(&path).unwrap();
        for (scheme, key, name) in [("Bearer", &key, "ada"), ("bearer", &other, "bob")] {
            let caller = keys.caller(&headers(&format!("{scheme} {key}"))).unwrap();
            assert_eq!(caller.0.as_deref(), Some(name));
        }
        for wrong in [format!("Bearer {key}x"), format!("Basic {key}"), key.clone(), "Bearer ".into(), String::new()] {
            assert_eq!(keys.caller(&headers(&wrong)).unwrap_err().status, 401, "{wrong}");
        }
        assert!(keys.caller(&HeaderMap::new()).is_err());
        assert_eq!(Keys::default().caller(&HeaderMap::new()), Ok(Caller(None)));
    }

    #[test]
    fn files_that_hold_no_keys_are_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let hash = "0".repeat(64);
        for (text, at) in
            [("", 0), ("# none\n", 0), ("ada\n", 1), ("\nada xyz\n", 2), (&format!("a {hash}\na {hash}"), 2)]
        {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Keys::read(&path), Err(StartError::Keys { line, .. }) if line == at), "{text}");
        }
        for bounds in ["budget=x", "budget=-1", "requests=0", "tokens=-5", "requests=1.5", "speed=9", "budget"] {
            std::fs::write(&path, format!("a {hash} {bounds}")).unwrap();
            assert!(matches!(Keys::read(&path), Err(StartError::Keys { line: 1, .. })), "{bounds}");
        }
        std::fs::write(&path, format!("a {hash} budget=2.5 tokens=7")).unwrap();
        let keys = Keys::read(&path).unwrap();
        assert_eq!(keys.budgets(), [("a".to_owned(), Micros(2_500_000))]);
        assert_eq!(keys.allowance("a"), Allowance { requests: None, tokens: Some(7) });
    }
}
