//! What a dispute is about: a receipt, the tokens behind it, and manifests of what it names.

use crate::check;
use crate::form::Form;
use crate::trace::{Borders, Draw, Outline, Program};
use crate::verdict::Verdict;
use model::{AdapterManifest, Manifest, ManifestError, Text};
use receipt::{Bundle, Mismatch, Opening, Receipt, ReceiptError};
use std::sync::Arc;

/// Why there is nothing to decide: nobody is at fault by it.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The receipt or what opens it.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The receipt names something else.
    #[error("{0}: bring the one the receipt names")]
    Other(&'static str),
    /// The answer's form.
    #[error("{0}")]
    Form(String),
    /// Tokens or settings no model runs on.
    #[error("this is not an answer that can be disputed: {0}")]
    Content(&'static str),
}

/// A case, checked against the receipt.
#[derive(Clone, Debug)]
pub struct Case {
    /// The receipt.
    pub receipt: Receipt,
    /// Bytes of the receipt.
    pub receipt_bytes: Vec<u8>,
    /// Tokens, settings and salts. Leaves are not needed.
    pub opening: Opening,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    /// The base.
    pub base: Manifest,
    /// The adapter.
    pub adapter: Option<AdapterManifest>,
    /// Both.
    pub outline: Arc<Outline>,
    /// What the answer's form allowed.
    form: Form,
    /// What tokens and settings alone show to be wrong.
    fault: Option<Verdict>,
}

impl Case {
    /// A case from a bundle, whose leaves are not looked at, and the manifests' bytes. An answer with a form needs the
    /// tokenizer, which is not looked at otherwise.
    pub fn read(bundle: &Bundle, base: &[u8], adapter: Option<&[u8]>, text: Option<&Text>) -> Result<Case, CaseError> {
        let receipt = Receipt::parse(&bundle.receipt)?;
        let (claims, opening) = (&receipt.claims, Opening { leaves: vec![], ..bundle.opening.clone() });
        let base = Manifest::read(base)?;
        let adapter = adapter.map(AdapterManifest::read).transpose()?;
        if claims.arithmetic != exact::VERSION || claims.activations.name() != base.activations.name() {
            return Err(CaseError::Other("version of the arithmetic or activation mode"));
        }
        if claims.base != base.digest {
            return Err(CaseError::Other("the manifest of the base is another model's"));
        }
        if claims.adapter != adapter.as_ref().map(|adapter| adapter.digest) {
            return Err(CaseError::Other("the manifest of the adapter is another's, missing or not needed"));
        }
        let hashes = (claims.prompt, claims.settings, claims.output);
        let opened = (opening.prompt_hash(), opening.settings_hash(), opening.output_hash());
        // Counts and seed are checked before leaves, which a case does not have.
        let otherwise = matches!(opening.check(claims), Ok(()) | Err(Mismatch::Leaves { .. }));
        if !otherwise || hashes != opened {
            return Err(CaseError::Other("prompt, answer, settings or seed do not open the receipt"));
        }
        let outline =
            Outline::read(&base, adapter.as_ref()).ok_or(CaseError::Other("manifests do not fit together"))?;
        let tokens = [&opening.prompt[..], &opening.output[..]].concat();
        if opening.prompt.is_empty() || opening.output.is_empty() || tokens.len() > base.shape.context {
            return Err(CaseError::Content("it has no tokens, or more than the model's context"));
        }
        if tokens.iter().any(|token| *token as usize >= base.shape.vocabulary) {
            return Err(CaseError::Content("a token is not in the vocabulary"));
        }
        if check::settings(&opening.settings).is_err() {
            return Err(CaseError::Content("its settings are not valid"));
        }
        let text = text.filter(|_| opening.settings.shaping.form.is_some());
        if check::texts(claims, text).is_err() {
            return Err(CaseError::Other("the tokenizer or chat template is another's"));
        }
        let followed = Form::follow(&opening.settings, &opening.output, text);
        let (form, fault) = match followed.map_err(|error| CaseError::Form(error.to_string()))? {
            Ok(form) => (form, None),
            Err((number, what)) => {
                let prompt = opening.prompt.len();
                (Form::default(), Some(Verdict::at(prompt + number, prompt, what)))
            }
        };
        let fault = fault.or_else(|| check::finish(claims, &opening, text, &form).err());
        let (outline, receipt_bytes) = (Arc::new(outline), bundle.receipt.clone());
        Ok(Case { receipt_bytes, receipt, opening, tokens, base, adapter, outline, form, fault })
    }

    /// Positions that were computed.
    pub fn positions(&self) -> usize {
        self.tokens.len() - 1
    }

    /// How the token after a position was drawn; none within the prompt.
    pub fn draw(&self, position: usize) -> Option<Draw> {
        let number = (position + 1).checked_sub(self.opening.prompt.len())?;
        Some(Draw::of(&self.opening, number, &self.form, self.base.shape.vocabulary))
    }

    /// The steps of a position.
    pub fn program(&self, position: usize, borders: Borders) -> Program {
        Program::new(&self.outline, position, self.tokens[position], self.draw(position), borders)
    }

    /// What is wrong with the answer by its tokens and settings alone, if something is.
    pub fn plain_fault(&self) -> Option<&Verdict> {
        self.fault.as_ref()
    }

    /// The receipt's trace root, of this unsalted root.
    pub fn salted(&self, root: &[u8; 32]) -> [u8; 32] {
        let salt = &self.opening.salts.trace;
        *blake3::Hasher::new().update(&[0x16]).update(salt).update(root).finalize().as_bytes()
    }
}
