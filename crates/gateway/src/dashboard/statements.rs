//! Signed statements of all balances: made here, kept in the data folder, handed out.
//!
//! | file | to whom |
//! |---|---|
//! | the statement | whoever is signed in |
//! | the proof of one account | whoever may see that account |
//! | all balances | the administrator, for an auditor |
//!
//! All proofs are of statements that were kept, so that whoever compares theirs sees one statement.

use super::ledger::{away, billing, may_see};
use super::page::{Reply, Visit};
use super::table::{Cell, Column, Table};
use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use ledger::{AccountId, Leaves, Note, Statement, StatementError};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Statements that are kept; then the oldest goes.
const KEPT: usize = 366;
/// Statements that are shown.
const SHOWN: usize = 12;

/// Where statements are kept.
pub(crate) struct Statements {
    folder: PathBuf,
    /// One permit for whoever makes a statement or a proof: both take memory in proportion to the accounts.
    turn: Semaphore,
}

fn unkept(error: impl std::fmt::Display) -> ApiError {
    ApiError::server(format!("the statement cannot be kept or read: {error}"))
}

impl Statements {
    pub(crate) fn new(folder: PathBuf) -> Statements {
        Statements { folder, turn: Semaphore::new(1) }
    }

    /// When statements were made, newest first.
    fn times(&self) -> std::io::Result<Vec<i64>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries?,
        };
        let mut times = vec![];
        for entry in entries {
            let name = entry?.file_name();
            times.extend(name.to_str().and_then(|name| name.strip_suffix(".statement")?.parse::<i64>().ok()));
        }
        times.sort_unstable_by(|a, b| b.cmp(a));
        Ok(times)
    }

    fn path(&self, time: i64, kind: &str) -> PathBuf {
        self.folder.join(format!("{time}.{kind}"))
    }

    /// The newest statements.
    fn newest(&self) -> std::io::Result<Vec<Statement>> {
        let read = |time: &i64| -> Option<Statement> {
            let bytes = std::fs::read(self.path(*time, "statement")).ok()?;
            Statement::verify(&Note::parse(&bytes).ok()?, None).ok()
        };
        Ok(self.times()?.iter().take(SHOWN).filter_map(read).collect())
    }

    /// Keeps a statement: first all balances, which only the server may read, then the statement itself.
    fn keep(&self, leaves: &Leaves, time: i64) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        for (kind, mode, text) in
            [("balances", 0o600, leaves.to_string()), ("statement", 0o644, leaves.note.to_string())]
        {
            let (path, new) = (self.path(time, kind), self.path(time, "new"));
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
        }
        std::fs::File::open(&self.folder)?.sync_all()?;
        for old in self.times()?.into_iter().skip(KEPT) {
            ["statement", "balances"].iter().try_for_each(|kind| std::fs::remove_file(self.path(old, kind)))?;
        }
        Ok(())
    }
}

fn address(time: i64, what: &str, account: Option<&AccountId>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("time", &time.to_string()).append_pair("what", what);
    if let Some(account) = account {
        query.append_pair("account", account.as_str());
    }
    format!("/dashboard/statement?{}", query.finish())
}

async fn newest(app: &Arc<App>) -> Result<Vec<Statement>, ApiError> {
    let app = app.clone();
    let read = tokio::task::spawn_blocking(move || app.dashboard.statements.newest()).await;
    read.map_err(unkept)?.map_err(unkept)
}

/// Every statement, and all balances of it.
pub(crate) async fn all(app: &Arc<App>) -> Result<Table, ApiError> {
    let columns = [
        Column("time", "As of"),
        Column("transactions", "After so many transactions"),
        Column("accounts", "Accounts"),
        Column("sum_micros", "All balances together"),
        Column("statement", "For everybody"),
        Column("balances", "For an auditor"),
    ];
    let empty = "Make one: it is signed by this node, and every account can then prove its own balance.";
    let mut table = Table::new("statements", "Statements of all balances, newest first", &columns, empty);
    for said in newest(app).await? {
        table.row(vec![
            Cell::Moment(said.time),
            Cell::Count(said.transactions),
            Cell::Count(said.accounts),
            Cell::Dollars(said.sum.0),
            Cell::Link("statement".to_owned(), address(said.time, "statement", None)),
            Cell::Link("all balances".to_owned(), address(said.time, "balances", None)),
        ]);
    }
    Ok(table)
}

/// Proofs of one account's balance.
pub(crate) async fn of_account(app: &Arc<App>, account: &AccountId) -> Result<Table, ApiError> {
    let columns = [
        Column("time", "As of"),
        Column("transactions", "After so many transactions"),
        Column("accounts", "Accounts"),
        Column("proof", "This account's balance in it"),
        Column("statement", "The statement"),
    ];
    let empty = "The node's administrator makes statements: each is signed, and then there is a proof of this balance here, to be checked \
                 without the node by lockstep statement verify.";
    let mut table = Table::new("statements", "Proofs of this balance, newest first", &columns, empty);
    for said in newest(app).await? {
        table.row(vec![
            Cell::Moment(said.time),
            Cell::Count(said.transactions),
            Cell::Count(said.accounts),
            Cell::Link("proof".to_owned(), address(said.time, "proof", Some(account))),
            Cell::Link("statement".to_owned(), address(said.time, "statement", None)),
        ]);
    }
    Ok(table)
}

/// Makes a statement as of now.
pub(crate) async fn make(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    if !visit.visitor.may_change {
        return Err(ApiError::forbidden("this signs for the node: sign in with the administrator's key"));
    }
    let _turn = app.dashboard.statements.turn.acquire().await.map_err(|_| ApiError::shutting_down())?;
    let leaves = billing(&app)?.ledger.statement(app.recorder.key()).await.map_err(away)?;
    let own = app.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let said = Statement::verify(&leaves.note, None).map_err(unkept)?;
        own.dashboard.statements.keep(&leaves, said.time).map_err(unkept)
    });
    kept.await.map_err(unkept)??;
    Ok(Reply::Go("/dashboard/ledger".to_owned(), None))
}

/// A file of a statement.
pub(crate) async fn file(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    let nothing = || ApiError::not_found("there is no such statement: see the ledger's page for those there are");
    let time: i64 = visit.number("time")?.ok_or_else(nothing)?;
    let (what, account) = (visit.required("what")?, visit.field("account"));
    let (name, text) = match what {
        "statement" => (format!("statement-{time}"), read(&app, time, "statement").await?.ok_or_else(nothing)?),
        "balances" if visit.sees_everything() => {
            (format!("balances-{time}"), read(&app, time, "balances").await?.ok_or_else(nothing)?)
        }
        "balances" => return Err(ApiError::forbidden("all balances are for the administrator and an auditor")),
        "proof" => {
            let account: Option<AccountId> = account.and_then(|account| account.parse().ok());
            let account = account.filter(|account| may_see(&visit, account)).ok_or_else(nothing)?;
            let _turn = app.dashboard.statements.turn.acquire().await.map_err(|_| ApiError::shutting_down())?;
            let balances = read(&app, time, "balances").await?.ok_or_else(nothing)?;
            let proof = tokio::task::spawn_blocking(move || prove(&balances, &account)).await.map_err(unkept)?;
            let missing = "this account is not in that statement: it was opened later";
            let proof = proof.map_err(unkept)?.ok_or_else(|| ApiError::not_found(missing))?;
            (format!("proof-{time}"), proof)
        }
        _ => return Err(ApiError::invalid("what", "it can be statement, proof or balances")),
    };
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // The name has letters, digits and dashes alone.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.txt\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(Reply::Raw(response))
}

async fn read(app: &Arc<App>, time: i64, kind: &'static str) -> Result<Option<String>, ApiError> {
    let path = app.dashboard.statements.path(time, kind);
    let read = tokio::task::spawn_blocking(move || match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    });
    read.await.map_err(unkept)?.map_err(unkept)
}

/// The proof of an account, which was checked: a file may be damaged.
fn prove(balances: &str, account: &AccountId) -> Result<Option<String>, StatementError> {
    let Some(proof) = Leaves::parse(balances)?.proof(account)? else { return Ok(None) };
    proof.verify(Some(account), None)?;
    Ok(Some(proof.to_string()))
}
