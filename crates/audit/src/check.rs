//! What can be checked before anything is computed.

use crate::error::AuditError;
use crate::form::Form;
use crate::verdict::{Difference, Digest, FinishFault, Verdict};
use crate::words;
use exact::sample::Sampling;
use model::{Adapter, Model, Plan, Shape, Text};
use receipt::{Claims, Finish, Opening, Settings};

/// What stands ready to check with.
pub(crate) struct Loaded<'a> {
    /// Exact digest of the base.
    pub(crate) base: [u8; 32],
    pub(crate) activations: exact::Activations,
    pub(crate) adapter: Option<&'a Adapter>,
}

/// Whether what is loaded is what the receipt names.
pub(crate) fn identity(
    claims: &Claims,
    base: &Model,
    adapter: Option<&Adapter>,
    text: Option<&Text>,
) -> Result<(), Difference> {
    names(claims, &Loaded { base: base.digest, activations: base.activations, adapter })?;
    texts(claims, text)
}

/// Whether tokenizer and chat template are those the receipt names, if they are loaded.
pub(crate) fn texts(claims: &Claims, text: Option<&Text>) -> Result<(), Difference> {
    let Some(text) = text else { return Ok(()) };
    if let Some(claimed) = claims.tokenizer.filter(|claimed| *claimed != text.tokenizer_digest()) {
        return Err(Difference::Tokenizer { claimed: Digest(claimed), loaded: Digest(text.tokenizer_digest()) });
    }
    if let Some(claimed) = claims.template.filter(|claimed| Some(*claimed) != text.template_digest()) {
        return Err(Difference::Template { claimed: Digest(claimed), loaded: text.template_digest().map(Digest) });
    }
    Ok(())
}

/// The same but for texts, for whoever does not hold the whole model.
pub(crate) fn names(claims: &Claims, loaded: &Loaded<'_>) -> Result<(), Difference> {
    if claims.arithmetic != exact::VERSION {
        return Err(Difference::Arithmetic { claimed: claims.arithmetic, loaded: exact::VERSION });
    }
    if claims.base != loaded.base {
        return Err(Difference::Base { claimed: Digest(claims.base), loaded: Digest(loaded.base) });
    }
    if claims.activations.name() != loaded.activations.name() {
        return Err(Difference::Activations { claimed: claims.activations.name(), loaded: loaded.activations.name() });
    }
    let adapter = loaded.adapter.map(|adapter| adapter.digest);
    if claims.adapter != adapter {
        return Err(Difference::Adapter { claimed: claims.adapter.map(Digest), loaded: adapter.map(Digest) });
    }
    Ok(())
}

/// Whether the answer can be replayed: what the executor and the sampler require.
pub(crate) fn input(opening: &Opening, base: &Model, adapter: Option<&Adapter>) -> Result<(), AuditError> {
    content(opening, &base.shape, &base.plan, adapter)
}

/// The same for whoever does not hold the whole model.
pub(crate) fn content(
    opening: &Opening,
    shape: &Shape,
    plan: &Plan,
    adapter: Option<&Adapter>,
) -> Result<(), AuditError> {
    if opening.prompt.is_empty() {
        return Err(AuditError::EmptyPrompt);
    }
    if opening.output.is_empty() {
        return Err(AuditError::EmptyAnswer);
    }
    let (tokens, context) = (opening.prompt.len() + opening.output.len(), shape.context);
    if tokens > context {
        return Err(AuditError::TooLong { tokens, context });
    }
    let vocabulary = shape.vocabulary;
    let mut tokens = opening.prompt.iter().chain(&opening.output).enumerate();
    if let Some((position, token)) = tokens.find(|(_, token)| **token as usize >= vocabulary) {
        return Err(AuditError::UnknownToken { position, token: *token, vocabulary });
    }
    settings(&opening.settings)?;
    if adapter.is_some_and(|adapter| !fits(adapter, plan)) { Err(AuditError::Adapter) } else { Ok(()) }
}

pub(crate) fn settings(settings: &Settings) -> Result<(), AuditError> {
    let wrong = |what| Err(AuditError::Settings(what));
    let hot = settings.temperature.is_finite() && settings.temperature >= 0.001;
    if !(settings.temperature == 0.0 || hot) {
        return wrong("the temperature must be 0 or at least 0.001");
    }
    if !(0.0..=1.0).contains(&settings.top_p) {
        return wrong("top_p must be between 0 and 1");
    }
    if !(0.0..=1.0).contains(&settings.min_p) {
        return wrong("min_p must be between 0 and 1");
    }
    let shaping = &settings.shaping;
    if !(shaping.repetition.is_finite() && shaping.repetition > 0.0) {
        return wrong("the repetition penalty must be above 0");
    }
    let numbers = shaping.bias.iter().map(|(_, bias)| *bias).chain([shaping.frequency, shaping.presence]);
    if numbers.into_iter().any(|number| !number.is_finite()) {
        return wrong("penalties and biases must be finite");
    }
    if shaping.form.is_some() && shaping.tokens_min > 0 {
        return wrong("an answer is held to a form or to a least length, not both");
    }
    Ok(())
}

/// The part of settings that the sampler takes.
pub(crate) fn sampling(settings: &Settings) -> Sampling {
    let Settings { temperature, top_k, top_p, min_p, seed, .. } = *settings;
    Sampling { temperature, top_k, top_p, min_p, seed }
}

fn fits(adapter: &Adapter, plan: &Plan) -> bool {
    let sites = &plan.sites;
    let mut pairs = adapter.sites.iter().zip(sites).filter_map(|(low_rank, site)| Some((low_rank.as_ref()?, site)));
    adapter.sites.len() == sites.len()
        && pairs.all(|(low_rank, site)| {
            low_rank.a.inputs() == site.inputs
                && low_rank.b.outputs() == site.outputs
                && low_rank.a.outputs() == low_rank.b.inputs()
        })
}

/// Whether the answer can have ended as the receipt says. Without the tokenizer a stop string is believed.
pub(crate) fn finish(claims: &Claims, opening: &Opening, text: Option<&Text>, form: &Form) -> Result<(), Verdict> {
    let (prompt, settings) = (opening.prompt.len(), &opening.settings);
    // About the answer's token of this number.
    let fault = |number: usize, fault| Err(Verdict::at(prompt + number, prompt, Difference::Finish { fault }));
    let (tokens, tokens_max) = (opening.output.len(), settings.tokens_max);
    let last = tokens.saturating_sub(1);
    if tokens as u64 > tokens_max {
        return fault(tokens_max as usize, FinishFault::Long { tokens: tokens as u64, tokens_max });
    }
    let token = opening.output.iter().position(|token| settings.stop_tokens.contains(token));
    let string = text.and_then(|text| words::stopped_at(&opening.output, settings, text));
    let ends = [
        token.map(|at| (at, FinishFault::StopIgnored { token: opening.output[at] })),
        string.map(|after| (after - 1, FinishFault::StringIgnored)),
        form.complete_at.map(|after| (after - 1, FinishFault::FormIgnored)),
    ];
    let end = ends.into_iter().flatten().min_by_key(|(at, _)| *at);
    match end {
        Some((at, _)) if at == last && claims.finish == Finish::Stop => return Ok(()),
        Some((at, ignored)) => return fault(at, ignored),
        None => {}
    }
    let believed = text.is_none() && !settings.stop_strings.iter().all(String::is_empty);
    match claims.finish {
        Finish::Length if (tokens as u64) < tokens_max => {
            fault(last, FinishFault::Short { tokens: tokens as u64, tokens_max })
        }
        Finish::Stop if !believed => fault(last, FinishFault::NoStop),
        _ => Ok(()),
    }
}
