//! A tokenizer's tokens as bytes, ready to be matched.

use crate::{Grammar, GrammarError, Source};
use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use model::{Text, TokenBytes};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// Compiled grammars that are kept, the latest.
const KEPT: usize = 32;

/// The tokens of a model.
pub struct Vocabulary {
    pub(crate) factory: ParserFactory,
    kept: Mutex<VecDeque<Arc<Grammar>>>,
}

/// Counted in steps: by the engine's own numbers about 2 ms for a mask and 10 ms for a grammar's lexer.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 500_000,
        step_lexer_fuel: 25_000,
        step_max_items: 10_000,
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

impl Vocabulary {
    /// Reads a tokenizer's tokens; takes a moment for large ones.
    ///
    /// # Errors
    /// Its tokens are not pieces of the text's bytes.
    pub fn new(text: &Text) -> Result<Arc<Vocabulary>, GrammarError> {
        let words: Vec<Vec<u8>> = (0..text.vocabulary() as u32).map(|id| bytes(text, id)).collect();
        let ends = text.end_tokens();
        let plain = words.iter().filter(|word| word.first().is_some_and(|byte| *byte != TokTrie::SPECIAL_TOKEN_MARKER));
        if plain.count() < 2 {
            return Err(GrammarError::Tokenizer);
        }
        let end = ends.first().copied().unwrap_or(toktrie::INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| GrammarError::Source(error.to_string()))?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(Arc::new(Vocabulary { factory, kept: Mutex::default() }))
    }

    /// Compiles a source, or gives it as it was compiled lately. Takes long for large ones.
    ///
    /// # Errors
    /// It means nothing, or too much for the limits.
    pub fn compile(self: &Arc<Self>, source: &Source) -> Result<Arc<Grammar>, GrammarError> {
        let found = self.kept().iter().find(|grammar| grammar.source() == source).cloned();
        if let Some(grammar) = found {
            return Ok(grammar);
        }
        let grammar = Arc::new(Grammar::compile(self, source.clone())?);
        let mut kept = self.kept();
        kept.push_front(grammar.clone());
        kept.truncate(KEPT);
        Ok(grammar)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Grammar>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(text: &Text, id: u32) -> Vec<u8> {
    match text.token_bytes(id) {
        Some(TokenBytes::Text(bytes)) => bytes,
        Some(TokenBytes::Special(name)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        None => vec![],
    }
}
