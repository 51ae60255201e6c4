//! One answer on its way through a grammar.

use crate::{GrammarError, Source, Vocabulary};
use exact::adjust::Mask;
use std::sync::Arc;

/// A source that was compiled.
pub struct Grammar {
    source: Source,
    start: llguidance::Matcher,
}

/// Compiling goes down every level of a source: room for all there may be, taken only where it is used.
const STACK_BYTES: usize = 256 << 20;

impl Grammar {
    /// On a thread of its own, since what follows a source down takes more of the stack than others have.
    pub(crate) fn compile(vocabulary: &Arc<Vocabulary>, source: Source) -> Result<Grammar, GrammarError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("form".to_owned()).stack_size(STACK_BYTES);
            let compiling = thread.spawn_scoped(scope, || Grammar::compile_here(vocabulary, source));
            let failed = |what: &str| GrammarError::Source(what.to_owned());
            let compiling = compiling.map_err(|_| failed("the system has no thread to compile it; try again"))?;
            compiling.join().unwrap_or_else(|_| Err(failed("compiling it broke off")))
        })
    }

    fn compile_here(vocabulary: &Arc<Vocabulary>, source: Source) -> Result<Grammar, GrammarError> {
        let parser = vocabulary.factory.create_parser(source.read()?);
        let start = llguidance::Matcher::new(parser);
        match start.get_error() {
            Some(error) => Err(GrammarError::Source(first_line(&error))),
            None => Ok(Grammar { source, start }),
        }
    }

    /// What was compiled.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A matcher before the first token.
    pub fn matcher(&self) -> Matcher {
        // With caches of its own: what others have matched must not change where a limit falls.
        Matcher(self.start.deep_clone())
    }
}

/// Follows one answer.
#[derive(Clone)]
pub struct Matcher(llguidance::Matcher);

impl Matcher {
    /// The tokens that may come next, ends among them where the form is complete.
    ///
    /// # Errors
    /// The limits are reached.
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        let mask = self.0.compute_mask_or_eos().map_err(|error| limits(&error))?;
        Ok(Mask::from_words(mask.as_slice().to_vec()))
    }

    /// Takes in a token that may come. Gives whether the form is complete and nothing can follow.
    ///
    /// # Errors
    /// The token may not come, or the limits are reached.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        match self.0.consume_token(token) {
            Ok(()) => Ok(self.0.is_stopped()),
            Err(error) => Err(GrammarError::Token(first_line(&error.to_string()))),
        }
    }
}

fn limits(error: &impl ToString) -> GrammarError {
    GrammarError::Limits(first_line(&error.to_string()))
}

/// The engine adds its state to what went wrong.
fn first_line(error: &str) -> String {
    let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    line.trim().chars().take(300).collect()
}
