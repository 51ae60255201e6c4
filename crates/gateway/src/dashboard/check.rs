//! Checks an answer in place, tampers with it, and swaps its adapter.
//!
//! The check is a full replay by the engine itself: the same prompt, settings and seed, under a tenant of its own, so that
//! no page of the first run is used again, with the claimed answer as prediction, so that it takes few steps. Every token
//! drawn and every position's leaf is compared. That needs no second copy of weights or pages and no threads beside the
//! engine's; it waits behind all who want answers, and its time is charged as audit. `lockstep verify` does the same
//! anywhere else, and believes nobody.
//!
//! Lies are signed with a key made up on the spot: none ever carries this node's signature.

use super::Audits;
use crate::app::{App, random};
use crate::error::ApiError;
use engine::{AdapterHandle, Completion, Event, Priority, Purpose, Request, Shaping};
use exact::adjust::Adjust;
use exact::sample::Sampling;
use grammar::{Kind, Source};
use receipt::{Bundle, Claims, Finish, Hash, Lie, Opening, Settings, SigningKey, sign_as_if_true};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// How long a check may take, and wait for another.
const DEADLINE: Duration = Duration::from_secs(120);

/// A token that is not what the model draws.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wrong {
    /// Of the answer, counted from 0.
    pub(crate) number: usize,
    /// What the receipt claims; none if it claims that the answer ended.
    pub(crate) claimed: Option<u32>,
    /// What the model draws; none if it ends.
    pub(crate) drawn: Option<u32>,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// Everything is as claimed.
    Equal { positions: usize, took: Duration },
    /// Known without computing.
    Before(String),
    /// The first position whose trace differs, and the first wrong token, whichever there are.
    Differs { position: Option<usize>, token: Option<Wrong>, took: Duration },
}

/// What is done to an answer before it is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cheat {
    None,
    Lie(Lie),
    /// It is computed with the model of this name instead.
    Swap(String),
}

/// One check at a time, for as long as this exists.
pub(crate) async fn turn(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let turn = timeout(DEADLINE, app.dashboard.checking.clone().acquire_owned()).await;
    turn.map_err(|_| ApiError::busy())?.map_err(|_| ApiError::shutting_down())
}

/// Does to an answer what a cheat would, then checks it. Gives the answer that was checked.
pub(crate) async fn check(app: &Arc<App>, bundle: Bundle, cheat: &Cheat) -> Result<(Finding, Bundle), ApiError> {
    let _turn = turn(app).await?;
    let bundle = match cheat {
        Cheat::None => bundle,
        cheat => forge(app, &bundle, cheat).await?,
    };
    let finding = replay(app, &bundle).await?;
    let audits = &app.dashboard.audits;
    let (all, wrong) = match cheat {
        Cheat::None => (&audits.replayed, &audits.differed),
        _ => (&audits.lies, &audits.believed),
    };
    Audits::count(all);
    // What is true is to be equal, and what is a lie is not.
    if matches!(finding, Finding::Equal { .. }) != (*cheat == Cheat::None) {
        Audits::count(wrong);
    }
    Ok((finding, bundle))
}

pub(crate) async fn forge(app: &Arc<App>, bundle: &Bundle, cheat: &Cheat) -> Result<Bundle, ApiError> {
    let receipt = bundle.check().map_err(|error| ApiError::server(error.to_string()))?;
    let (mut claims, mut opening) = (receipt.claims, bundle.opening.clone());
    match cheat {
        Cheat::None => {}
        Cheat::Lie(lie) => {
            lie.tell(&mut opening, app.engine.model().shape.vocabulary as u32);
            if *lie == Lie::Answer {
                opening.leaves = trace(app, &claims, &opening).await?;
            }
        }
        Cheat::Swap(name) => {
            let adapter = app.find(name)?;
            if adapter.as_ref().and_then(|adapter| adapter.digest()) == claims.adapter {
                return Err(ApiError::invalid("other", "that is the adapter that was asked for: choose another"));
            }
            let completion = run(app, request(app, &opening, adapter)?).await?;
            claims.finish = finish(&completion);
            (opening.output, opening.leaves) = (completion.tokens, completion.leaves);
        }
    }
    let key = SigningKey::from_bytes(&random()?);
    Ok(sign_as_if_true(&claims, opening, &key))
}

fn finish(completion: &Completion) -> Finish {
    match completion.finish {
        engine::Finish::Stop => Finish::Stop,
        engine::Finish::Length => Finish::Length,
    }
}

/// What tokens leave behind, whoever chose them: they are computed as a prompt.
pub(crate) async fn trace(app: &Arc<App>, claims: &Claims, opening: &Opening) -> Result<Vec<Hash>, ApiError> {
    let mut tokens = [&opening.prompt[..], &opening.output[..]].concat();
    tokens.pop();
    let request = Request { adapter: adapter(app, claims)?, ..Request::new(tokens, 1) };
    Ok(run(app, request).await?.leaves)
}

async fn replay(app: &Arc<App>, bundle: &Bundle) -> Result<Finding, ApiError> {
    let started = Instant::now();
    let claims = match bundle.check() {
        Ok(receipt) => receipt.claims,
        Err(error) => return Ok(Finding::Before(error.to_string())),
    };
    if let Some(what) = other(app, &claims) {
        return Ok(Finding::Before(what.to_owned()));
    }
    let opening = &bundle.opening;
    let request = Request { prediction: opening.output.clone(), ..request(app, opening, adapter(app, &claims)?)? };
    let completion = run(app, request).await?;
    Ok(compare(&claims, opening, &completion, started.elapsed()))
}

fn compare(claims: &Claims, opening: &Opening, completion: &Completion, took: Duration) -> Finding {
    let (claimed, drawn) = (&opening.output, &completion.tokens);
    let same = claimed.iter().zip(drawn).take_while(|(claimed, drawn)| claimed == drawn).count();
    let wrong = Wrong { number: same, claimed: claimed.get(same).copied(), drawn: drawn.get(same).copied() };
    let token = (wrong.claimed != wrong.drawn).then_some(wrong);
    let leaves =
        opening.leaves.iter().zip(&completion.leaves).take_while(|(claimed, computed)| claimed == computed).count();
    // Behind a wrong token every position differs, which says nothing more.
    let position = Some(leaves).filter(|at| *at < opening.leaves.len().min(opening.prompt.len() + same));
    if token.is_none() && position.is_none() {
        if claims.finish != finish(completion) {
            return Finding::Before("the receipt says that the answer ended otherwise than it did".to_owned());
        }
        return Finding::Equal { positions: opening.leaves.len(), took };
    }
    Finding::Differs { position, token, took }
}

/// What the receipt names that is not loaded here.
pub(crate) fn other(app: &App, claims: &Claims) -> Option<&'static str> {
    let (model, text) = (app.engine.model(), app.engine.text());
    if claims.arithmetic != exact::VERSION {
        return Some("the receipt claims another version of the arithmetic");
    }
    if claims.base != model.digest || claims.activations != app.base.activations() {
        return Some("the receipt claims another base model than is loaded here");
    }
    let tokenizer = claims.tokenizer.is_some_and(|claimed| claimed != text.tokenizer_digest());
    tokenizer.then_some("the receipt claims another tokenizer than is loaded here")
}

/// The adapter a receipt names.
pub(crate) fn adapter(app: &App, claims: &Claims) -> Result<Option<Arc<AdapterHandle>>, ApiError> {
    let Some(digest) = claims.adapter else { return Ok(None) };
    let found = app.engine.adapters().list().into_iter().find(|adapter| adapter.digest() == Some(digest));
    let missing = "the adapter that the receipt names is not loaded here by now: load it again, or check the answer with \
                   `lockstep verify`";
    found.map(Some).ok_or_else(|| ApiError::not_found(missing))
}

/// The request that an answer claims to be of.
fn request(app: &App, opening: &Opening, adapter: Option<Arc<AdapterHandle>>) -> Result<Request, ApiError> {
    let Settings { temperature, top_k, top_p, min_p, seed, .. } = opening.settings;
    let (settings, shaping) = (&opening.settings, &opening.settings.shaping);
    let form = match &shaping.form {
        None => None,
        Some(form) if form.engine == grammar::ENGINE => {
            let kind = Kind::from_name(&form.kind).ok_or_else(|| ApiError::server("the form is of an unknown kind"))?;
            Some(app.compile(&Source { kind, text: form.source.clone() }, "form")?)
        }
        Some(_) => {
            return Err(ApiError::server("the answer was held to its form by another version than this server has"));
        }
    };
    let adjust = Adjust {
        repetition: shaping.repetition,
        frequency: shaping.frequency,
        presence: shaping.presence,
        bias: shaping.bias.clone(),
    };
    let tokens_min = usize::try_from(shaping.tokens_min).unwrap_or(usize::MAX);
    Ok(Request {
        adapter,
        sampling: Sampling { temperature, top_k, top_p, min_p, seed },
        stop_tokens: settings.stop_tokens.clone(),
        stop_strings: settings.stop_strings.clone(),
        shaping: Shaping { adjust, tokens_min, form, top_logprobs: None },
        ..Request::new(opening.prompt.clone(), usize::try_from(settings.tokens_max).unwrap_or(usize::MAX))
    })
}

/// Computes a request behind all who want answers, as nobody's tenant.
async fn run(app: &App, request: Request) -> Result<Completion, ApiError> {
    let request = Request {
        tenant: random()?,
        priority: Priority::Low,
        purpose: Purpose::Audit,
        deadline: Some(Instant::now() + DEADLINE),
        ..request
    };
    let mut events = app.engine.submit(request).map_err(|refusal| ApiError::refused(&refusal, "id"))?;
    loop {
        match timeout(DEADLINE * 2, events.recv()).await {
            Ok(Some(Event::Done(completion))) => return Ok(completion),
            Ok(Some(Event::Failed(failure))) => return Err(ApiError::failed(&failure)),
            Ok(Some(Event::Text(..) | Event::Token(..))) => {}
            Ok(None) => return Err(ApiError::shutting_down()),
            Err(_) => return Err(ApiError::deadline(DEADLINE.as_secs())),
        }
    }
}
