//! One connection to either database, and statements whose text is the same for both.
//!
//! Many rows go into one statement: where a text says `{rows}`, PostgreSQL gets arrays (`UNNEST`), one for each column, and
//! SQLite a list of `VALUES`. Everything is a 64-bit integer, a text, or nothing.

use crate::database::{Database, Durability};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Row as _};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows of a statement for SQLite, fewest first; rows of nothing fill it up. So few texts are prepared for any number of rows,
/// and each costs one statement, which is a conversation with another thread.
const SIZES: [usize; 7] = [1, 4, 16, 32, 64, 128, 256];
/// How long a writer waits for another process's transaction in SQLite.
const BUSY: Duration = Duration::from_secs(5);

/// A value in a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
    Null,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Int,
    Text,
}

/// A row that was read.
pub(crate) type Row = Vec<Value>;

/// A statement over many rows. `{rows}` in its text stands for a table with these columns.
pub(crate) struct Bulk {
    pub(crate) text: &'static str,
    pub(crate) columns: &'static [(&'static str, Type)],
}

/// Something that sees each statement before it is sent: for tests that kill the process there.
pub(crate) type Watch = Option<Arc<dyn Fn(&str) + Send + Sync>>;

enum Inner {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// One connection.
pub(crate) struct Connection {
    inner: Inner,
    texts: HashMap<(usize, usize), Arc<str>>,
    watch: Watch,
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl Connection {
    /// Connects; creates an SQLite file that is not there.
    pub(crate) async fn open(database: &Database, durability: Durability, watch: Watch) -> sqlx::Result<Connection> {
        let inner = match database {
            Database::Sqlite(path) => {
                let synchronous = match durability {
                    Durability::Process => SqliteSynchronous::Normal,
                    Durability::Power => SqliteSynchronous::Full,
                };
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(synchronous)
                    .busy_timeout(BUSY)
                    .statement_cache_capacity(256)
                    .pragma("cache_size", "-65536")
                    .disable_statement_logging();
                Inner::Sqlite(options.connect().await?)
            }
            Database::Postgres(url) => {
                let options: PgConnectOptions = url.parse()?;
                let commit = match durability {
                    Durability::Process => "off",
                    Durability::Power => "on",
                };
                let options = options
                    .application_name("lockstep-ledger")
                    .options([("synchronous_commit", commit)])
                    .disable_statement_logging();
                Inner::Postgres(options.connect().await?)
            }
        };
        Ok(Connection { inner, texts: HashMap::new(), watch })
    }

    fn see(&self, text: &str) {
        if let Some(watch) = &self.watch {
            watch(text);
        }
    }

    /// Begins to write: from here on nobody else does, until the end.
    pub(crate) async fn begin(&mut self) -> sqlx::Result<()> {
        self.simple(match self.inner {
            Inner::Sqlite(_) => "BEGIN IMMEDIATE",
            Inner::Postgres(_) => "BEGIN",
        })
        .await
    }

    /// Begins to read: everything as of one moment.
    pub(crate) async fn begin_snapshot(&mut self) -> sqlx::Result<()> {
        self.simple(match self.inner {
            Inner::Sqlite(_) => "BEGIN",
            Inner::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })
        .await
    }

    /// Makes everything since the beginning durable, or nothing.
    pub(crate) async fn commit(&mut self) -> sqlx::Result<()> {
        self.simple("COMMIT").await
    }

    /// Forgets everything since the beginning.
    pub(crate) async fn rollback(&mut self) -> sqlx::Result<()> {
        self.simple("ROLLBACK").await
    }

    async fn simple(&mut self, text: &'static str) -> sqlx::Result<()> {
        self.see(text);
        match &mut self.inner {
            Inner::Sqlite(connection) => sqlx::query(text).execute(connection).await.map(|_| ()),
            Inner::Postgres(connection) => sqlx::query(text).execute(connection).await.map(|_| ()),
        }
    }

    /// Runs statements without values, one after the other, separated by semicolons.
    pub(crate) async fn script(&mut self, text: &str) -> sqlx::Result<()> {
        self.see(text);
        let text = match self.inner {
            Inner::Sqlite(_) => text.replace("{number}", "INTEGER PRIMARY KEY"),
            Inner::Postgres(_) => text.replace("{number}", "BIGINT PRIMARY KEY"),
        };
        match &mut self.inner {
            Inner::Sqlite(connection) => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(|_| ()),
            Inner::Postgres(connection) => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(|_| ()),
        }
    }

    /// Runs a statement; gives its rows, whose columns have these types.
    pub(crate) async fn query(
        &mut self,
        text: &'static str,
        values: &[Value],
        types: &[Type],
    ) -> sqlx::Result<Vec<Row>> {
        self.see(text);
        match &mut self.inner {
            Inner::Sqlite(connection) => {
                let query = sqlx::query_with(text, sqlite_arguments(values.iter())?);
                let rows = query.fetch_all(connection).await?;
                rows.iter().map(|row| sqlite_row(row, types)).collect()
            }
            Inner::Postgres(connection) => {
                let query = sqlx::query_with(text, postgres_arguments(values)?);
                let rows = query.fetch_all(connection).await?;
                rows.iter().map(|row| postgres_row(row, types)).collect()
            }
        }
    }

    /// Runs a statement over many rows, whose first column is never empty; in parts if they are many. Gives the rows it returns, in no order.
    pub(crate) async fn bulk(&mut self, bulk: &'static Bulk, rows: &[Row], types: &[Type]) -> sqlx::Result<Vec<Row>> {
        let mut found = vec![];
        if rows.is_empty() {
            return Ok(found);
        }
        if let Inner::Postgres(_) = self.inner {
            let text = self.text(bulk, 0);
            self.see(&text);
            if let Inner::Postgres(connection) = &mut self.inner {
                let query = sqlx::query_with(AssertSqlSafe(text), postgres_arrays(bulk, rows)?);
                let rows = query.fetch_all(connection).await?;
                found = rows.iter().map(|row| postgres_row(row, types)).collect::<sqlx::Result<_>>()?;
            }
            return Ok(found);
        }
        let largest = SIZES[SIZES.len() - 1];
        let nothing = vec![Value::Null; bulk.columns.len()];
        for part in rows.chunks(largest) {
            let size = SIZES.into_iter().find(|size| *size >= part.len()).unwrap_or(largest);
            let text = self.text(bulk, size);
            self.see(&text);
            if let Inner::Sqlite(connection) = &mut self.inner {
                let filled = part.iter().chain(std::iter::repeat_n(&nothing, size - part.len()));
                let query = sqlx::query_with(AssertSqlSafe(text), sqlite_arguments(filled.flatten())?);
                let rows = query.fetch_all(connection).await?;
                let rows = rows.iter().map(|row| sqlite_row(row, types));
                found.extend(rows.collect::<sqlx::Result<Vec<_>>>()?);
            }
        }
        Ok(found)
    }

    /// The statement for so many rows; for any number where it is 0.
    fn text(&mut self, bulk: &'static Bulk, rows: usize) -> Arc<str> {
        let key = (std::ptr::from_ref(bulk) as usize, rows);
        let text = self.texts.entry(key).or_insert_with(|| {
            let table = if rows == 0 { arrays(bulk.columns) } else { values(bulk.columns, rows) };
            bulk.text.replace("{rows}", &table).into()
        });
        text.clone()
    }
}

/// PostgreSQL's table of rows.
fn arrays(columns: &[(&str, Type)]) -> String {
    let types = columns.iter().map(|(_, kind)| if *kind == Type::Int { "bigint" } else { "text" });
    let arrays: Vec<String> = (1..).zip(types).map(|(index, kind)| format!("${index}::{kind}[]")).collect();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    format!("UNNEST({}) AS rows ({})", arrays.join(", "), names.join(", "))
}

/// SQLite's table of rows, without those of nothing: no first column is ever empty.
fn values(columns: &[(&str, Type)], rows: usize) -> String {
    // Without numbers: SQLite looks for a numbered place among all that are named, one after the other.
    let row = format!("({})", vec!["?"; columns.len()].join(", "));
    let rows = vec![row; rows];
    let names = (1..).zip(columns).map(|(index, (name, _))| format!("column{index} AS {name}"));
    format!(
        "(SELECT {} FROM (VALUES {}) WHERE column1 IS NOT NULL) AS rows",
        names.collect::<Vec<_>>().join(", "),
        rows.join(", ")
    )
}

fn sqlite_arguments<'a>(values: impl Iterator<Item = &'a Value>) -> sqlx::Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Int(value) => arguments.add(*value),
            Value::Text(text) => arguments.add(text.clone()),
            Value::Null => arguments.add(None::<i64>),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn postgres_arguments(values: &[Value]) -> sqlx::Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Int(value) => arguments.add(*value),
            Value::Text(text) => arguments.add(text.as_str()),
            Value::Null => arguments.add(None::<i64>),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn postgres_arrays(bulk: &Bulk, rows: &[Row]) -> sqlx::Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for (index, (_, kind)) in bulk.columns.iter().enumerate() {
        let column = rows.iter().map(|row| &row[index]);
        let added = match kind {
            Type::Int => arguments.add(
                column
                    .map(|value| match value {
                        Value::Int(value) => Some(*value),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            ),
            Type::Text => arguments.add(
                column
                    .map(|value| match value {
                        Value::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            ),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

macro_rules! read_row {
    ($name:ident, $row:ty) => {
        fn $name(row: &$row, types: &[Type]) -> sqlx::Result<Row> {
            let read = |(index, kind): (usize, &Type)| {
                Ok(match kind {
                    Type::Int => row.try_get::<Option<i64>, _>(index)?.map_or(Value::Null, Value::Int),
                    Type::Text => row.try_get::<Option<String>, _>(index)?.map_or(Value::Null, Value::Text),
                })
            };
            types.iter().enumerate().map(read).collect()
        }
    };
}
read_row!(sqlite_row, SqliteRow);
read_row!(postgres_row, PgRow);
