//! Reading: a few connections beside the writer's, each of which answers one request at a time, as of one moment. What is
//! seldom written beside the books goes the same way.

use crate::database::{Database, Durability};
use crate::error::LedgerError;
use crate::ledger::Config;
use crate::sql::{Connection, Row, Type, Value, Watch};
use crate::store::StoreError;
use crate::writer::is_away;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

/// Connections that read.
const READERS: usize = 2;
/// Tries before an error is told: the first connection may have been cut.
const TRIES: usize = 2;

/// A statement, its values, and the types of the columns it gives.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) text: &'static str,
    pub(crate) values: Vec<Value>,
    pub(crate) types: &'static [Type],
}

/// Whether statements see the books as of one moment, or change them with nobody else writing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

/// Statements of one transaction, and who waits for their rows.
pub(crate) struct Ask {
    mode: Mode,
    questions: Vec<Question>,
    reply: oneshot::Sender<Result<Vec<Vec<Row>>, LedgerError>>,
}

/// Asks, and waits for the answer.
pub(crate) async fn ask(
    asks: &mpsc::Sender<Ask>,
    mode: Mode,
    questions: Vec<Question>,
    wait: Duration,
) -> Result<Vec<Vec<Row>>, LedgerError> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        asks.send(Ask { mode, questions, reply }).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    };
    let slow = || LedgerError::Slow(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    timeout(wait, asked).await.map_err(|_| slow())?
}

/// Starts the readers on this runtime; they end when nobody can ask any more.
pub(crate) fn start(config: &Config, asks: mpsc::Receiver<Ask>) {
    let asks = Arc::new(Mutex::new(asks));
    for _ in 0..READERS {
        let reader =
            Reader { database: config.database.clone(), durability: config.durability, watch: None, connection: None };
        tokio::spawn(reader.run(asks.clone()));
    }
}

struct Reader {
    database: Database,
    durability: Durability,
    watch: Watch,
    connection: Option<Connection>,
}

impl Reader {
    async fn run(mut self, asks: Arc<Mutex<mpsc::Receiver<Ask>>>) {
        loop {
            let next = asks.lock().await.recv().await;
            let Some(Ask { mode, questions, reply }) = next else { return };
            let mut answer = self.answer(mode, &questions).await;
            for _ in 1..TRIES {
                if answer.as_ref().is_err_and(|error| is_away(error) && !reply.is_closed()) {
                    answer = self.answer(mode, &questions).await;
                }
            }
            let _ = reply.send(answer.map_err(LedgerError::from));
        }
    }

    async fn answer(&mut self, mode: Mode, questions: &[Question]) -> Result<Vec<Vec<Row>>, StoreError> {
        // Until it is put back a connection may be in the middle of something.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.database, self.durability, self.watch.clone()).await?,
        };
        match mode {
            Mode::Read => connection.begin_snapshot().await?,
            Mode::Write => connection.begin().await?,
        }
        let mut answers = vec![];
        for question in questions {
            answers.push(connection.query(question.text, &question.values, question.types).await?);
        }
        connection.commit().await?;
        self.connection = Some(connection);
        Ok(answers)
    }
}
