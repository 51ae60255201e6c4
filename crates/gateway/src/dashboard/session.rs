//! Who looks: sessions, what they may see and change, and the token without which no form is acted upon.
//!
//! | who | sees | changes |
//! |---|---|---|
//! | anybody, where there are no keys and only this machine reaches the server | everything | what the API lets anybody do |
//! | a customer's key | its own answers and account, and the published statistics | nothing |
//! | the administrator's key | everything | everything |
//!
//! A session is a random number in a cookie that scripts cannot read and that other sites' pages do not send. Every visitor
//! has such a cookie, signed in or not; a form carries a token made from it, which pages of others cannot know.

use crate::app::{App, random};
use crate::error::ApiError;
use crate::hex;
use axum::http::{HeaderMap, header};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const COOKIE: &str = "lockstep";
/// How long a session lasts.
pub(crate) const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; beyond, the one that ends first goes.
const SESSIONS_MAX: usize = 10_000;

/// What somebody may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Viewer {
    /// Only how to sign in.
    Nobody,
    /// What this key may see.
    Customer(Arc<str>),
    Everything,
}

/// Somebody, as a request shows.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) viewer: Viewer,
    /// Whether adapters may be changed.
    pub(crate) may_change: bool,
    /// Whether there is a session to end.
    pub(crate) signed_in: bool,
    /// The cookie, and whether it is new.
    pub(crate) cookie: (String, bool),
    /// What forms must carry; none is asked of programs that send a key in a header.
    pub(crate) token: Option<String>,
}

/// Sessions, in memory: a restart ends them.
pub(crate) struct Sessions {
    secret: [u8; 32],
    known: Mutex<HashMap<blake3::Hash, (Viewer, Instant)>>,
}

impl Sessions {
    pub(crate) fn new() -> Result<Sessions, ApiError> {
        Ok(Sessions { secret: random()?, known: Mutex::default() })
    }

    /// Begins a session; gives its cookie.
    pub(crate) fn begin(&self, viewer: Viewer) -> Result<String, ApiError> {
        let cookie = hex::encode(&random::<32>()?);
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, ends)| *ends > now);
        if known.len() >= SESSIONS_MAX
            && let Some(first) = known.iter().min_by_key(|(_, (_, ends))| *ends).map(|(id, _)| *id)
        {
            known.remove(&first);
        }
        known.insert(blake3::hash(cookie.as_bytes()), (viewer, now + LASTS));
        Ok(cookie)
    }

    /// Ends a session.
    pub(crate) fn end(&self, cookie: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&blake3::hash(cookie.as_bytes()));
    }

    fn find(&self, cookie: &str) -> Option<Viewer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (viewer, ends) = known.get(&blake3::hash(cookie.as_bytes()))?;
        (*ends > Instant::now()).then(|| viewer.clone())
    }

    fn token(&self, cookie: &str) -> blake3::Hash {
        blake3::keyed_hash(&self.secret, cookie.as_bytes())
    }

    /// Whether a form may be acted upon.
    pub(crate) fn check(&self, visitor: &Visitor, sent: Option<&str>) -> Result<(), ApiError> {
        if visitor.token.is_none() {
            return Ok(());
        }
        let sent = sent.and_then(|token| blake3::Hash::from_hex(token).ok());
        // Hashes compare in constant time. A new cookie was not there when the form was made.
        if !visitor.cookie.1 && sent.is_some_and(|sent| sent == self.token(&visitor.cookie.0)) {
            return Ok(());
        }
        Err(ApiError::forbidden("this form is not from this session's pages: go back, reload the page and try again"))
    }
}

/// Who sent a request.
pub(crate) fn visitor(app: &App, headers: &HeaderMap) -> Result<Visitor, ApiError> {
    let sessions = &app.dashboard.sessions;
    let cookie = match cookie(headers) {
        Some(cookie) => (cookie, false),
        None => (hex::encode(&random::<32>()?), true),
    };
    let keyed = headers.get(header::AUTHORIZATION).and_then(|value| viewer_of_header(app, value.as_bytes()));
    let session = sessions.find(&cookie.0);
    let token = keyed.is_none().then(|| sessions.token(&cookie.0).to_hex().to_string());
    let signed_in = keyed.is_none() && session.is_some();
    let open = || if is_open(app, headers) { Viewer::Everything } else { Viewer::Nobody };
    let known = keyed.or(session);
    // Where everything is open, seeing everything is not being the administrator.
    let is_admin = known == Some(Viewer::Everything);
    let viewer = known.unwrap_or_else(open);
    let may_change = is_admin || (app.admin.is_none() && viewer == Viewer::Everything);
    Ok(Visitor { viewer, may_change, signed_in, cookie, token })
}

/// Whose key this is.
pub(crate) fn viewer_of(app: &App, key: &[u8]) -> Option<Viewer> {
    if app.admin.is_some_and(|admin| blake3::hash(key) == admin) {
        return Some(Viewer::Everything);
    }
    app.keys.find(key).map(Viewer::Customer)
}

fn viewer_of_header(app: &App, value: &[u8]) -> Option<Viewer> {
    let (scheme, key) = value.split_at_checked(7)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") { viewer_of(app, key.trim_ascii()) } else { None }
}

/// Whether everything is shown without a key: there are none, and only this machine reaches the server. The address must be
/// asked for as such, or a page from elsewhere could have its own name lead here.
fn is_open(app: &App, headers: &HeaderMap) -> bool {
    if !app.keys.is_empty() || !app.dashboard.is_private() {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok()
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    hex::decode::<32>(value).map(|_| value.to_owned())
}

/// The header that sets a cookie.
pub(crate) fn set(cookie: &str) -> String {
    format!("{COOKIE}={cookie}; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age={}", LASTS.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_its_cookie_until_it_ends() {
        let sessions = Sessions::new().unwrap();
        let cookie = sessions.begin(Viewer::Everything).unwrap();
        let other = sessions.begin(Viewer::Customer("ada".into())).unwrap();
        assert_eq!(sessions.find(&cookie), Some(Viewer::Everything));
        assert_eq!(sessions.find(&"0".repeat(64)), None);
        sessions.end(&cookie);
        assert_eq!(sessions.find(&cookie), None);
        assert_eq!(sessions.find(&other), Some(Viewer::Customer("ada".into())));
        assert_ne!(sessions.token(&cookie), sessions.token(&other));
    }

    #[test]
    fn there_is_a_bound_to_sessions() {
        let sessions = Sessions::new().unwrap();
        for _ in 0..SESSIONS_MAX + 5 {
            sessions.begin(Viewer::Everything).unwrap();
        }
        assert_eq!(sessions.known.lock().unwrap().len(), SESSIONS_MAX);
    }
}
