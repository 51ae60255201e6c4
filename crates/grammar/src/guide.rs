//! Masks computed on threads of their own, while the model computes the logits they are for.

use crate::{Grammar, GrammarError, Matcher};
use exact::adjust::Mask;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a mask is waited for. The limits make it milliseconds; this is for a machine that stands still.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for the largest forms; taken only where it is used.
const STACK_BYTES: usize = 64 << 20;

/// Threads that compute masks. They end with it.
pub struct Guides {
    jobs: Sender<Job>,
}

type Job = Arc<Slot>;

/// Where a matcher and its next mask are.
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    /// The next mask is being computed.
    Waiting(Box<Matcher>),
    Working,
    Ready(Box<Matcher>, Arc<Mask>),
    Failed(GrammarError),
}

impl Guides {
    /// Starts threads.
    ///
    /// # Errors
    /// The operating system gives none.
    pub fn start(threads: usize) -> std::io::Result<Guides> {
        let (jobs, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..threads.max(1) {
            let inbox = Arc::clone(&inbox);
            let thread = std::thread::Builder::new().name(format!("masks-{number}")).stack_size(STACK_BYTES);
            thread.spawn(move || work(&inbox))?;
        }
        Ok(Guides { jobs })
    }

    /// Begins an answer; its first mask is computed at once.
    pub fn guide(&self, grammar: &Grammar) -> Guide {
        let state = Mutex::new(State::Waiting(Box::new(grammar.matcher())));
        let slot = Arc::new(Slot { state, changed: Condvar::new() });
        // If the threads are gone, whoever waits for the mask is told.
        let _ = self.jobs.send(slot.clone());
        Guide { slot, jobs: self.jobs.clone() }
    }
}

fn work(inbox: &Mutex<Receiver<Job>>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(slot) = job else { return };
        let State::Waiting(mut matcher) = std::mem::replace(&mut *slot.lock(), State::Working) else { continue };
        let state = match matcher.mask() {
            Ok(mask) => State::Ready(matcher, Arc::new(mask)),
            Err(error) => State::Failed(error),
        };
        *slot.lock() = state;
        slot.changed.notify_all();
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows one answer. Dropping it gives up.
pub struct Guide {
    slot: Arc<Slot>,
    jobs: Sender<Job>,
}

impl Guide {
    /// The tokens that may come next. Waits for it if it is not ready.
    ///
    /// # Errors
    /// The limits are reached, or it takes too long.
    pub fn mask(&self) -> Result<Arc<Mask>, GrammarError> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.slot.lock();
        loop {
            match &*state {
                State::Ready(_, mask) => return Ok(mask.clone()),
                State::Failed(error) => return Err(error.clone()),
                State::Waiting(_) | State::Working => {}
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or(GrammarError::Late)?;
            state = self.slot.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes in the token that was drawn under the mask; the next mask is computed from now on. Gives whether the form
    /// is complete and nothing can follow.
    ///
    /// # Errors
    /// As [`Guide::mask`] and [`Matcher::accept`].
    pub fn accept(&self, token: u32) -> Result<bool, GrammarError> {
        self.mask()?;
        let mut state = self.slot.lock();
        let State::Ready(mut matcher, _) = std::mem::replace(&mut *state, State::Working) else {
            return Err(GrammarError::Late);
        };
        match matcher.accept(token) {
            Ok(true) => {
                *state = State::Failed(GrammarError::Token("the form is complete".to_owned()));
                return Ok(true);
            }
            Ok(false) => *state = State::Waiting(matcher),
            Err(error) => {
                *state = State::Failed(error.clone());
                return Err(error);
            }
        }
        drop(state);
        let _ = self.jobs.send(self.slot.clone());
        Ok(false)
    }
}
