//! The caller's trace, as W3C's Trace Context tells it: `traceparent` and `tracestate`.

use crate::hex;
use axum::http::HeaderMap;

/// Bytes of `tracestate` that are passed on; longer ones are left out whole.
const STATE_BYTES_MAX: usize = 512;

/// The span that a request is part of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) parent: [u8; 8],
    /// Whether the caller records its part.
    pub(super) sampled: bool,
    pub(super) state: String,
}

impl Context {
    /// None if there is no valid one: the request then begins a trace of its own.
    pub(super) fn read(headers: &HeaderMap) -> Option<Context> {
        let mut parents = headers.get_all("traceparent").iter();
        let (parent, None) = (parents.next()?.to_str().ok()?, parents.next()) else { return None };
        let states = headers.get_all("tracestate").iter().map(|state| state.to_str().ok());
        let state = states.collect::<Option<Vec<_>>>().unwrap_or_default().join(",");
        let context = Context::parse(parent)?;
        Some(Context { state: if state.len() > STATE_BYTES_MAX { String::new() } else { state }, ..context })
    }

    /// `VERSION-TRACE-PARENT-FLAGS`; versions to come may say more after that.
    fn parse(text: &str) -> Option<Context> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex::decode(parts.next()?)?;
        let (trace, parent) = (hex::decode(parts.next()?)?, hex::decode(parts.next()?)?);
        let flags: [u8; 1] = hex::decode(parts.next()?)?;
        let more = parts.next().is_some();
        let valid = version != [0xff] && !(version == [0] && more) && trace != [0; 16] && parent != [0; 8];
        valid.then(|| Context { trace, parent, sampled: flags[0] & 1 == 1, state: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_callers_span_is_read_as_the_standard_writes_it() {
        let got = Context::parse(&format!("00-{TRACE}-{PARENT}-01")).unwrap();
        assert_eq!((hex::encode(&got.trace), hex::encode(&got.parent)), (TRACE.to_owned(), PARENT.to_owned()));
        assert!(got.sampled);
        assert!(!Context::parse(&format!("00-{TRACE}-{PARENT}-00")).unwrap().sampled);
        assert!(Context::parse(&format!("01-{TRACE}-{PARENT}-03-more")).unwrap().sampled);
    }

    #[test]
    fn what_is_no_span_is_passed_over() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
        ] {
            assert_eq!(Context::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none_and_long_states_are_left_out() {
        let parent = format!("00-{TRACE}-{PARENT}-01");
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        assert_eq!(Context::read(&headers).unwrap().state, "a=1,b=2");
        headers.append("tracestate", "c".repeat(600).parse().unwrap());
        assert_eq!(Context::read(&headers).unwrap().state, "");
        headers.append("traceparent", parent.parse().unwrap());
        assert_eq!(Context::read(&headers), None);
    }
}
