//! A whole dispute in one process.

use crate::dispute::case::Case;
use crate::dispute::challenger::Challenger;
use crate::dispute::game::{Game, Party, Ruling};
use crate::dispute::prover::Prover;
use crate::dispute::transcript::{Transcript, TranscriptError};
use crate::verdict::{Difference, Verdict};
use ed25519_dalek::SigningKey;

/// The position whose computation a verdict doubts; none if there is nothing to dispute, or nothing that was computed.
pub fn target(verdict: &Verdict) -> Option<usize> {
    match verdict {
        Verdict::Differs { position: Some(position), what: Difference::Trace, .. } => Some(*position),
        // A token is drawn at the position before its own.
        Verdict::Differs { position: Some(position), what: Difference::Token { .. }, .. } => position.checked_sub(1),
        Verdict::Differs { position: Some(position), what: Difference::NotFinite, .. } => Some(*position),
        _ => None,
    }
}

/// Runs both sides and the referee. A side that cannot answer forfeits.
pub fn play(
    case: &Case,
    prover: (&mut Prover<'_>, &SigningKey),
    challenger: (&mut Challenger<'_>, &SigningKey),
) -> Result<(Ruling, Transcript), TranscriptError> {
    let mut game = Game::new(case);
    let mut transcript = Transcript::new(case, challenger.1.verifying_key().to_bytes());
    while let Some(party) = game.turn() {
        let said = match party {
            Party::Prover => prover.0.answer(&game).map(|message| transcript.sign(prover.1, &message)),
            Party::Challenger => challenger.0.answer(&game).map(|message| transcript.sign(challenger.1, &message)),
        };
        match said {
            Ok(entry) => game.take(&transcript.push(case, party, entry)?),
            Err(_) => game.forfeit(),
        }
    }
    let ruling = game.ruling().cloned().ok_or(TranscriptError::Unfinished(Party::Prover))?;
    Ok((ruling, transcript))
}
