//! The form an answer was held to: its masks, computed again.

use crate::error::AuditError;
use crate::verdict::Difference;
use exact::adjust::Mask;
use grammar::{Kind, Source, Vocabulary};
use model::Text;
use receipt::Settings;

/// What an answer's tokens could be, and where its form was complete.
#[derive(Clone, Default, Debug)]
pub(crate) struct Form {
    /// By answer token: what could be drawn. Empty without a form.
    masks: Vec<Mask>,
    /// After how many tokens nothing could follow.
    pub(crate) complete_at: Option<usize>,
}

impl Form {
    /// What the answer's token of this number could be; none is anything.
    pub(crate) fn allowed(&self, number: usize) -> Option<&Mask> {
        self.masks.get(number)
    }

    /// Follows an answer through its form. Gives the answer's first token that the form does not allow.
    pub(crate) fn follow(
        settings: &Settings,
        output: &[u32],
        text: Option<&Text>,
    ) -> Result<Result<Form, (usize, Difference)>, AuditError> {
        let Some(form) = &settings.shaping.form else { return Ok(Ok(Form::default())) };
        let text = text.ok_or(AuditError::NoTokenizer)?;
        if form.engine != grammar::ENGINE {
            return Err(AuditError::Engine { claimed: form.engine.clone() });
        }
        let kind = Kind::from_name(&form.kind).ok_or(AuditError::Settings("the kind of the form is not known"))?;
        let source = Source { kind, text: form.source.clone() };
        let wrong = |error: grammar::GrammarError| AuditError::Form(error.to_string());
        let mut matcher = Vocabulary::new(text).and_then(|all| all.compile(&source)).map_err(wrong)?.matcher();
        let mut followed = Form::default();
        for (number, token) in output.iter().enumerate() {
            let mask = matcher.mask().map_err(wrong)?;
            if !mask.holds(*token) {
                return Ok(Err((number, Difference::Form { claimed: *token })));
            }
            followed.masks.push(mask);
            if settings.stop_tokens.contains(token) {
                break;
            }
            if matcher.accept(*token).map_err(wrong)? {
                followed.complete_at = Some(number + 1);
                break;
            }
        }
        Ok(Ok(followed))
    }
}
