//! One answer on its way through a grammar.

use crate::{GrammarError, Source, Vocabulary};
use exact::adjust::Mask;
use std::sync::Arc;

/// A source that was compiled.
pub struct Grammar {
    source: Source,
    start: llguidance::Matcher,
}

impl Grammar {
    pub(crate) fn compile(vocabulary: &Arc<Vocabulary>, source: Source) -> Result<Grammar, GrammarError> {
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
