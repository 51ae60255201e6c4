//! Which database, and how durable.

use crate::error::LedgerError;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the books are: one SQLite file, or a PostgreSQL database that several gateways share.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file, made if it is not there.
    Sqlite(PathBuf),
    /// An address as PostgreSQL's own tools take it: `postgres://user:password@host:5432/name?sslmode=require`.
    Postgres(String),
}

/// What an acknowledged operation survives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Durability {
    /// The end of this process at any instant; a loss of power may take the last moments.
    Process,
    /// A loss of power too.
    #[default]
    Power,
}

impl FromStr for Database {
    type Err = LedgerError;

    /// `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    fn from_str(text: &str) -> Result<Database, LedgerError> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Database::Sqlite(path.strip_prefix("//").unwrap_or(path).into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let options: Result<sqlx::postgres::PgConnectOptions, _> = text.parse();
            options.map_err(|error| LedgerError::Config(format!("the database's address: {error}").into()))?;
            return Ok(Database::Postgres(text.to_owned()));
        }
        let what = "a database is sqlite:PATH or postgres://USER@HOST/NAME";
        Err(LedgerError::Config(what.into()))
    }
}

/// Without a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Database::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Database::Postgres(url) => match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, place))) => write!(f, "{scheme}://…@{}", without_query(place)),
                _ => write!(f, "{}", without_query(url)),
            },
        }
    }
}

/// Options may hold a password too.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(place, _)| place)
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let database: Database = "postgres://ada:secret@db.example/books?password=secret".parse().unwrap();
        assert_eq!(database.to_string(), "postgres://…@db.example/books");
        assert!(!format!("{database:?}").contains("secret"));
    }

    #[test]
    fn other_databases_are_refused() {
        assert_eq!("sqlite:a/b".parse::<Database>().unwrap(), Database::Sqlite("a/b".into()));
        for text in ["", "a/b", "sqlite:", "mysql://x", "postgres://a:b:c:d/x"] {
            assert!(text.parse::<Database>().is_err(), "{text}");
        }
    }
}
