//! Checks an answer without the levels of the weights (docs/light-check.md): this node hands out the sums, and checks them with
//! a secret drawn for this check. Both in one thread beside the engine, one check at a time.

use super::check::{Cheat, adapter, forge};
use crate::app::{App, random};
use crate::error::ApiError;
use audit::light::{Key, LightConfig, LightFault, LightVerdict, Sections, check, prove};
use audit::trace::Run;
use exact::Activations;
use model::{Adapter, Plan};
use receipt::{Bundle, Lie};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Bytes of sums that are handed out at once: a longer answer is checked from its beginning on, as far as that goes.
const SUMS_MAX: usize = 128 << 20;
/// How long somebody waits for it.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is done to the answer before it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trick {
    None,
    /// One of the sums is one more.
    Sum,
    /// Another token.
    Answer,
}

/// What a light check found, and what it took.
pub(crate) struct Light {
    pub(crate) verdict: LightVerdict,
    /// The maps whose sums were false.
    pub(crate) place: Option<String>,
    pub(crate) checked: u64,
    pub(crate) positions: u64,
    pub(crate) sums: u64,
    pub(crate) opening_bytes: u64,
    pub(crate) key_bytes: u64,
    pub(crate) weights_bytes: u64,
    pub(crate) keying: Duration,
    pub(crate) proving: Duration,
    pub(crate) checking: Duration,
}

/// Checks an answer.
pub(crate) async fn light(
    app: &Arc<App>,
    bundle: Bundle,
    trick: Trick,
    turn: OwnedSemaphorePermit,
) -> Result<Light, ApiError> {
    let claims = bundle.check().map_err(|error| ApiError::server(error.to_string()))?.claims;
    let bundle = match trick {
        Trick::Answer => forge(app, &bundle, &Cheat::Lie(Lie::Answer)).await?,
        _ => bundle,
    };
    let (own, handle, seed) = (app.clone(), adapter(app, &claims)?, random()?);
    let work = tokio::task::spawn_blocking(move || {
        // The permit ends with the work, whoever still waits for it.
        let _turn = turn;
        let named = handle.map(|handle| own.engine.fetch_adapter(&handle)).transpose();
        run(&own, &bundle, trick, named.map_err(|error| ApiError::adapter(&error))?.as_deref(), seed)
    });
    let done = timeout(DEADLINE, work).await.map_err(|_| ApiError {
        code: Some("deadline_exceeded"),
        ..ApiError::server("it takes too long here: `lockstep verify --light` waits for it")
    })?;
    done.map_err(|error| ApiError::server(format!("the check broke off: {error}")))?
}

fn run(app: &App, bundle: &Bundle, trick: Trick, named: Option<&Adapter>, seed: [u8; 32]) -> Result<Light, ApiError> {
    let (model, isa) = (app.engine.model(), app.engine.config().isa);
    let wrong = |error: String| ApiError::conflict(error);
    let sections = Sections::new(&model.shape, &model.plan);
    let positions = bundle.opening.leaves.len();
    let each: usize = sections.shapes.iter().flat_map(|(_, outputs)| outputs).sum();
    let planes = if model.activations == Activations::A16 { 2 } else { 1 };
    let checked = (SUMS_MAX / (4 * planes * each).max(1)).clamp(1, positions.max(1));

    let begun = Instant::now();
    let (key, frame) = Key::secret(model, seed, isa, 1).map_err(|error| wrong(error.to_string()))?;
    let keying = begun.elapsed();
    let begun = Instant::now();
    let prover = Run { model: model.clone(), adapter: named, isa, threads: 1 };
    let opening = prove(&prover, bundle, 0..checked).map_err(|error| wrong(error.to_string()))?;
    let proving = begun.elapsed();
    let sums = opening.sums_count() as u64;
    let of_each = sums as usize / checked;
    let opening = if trick == Trick::Sum { opening.forged(checked / 2, of_each / 2, 1) } else { opening };
    let config = LightConfig { isa, threads: 1, text: Some(app.engine.text()) };
    let begun = Instant::now();
    let verdict = check(bundle, &opening, &key, &frame, named, config).map_err(|error| wrong(error.to_string()))?;
    let checking = begun.elapsed();
    let place = match &verdict {
        LightVerdict::Fails { what: LightFault::Sums { section }, .. } => place(&model.plan, &sections, *section),
        _ => None,
    };
    Ok(Light {
        verdict,
        place,
        checked: checked as u64,
        positions: positions as u64,
        sums,
        opening_bytes: opening.to_bytes().len() as u64,
        key_bytes: (key.to_bytes().len() + frame.to_bytes().len()) as u64,
        weights_bytes: model.weights.bytes() as u64,
        keying,
        proving,
        checking,
    })
}

/// The linear maps of a section.
fn place(plan: &Plan, sections: &Sections, section: usize) -> Option<String> {
    let names = sections.sites.get(section)?.iter().filter_map(|site| plan.sites.get(*site)).map(|site| &*site.name);
    Some(names.collect::<Vec<_>>().join(", "))
}
