//! The handle.

use crate::account::AccountId;
use crate::clock::Clock;
use crate::database::{Database, Durability};
use crate::error::LedgerError;
use crate::money::Micros;
use crate::operation::{Done, Hold, Operation, Order, Settlement, Time, What};
use crate::reader::{self, Ask, Mode, Question};
use crate::rules::check_texts;
use crate::schema;
use crate::spool::Spool;
use crate::sql::{Connection, Row, Watch};
use crate::status::Status;
use crate::writer::{Job, Writer};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// What a ledger is opened with.
#[derive(Clone)]
pub struct Config {
    /// Where the books are.
    pub database: Database,
    /// What an acknowledged operation survives.
    pub durability: Durability,
    /// How long earnings wait before they can be paid out.
    pub audit_window: Duration,
    /// File for settlements and releases while the database is away; each process has its own. None: they are refused then.
    pub spool: Option<PathBuf>,
    /// The most bytes of that file.
    pub spool_bytes: u64,
    /// Operations that may wait for their group.
    pub queue: usize,
    /// Operations in one group.
    pub group: usize,
    /// The longest anybody waits for an answer.
    pub wait: Duration,
    /// Between two checks of the books and two looks for holds whose time is over; none: only when asked.
    pub check_every: Option<Duration>,
    /// The time of day.
    pub clock: Clock,
    /// Sees each statement before it is sent. For tests that kill the process there.
    #[doc(hidden)]
    pub watch: Watch,
}

impl Config {
    /// The usual: durable against a loss of power, an audit window of 30 days, checks every minute.
    pub fn new(database: Database, spool: impl Into<PathBuf>) -> Config {
        Config {
            database,
            durability: Durability::Power,
            audit_window: Duration::from_secs(30 * 24 * 3600),
            spool: Some(spool.into()),
            spool_bytes: 64 << 20,
            queue: 4096,
            group: 512,
            wait: Duration::from_secs(15),
            check_every: Some(Duration::from_secs(60)),
            clock: Clock::system(),
            watch: None,
        }
    }

    /// For whoever asks and gives orders, but settles nothing: without a spool, and without checks by the clock.
    pub fn for_orders(database: Database) -> Config {
        Config { spool: None, check_every: None, ..Config::new(database, "") }
    }
}

/// Microseconds of a duration.
fn micros(duration: Duration) -> Time {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The books. Cheap to clone; usable from any thread. When the last clone goes, what is in the queue is written first.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: Option<mpsc::Sender<Job>>,
    asks: Option<mpsc::Sender<Ask>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    status: Arc<Status>,
    wait: Duration,
    clock: Clock,
    audit_window: Time,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The threads end when nobody can ask any more.
        (self.jobs, self.asks) = (None, None);
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Ledger {
    /// Opens the books; makes the tables if they are not there. What waited in the spool goes to the database.
    ///
    /// # Errors
    /// The database or the spool cannot be used.
    pub async fn open(config: Config) -> Result<Ledger, LedgerError> {
        if config.queue == 0 || config.group == 0 {
            return Err(LedgerError::Config("queue and group must be at least 1".into()));
        }
        let (jobs, jobs_in) = mpsc::channel(config.queue);
        let (asks, asks_in) = mpsc::channel(64);
        let status = Arc::new(Status::default());
        let (wait, clock, audit_window) = (config.wait, config.clock.clone(), micros(config.audit_window));
        let (ready, is_ready) = oneshot::channel();
        let weak = (jobs.downgrade(), asks.downgrade());
        let work = {
            let status = status.clone();
            move || run(config, status, jobs_in, asks_in, weak, ready)
        };
        let thread = std::thread::Builder::new().name("lockstep-ledger".to_owned()).spawn(work)?;
        is_ready.await.map_err(|_| LedgerError::Closed)??;
        let thread = Mutex::new(Some(thread));
        let (jobs, asks) = (Some(jobs), Some(asks));
        Ok(Ledger { inner: Arc::new(Inner { jobs, asks, thread, status, wait, clock, audit_window }) })
    }

    /// The time, as the ledger has it.
    pub fn now(&self) -> Time {
        self.inner.clock.now()
    }

    /// Microseconds that earnings wait before they can be paid out.
    pub fn audit_window(&self) -> Time {
        self.inner.audit_window
    }

    /// Does an operation, in a group with others.
    ///
    /// # Errors
    /// The rules refuse it, or it cannot be made durable.
    pub async fn apply(&self, operation: Operation) -> Result<Done, LedgerError> {
        check_texts(&operation)?;
        let slow = || LedgerError::Slow(u64::try_from(self.inner.wait.as_millis()).unwrap_or(u64::MAX));
        let jobs = self.inner.jobs.as_ref().ok_or(LedgerError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let ask = async {
            jobs.send(Job { operation, reply }).await.map_err(|_| LedgerError::Closed)?;
            answer.await.map_err(|_| LedgerError::Closed)?
        };
        timeout(self.inner.wait, ask).await.map_err(|_| slow())?
    }

    /// Keeps the most a request can cost.
    ///
    /// # Errors
    /// Refused if there is not enough money; away if the database does not answer: then serve nobody.
    pub async fn hold(&self, hold: Hold) -> Result<Done, LedgerError> {
        self.apply(Operation::Hold(hold)).await
    }

    /// Ends a hold with what the request cost. While the database is away it waits in a file; it is durable when this
    /// returns, either way.
    ///
    /// # Errors
    /// The rules refuse it, or neither database nor file can take it.
    pub async fn settle(&self, settlement: Settlement) -> Result<Done, LedgerError> {
        self.apply(Operation::Settle(settlement)).await
    }

    /// Ends a hold at no cost. While the database is away it waits in a file.
    ///
    /// # Errors
    /// There is no such hold, or neither database nor file can take it.
    pub async fn release(&self, hold: &str) -> Result<Done, LedgerError> {
        self.apply(Operation::Release { hold: hold.to_owned() }).await
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// The rules refuse it, or it cannot be made durable.
    pub async fn order(&self, id: &str, what: What, note: &str) -> Result<Done, LedgerError> {
        self.apply(Operation::Order(Order { id: id.to_owned(), what, note: note.to_owned() })).await
    }

    /// Opens an account, or gives it another floor.
    ///
    /// # Errors
    /// The account would be below its new floor.
    pub async fn open_account(&self, id: &str, account: &AccountId, floor: Micros) -> Result<Done, LedgerError> {
        self.order(id, What::Open { account: account.clone(), floor }, "").await
    }

    /// Money comes from outside.
    ///
    /// # Errors
    /// The amount is not above zero, or the balance would be too large.
    pub async fn deposit(&self, id: &str, account: &AccountId, amount: Micros) -> Result<Done, LedgerError> {
        self.order(id, What::Deposit { account: account.clone(), amount }, "").await
    }

    /// Money goes outside, once it is older than the audit window.
    ///
    /// # Errors
    /// There is not as much, it is not yet payable, or the books are not sound.
    pub async fn payout(&self, id: &str, account: &AccountId, amount: Micros) -> Result<Done, LedgerError> {
        self.order(id, What::Payout { account: account.clone(), amount }, "").await
    }

    /// Frees the money of holds whose time is over, up to a thousand; gives how many they were. Also done every
    /// [`Config::check_every`].
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn expire(&self) -> Result<usize, LedgerError> {
        let jobs = self.inner.jobs.as_ref().ok_or(LedgerError::Closed)?;
        crate::routine::expire(jobs, self.asks()?, self.now()).await
    }

    /// What this process knows by itself of how things are.
    pub(crate) fn local(&self) -> crate::status::Local {
        self.inner.status.get()
    }

    /// Who answers questions.
    pub(crate) fn asks(&self) -> Result<&mpsc::Sender<Ask>, LedgerError> {
        self.inner.asks.as_ref().ok_or(LedgerError::Closed)
    }

    /// Asks questions that see the books as of one moment.
    pub(crate) async fn read(&self, questions: Vec<Question>) -> Result<Vec<Vec<Row>>, LedgerError> {
        reader::ask(self.asks()?, Mode::Read, questions, self.inner.wait).await
    }

    /// Changes what is beside the books, with nobody else writing.
    pub(crate) async fn write(&self, questions: Vec<Question>) -> Result<Vec<Vec<Row>>, LedgerError> {
        reader::ask(self.asks()?, Mode::Write, questions, self.inner.wait).await
    }
}

/// The ledger's own thread: one writer, a few readers, and what is done by the clock.
fn run(
    config: Config,
    status: Arc<Status>,
    jobs: mpsc::Receiver<Job>,
    asks: mpsc::Receiver<Ask>,
    weak: (mpsc::WeakSender<Job>, mpsc::WeakSender<Ask>),
    ready: oneshot::Sender<Result<(), LedgerError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let writer = match prepare(&config, status).await {
            Ok(writer) => writer,
            Err(error) => return drop(ready.send(Err(error))),
        };
        reader::start(&config, asks);
        if let Some(pause) = config.check_every {
            tokio::spawn(crate::routine::run(weak.0, weak.1, config.clock.clone(), pause));
        }
        if ready.send(Ok(())).is_ok() {
            writer.run(jobs).await;
        }
    });
}

async fn prepare(config: &Config, status: Arc<Status>) -> Result<Writer, LedgerError> {
    if let Database::Sqlite(path) = &config.database
        && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder)?;
    }
    let spool = match &config.spool {
        Some(path) => Spool::open(path, config.spool_bytes)?,
        None => Spool::none(),
    };
    let (waiting, set_aside) = (spool.len(), spool.set_aside_count());
    status.change(|status| (status.waiting, status.set_aside) = (waiting, set_aside));
    let cannot = |error: sqlx::Error| LedgerError::Away(format!("{}: {error}", config.database).into());
    let opened = Connection::open(&config.database, config.durability, config.watch.clone()).await;
    let mut connection = opened.map_err(cannot)?;
    make_tables(&mut connection).await.map_err(cannot)?;
    Ok(Writer {
        database: config.database.clone(),
        durability: config.durability,
        audit_window: micros(config.audit_window),
        clock: config.clock.clone(),
        watch: config.watch.clone(),
        group_max: config.group,
        connection: Some(connection),
        spool,
        status,
        away_since_try: None,
    })
}

/// Two processes may try at the same moment; PostgreSQL tells one of them that the other was first.
async fn make_tables(connection: &mut Connection) -> sqlx::Result<()> {
    let mut tries = 0;
    loop {
        let made = async {
            connection.begin().await?;
            connection.script(schema::TABLES).await?;
            connection.commit().await
        };
        match made.await {
            Err(error) if tries < 20 => {
                tries += 1;
                let _ = connection.rollback().await;
                tracing::debug!("making tables: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}
