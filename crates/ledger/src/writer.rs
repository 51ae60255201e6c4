//! The one task of a process that writes: what waits in its queue becomes one group, and while that is made durable the next
//! gathers.

use crate::clock::Clock;
use crate::database::{Database, Durability};
use crate::error::{LedgerError, Refusal};
use crate::operation::{Done, Operation, Time};
use crate::spool::Spool;
use crate::sql::{Connection, Watch};
use crate::status::Status;
use crate::store::{self, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// How long a group is tried again before the database counts as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that one try may take.
const TRY_MAX: Duration = Duration::from_secs(10);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Between tries while the database is away.
const PAUSE_AWAY: Duration = Duration::from_millis(250);

type Results = Vec<Result<Done, Refusal>>;

/// An operation and who waits for it.
pub(crate) struct Job {
    pub(crate) operation: Operation,
    pub(crate) reply: oneshot::Sender<Result<Done, LedgerError>>,
}

/// What the writer works with.
pub(crate) struct Writer {
    pub(crate) database: Database,
    pub(crate) durability: Durability,
    pub(crate) audit_window: Time,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
    pub(crate) group_max: usize,
    pub(crate) connection: Option<Connection>,
    pub(crate) spool: Spool,
    pub(crate) status: Arc<Status>,
    /// When the database was found away last.
    pub(crate) away_since_try: Option<Instant>,
}

impl Writer {
    /// Works until every sender is gone and the queue is empty.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        self.drain().await;
        let mut group = vec![];
        loop {
            tokio::select! {
                biased;
                count = jobs.recv_many(&mut group, self.group_max) => {
                    if count == 0 {
                        break;
                    }
                    self.drain().await;
                    self.serve(std::mem::take(&mut group)).await;
                }
                () = sleep(PAUSE_AWAY), if self.spool.len() > 0 => self.drain().await,
            }
        }
        self.drain().await;
    }

    async fn serve(&mut self, mut jobs: Vec<Job>) {
        // Nobody would settle a hold that nobody waits for.
        jobs.retain(|job| !matches!(job.operation, Operation::Hold(_)) || !job.reply.is_closed());
        if jobs.is_empty() {
            return;
        }
        let operations: Vec<&Operation> = jobs.iter().map(|job| &job.operation).collect();
        match self.write(&operations).await {
            Ok(results) => {
                for (job, result) in jobs.into_iter().zip(results) {
                    let _ = job.reply.send(result.map_err(LedgerError::from));
                }
            }
            Err(error) if is_away(&error) => self.put_off(jobs, &LedgerError::from(error)),
            Err(error) if jobs.len() == 1 => {
                tracing::error!("the ledger could not write an operation: {error:?}");
                let error = LedgerError::Damaged(format!("{error:?}").into());
                jobs.into_iter().for_each(|job| drop(job.reply.send(Err(error.clone()))));
            }
            // One of them is not to the database's taste: the others shall not suffer.
            Err(_) => {
                for job in jobs {
                    Box::pin(self.serve(vec![job])).await;
                }
            }
        }
    }

    /// The database is away: what is owed waits in the file, the rest is told.
    fn put_off(&mut self, jobs: Vec<Job>, error: &LedgerError) {
        let owed: Vec<&Operation> = jobs.iter().map(|job| &job.operation).filter(|one| one.is_owed()).collect();
        let kept = if owed.is_empty() { Ok(()) } else { self.spool.keep(&owed) };
        self.note_spool();
        for job in jobs {
            let result = match (&kept, job.operation.is_owed()) {
                (_, false) => Err(error.clone()),
                (Err(error), true) => Err(error.clone()),
                (Ok(()), true) => Ok(queued(&job.operation)),
            };
            let _ = job.reply.send(result);
        }
    }

    /// Brings what waits in the file to the database, in order, if it is there.
    async fn drain(&mut self) {
        while self.spool.len() > 0 {
            let group: Vec<Operation> = self.spool.front(self.group_max).into_iter().cloned().collect();
            let operations: Vec<&Operation> = group.iter().collect();
            let mut written = self.write(&operations).await;
            if written.as_ref().is_err_and(|error| !is_away(error)) {
                written = self.write(&operations[..1]).await;
            }
            let results = match written {
                Ok(results) => results,
                Err(error) if is_away(&error) => return,
                // The database will never take the first: set it aside as if the rules refused it.
                Err(error) => vec![Err(Refusal::Unread(format!("what it was told: {error:?}")))],
            };
            for (operation, result) in group.iter().zip(&results) {
                if let Err(refusal) = result {
                    tracing::error!("a settlement that waited for the database was refused: {refusal}");
                    if self.spool.set_aside(operation, &refusal.to_string()).is_err() {
                        return;
                    }
                }
            }
            if let Err(error) = self.spool.drop_front(results.len()) {
                tracing::error!("{error}");
            }
            self.note_spool();
        }
    }

    /// Writes a group; tries again for a while if the database is away. A try whose end nobody knows is safe to repeat.
    async fn write(&mut self, operations: &[&Operation]) -> Result<Results, StoreError> {
        let begun = Instant::now();
        if self.away_since_try.is_some_and(|last| last.elapsed() < PAUSE_AWAY) {
            let why = self.status.get().away.unwrap_or_else(|| "no answer".into());
            return Err(StoreError::Database(sqlx::Error::Io(std::io::Error::other(why.to_string()))));
        }
        let was_away = self.away_since_try.is_some();
        loop {
            let result = match timeout(TRY_MAX, self.write_once(operations)).await {
                Ok(result) => result,
                Err(_) => {
                    let error = std::io::Error::other("it did not answer in time");
                    Err(StoreError::Database(sqlx::Error::Io(error)))
                }
            };
            match result {
                Ok(results) => {
                    self.note_away(None);
                    return Ok(results);
                }
                Err(error) => {
                    self.connection = None;
                    if !is_away(&error) {
                        return Err(error);
                    }
                    if was_away || begun.elapsed() > PATIENCE {
                        self.note_away(Some(LedgerError::from(StoreError::Database(away_error(&error)))));
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn write_once(&mut self, operations: &[&Operation]) -> Result<Results, StoreError> {
        let connection = match self.connection.as_mut() {
            Some(connection) => connection,
            None => {
                let opened = Connection::open(&self.database, self.durability, self.watch.clone()).await?;
                self.connection.insert(opened)
            }
        };
        store::write(connection, operations, self.clock.now(), self.audit_window).await
    }

    fn note_away(&mut self, error: Option<LedgerError>) {
        if error.is_some() != self.away_since_try.is_some() {
            match &error {
                Some(error) => tracing::warn!("{error}"),
                None => tracing::info!("the ledger's database is back"),
            }
        }
        self.away_since_try = error.as_ref().map(|_| Instant::now());
        self.status.change(|status| {
            status.away = error.map(|error| match error {
                LedgerError::Away(why) => why,
                other => other.to_string().into(),
            });
        });
    }

    fn note_spool(&self) {
        let (waiting, set_aside) = (self.spool.len(), self.spool.set_aside_count());
        self.status.change(|status| (status.waiting, status.set_aside) = (waiting, set_aside));
    }
}

fn queued(operation: &Operation) -> Done {
    let amount = match operation {
        Operation::Settle(settlement) => settlement.amount,
        _ => crate::money::Micros::ZERO,
    };
    Done { id: operation.id().to_owned(), number: None, amount, repeated: false, queued: true }
}

fn away_error(error: &StoreError) -> sqlx::Error {
    let text = match error {
        StoreError::Database(error) => error.to_string(),
        StoreError::Damaged(what) => what.clone(),
    };
    sqlx::Error::Io(std::io::Error::other(text))
}

/// Whether the same statements may succeed later: the database is away, busy, full, or was interrupted.
pub(crate) fn is_away(error: &StoreError) -> bool {
    let StoreError::Database(error) = error else { return false };
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default().into_owned();
            if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                // The low byte is the kind: busy, locked, out of memory, read only, interrupted, I/O, full, cannot open.
                let kind = code.parse::<i64>().map_or(0, |code| code & 0xff);
                return [5, 6, 7, 8, 9, 10, 13, 14].contains(&kind);
            }
            // Not connected, serialisation and deadlocks, resources, shutting down, system, read only.
            ["08", "40", "53", "55", "57", "58", "25"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Configuration(_) => true,
        _ => false,
    }
}
