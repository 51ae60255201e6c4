//! What is done by the clock: holds whose time is over give their money back, and the books are checked.

use crate::check::{Extent, check};
use crate::clock::Clock;
use crate::error::LedgerError;
use crate::operation::{Operation, Time};
use crate::reader::{Ask, Mode, Question, ask};
use crate::sql::Type;
use crate::store::text;
use crate::writer::Job;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// Holds that expire in one look.
const EXPIRE_MAX: i64 = 1000;
/// The longest that one look may take.
const WAIT: Duration = Duration::from_secs(60);

const DUE: &str = "SELECT id FROM holds WHERE expired = 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2";

/// Works until the ledger is closed.
pub(crate) async fn run(jobs: mpsc::WeakSender<Job>, asks: mpsc::WeakSender<Ask>, clock: Clock, pause: Duration) {
    loop {
        sleep(pause).await;
        let (Some(jobs), Some(asks)) = (jobs.upgrade(), asks.upgrade()) else { return };
        loop {
            match expire(&jobs, &asks, clock.now()).await {
                Ok(count) if count == EXPIRE_MAX as usize => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("holds whose time is over: {error}");
                    break;
                }
            }
        }
        if let Err(error) = check(&asks, clock.now(), Extent::New).await {
            tracing::warn!("checking the books: {error}");
        }
    }
}

/// Frees the money of holds whose time is over; gives how many there were.
pub(crate) async fn expire(
    jobs: &mpsc::Sender<Job>,
    asks: &mpsc::Sender<Ask>,
    now: Time,
) -> Result<usize, LedgerError> {
    let question = Question { text: DUE, values: vec![now.into(), EXPIRE_MAX.into()], types: &[Type::Text] };
    let rows = ask(asks, Mode::Read, vec![question], WAIT).await?;
    let mut answers = vec![];
    for hold in rows.iter().flatten().filter_map(|row| text(&row[0])) {
        let (reply, answer) = oneshot::channel();
        let job = Job { operation: Operation::Expire { hold }, reply };
        jobs.send(job).await.map_err(|_| LedgerError::Closed)?;
        answers.push(answer);
    }
    let count = answers.len();
    for answer in answers {
        answer.await.map_err(|_| LedgerError::Closed)??;
    }
    Ok(count)
}
