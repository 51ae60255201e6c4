//! How often keys may ask: so many requests and so many tokens a minute.
//!
//! Each allowance is a bucket that fills evenly and holds a minute's worth. Requests are taken when they come; tokens when
//! they are known: those of the prompt at once, those of the answer at its end, so a bucket may owe, and then nothing more
//! is admitted until it is full enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a key may ask for in a minute.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    /// Requests; none is no bound.
    pub requests: Option<u32>,
    /// Tokens of prompts and answers; none is no bound.
    pub tokens: Option<u32>,
}

/// A bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What is in it, at `at`; less than nothing is owed.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Lets in what flowed since.
    fn fill(&mut self, a_minute: u32, now: Instant) {
        let flowed = now.saturating_duration_since(self.at).as_secs_f64() / 60.0 * f64::from(a_minute);
        (self.level, self.at) = ((self.level + flowed).min(f64::from(a_minute)), now);
    }

    /// When there is as much in it as is needed, from now.
    fn wait(&self, needed: f64, a_minute: u32) -> Duration {
        Duration::from_secs_f64(((needed - self.level) / f64::from(a_minute.max(1)) * 60.0).clamp(0.0, 3600.0))
    }
}

/// The buckets of all keys.
#[derive(Default)]
pub(crate) struct Paces {
    buckets: Mutex<HashMap<(Arc<str>, Kind), Bucket>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Requests,
    Tokens,
}

/// What there is too much of, and when to come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuch {
    pub(crate) what: &'static str,
    pub(crate) a_minute: u32,
    pub(crate) wait: Duration,
}

impl Paces {
    /// Admits a request with a prompt of so many tokens.
    pub(crate) fn admit(
        &self,
        key: &Arc<str>,
        allowance: &Allowance,
        prompt: u64,
        now: Instant,
    ) -> Result<(), TooMuch> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = [(Kind::Requests, allowance.requests, 1.0), (Kind::Tokens, allowance.tokens, prompt as f64)];
        for (kind, a_minute, _) in asked {
            let Some(a_minute) = a_minute else { continue };
            let full = Bucket { level: f64::from(a_minute), at: now };
            let bucket = buckets.entry((key.clone(), kind)).or_insert(full);
            bucket.fill(a_minute, now);
            let what = if kind == Kind::Requests { "requests" } else { "tokens" };
            if bucket.level < 1.0 {
                return Err(TooMuch { what, a_minute, wait: bucket.wait(1.0, a_minute) });
            }
        }
        for (kind, _, amount) in asked {
            if let Some(bucket) = buckets.get_mut(&(key.clone(), kind)) {
                bucket.level -= amount;
            }
        }
        Ok(())
    }

    /// An answer of so many tokens came.
    pub(crate) fn count(&self, key: &Arc<str>, tokens: u64) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&(key.clone(), Kind::Tokens)) {
            bucket.level -= tokens as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_admitted_as_the_bucket_fills() {
        let (paces, start) = (Paces::default(), Instant::now());
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        let allowance = Allowance { requests: Some(3), tokens: None };
        let admit = |key, seconds| paces.admit(key, &allowance, 5, start + Duration::from_secs(seconds));
        (0..3).for_each(|_| admit(&ada, 0).unwrap());
        let refused = admit(&ada, 0).unwrap_err();
        assert_eq!((refused.what, refused.a_minute, refused.wait), ("requests", 3, Duration::from_secs(20)));
        admit(&bob, 0).unwrap();
        assert!(admit(&ada, 19).is_err());
        admit(&ada, 20).unwrap();
        assert!(admit(&ada, 21).is_err());
        // However long it fills, it holds a minute's worth.
        (0..3).for_each(|_| admit(&ada, 1000).unwrap());
        assert!(admit(&ada, 1000).is_err());
    }

    #[test]
    fn long_answers_are_owed() {
        let (paces, start) = (Paces::default(), Instant::now());
        let ada: Arc<str> = "ada".into();
        let allowance = Allowance { requests: None, tokens: Some(60) };
        let admit = |prompt, seconds| paces.admit(&ada, &allowance, prompt, start + Duration::from_secs(seconds));
        admit(50, 0).unwrap();
        paces.count(&ada, 70);
        let refused = admit(1, 0).unwrap_err();
        assert_eq!((refused.what, refused.wait), ("tokens", Duration::from_secs(61)));
        assert!(admit(1, 60).is_err());
        admit(1, 61).unwrap();
    }
}
