//! The tables, and the statements that write them. The same text for both databases, but for `{number}` and `{rows}` (see
//! [`crate::sql`]).

use crate::sql::Bulk;
use crate::sql::Type::{Int, Text};

/// Version of the tables.
pub(crate) const VERSION: i64 = 1;

/// Makes the tables where they are not there yet.
///
/// A posting's number is its transaction's number times 64 plus its line, so that one index serves transactions and time.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS books (
    one {number}, version BIGINT NOT NULL, next BIGINT NOT NULL, groups BIGINT NOT NULL, violation TEXT,
    checked BIGINT NOT NULL, checked_at BIGINT NOT NULL);
INSERT INTO books (one, version, next, groups, violation, checked, checked_at)
    VALUES (1, 1, 1, 0, NULL, 1, 0) ON CONFLICT (one) DO NOTHING;
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY, balance BIGINT NOT NULL, held BIGINT NOT NULL, floor BIGINT NOT NULL, owed BIGINT NOT NULL,
    opened_at BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS holds (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL, amount BIGINT NOT NULL, opened_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, digest BIGINT NOT NULL, expired BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS holds_expiry ON holds (expired, expires_at);
CREATE TABLE IF NOT EXISTS transactions (
    number {number}, id TEXT NOT NULL UNIQUE, kind BIGINT NOT NULL, time BIGINT NOT NULL, digest BIGINT NOT NULL,
    hold_digest BIGINT, account TEXT, amount BIGINT NOT NULL, undone BIGINT NOT NULL, held BIGINT NOT NULL,
    reference TEXT, note TEXT NOT NULL, operator TEXT, split TEXT, model TEXT, price BIGINT, prompt BIGINT, cached BIGINT,
    output BIGINT, accepted BIGINT, outcome BIGINT, first_token_ms BIGINT, total_ms BIGINT, late BIGINT);
CREATE INDEX IF NOT EXISTS transactions_time_number ON transactions (kind, time, number);
CREATE TABLE IF NOT EXISTS postings (
    number {number}, account TEXT NOT NULL, amount BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS postings_account ON postings (account, number);
CREATE TABLE IF NOT EXISTS flows (
    account TEXT NOT NULL, hour BIGINT NOT NULL, earned BIGINT NOT NULL, refunded BIGINT NOT NULL,
    requests BIGINT NOT NULL, PRIMARY KEY (account, hour));
CREATE INDEX IF NOT EXISTS flows_hour ON flows (hour);
CREATE TABLE IF NOT EXISTS traffic (
    hour BIGINT NOT NULL, model TEXT NOT NULL, outcome BIGINT NOT NULL, late BIGINT NOT NULL, requests BIGINT NOT NULL,
    prompt BIGINT NOT NULL, cached BIGINT NOT NULL, output BIGINT NOT NULL, accepted BIGINT NOT NULL, amount BIGINT NOT NULL,
    PRIMARY KEY (hour, model, outcome, late));
CREATE TABLE IF NOT EXISTS prices (version {number}, list TEXT NOT NULL, published_at BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS checked (account TEXT PRIMARY KEY, balance BIGINT NOT NULL);
";

/// Takes the lock that every writer holds until it commits.
pub(crate) const LOCK: &str = "UPDATE books SET groups = groups + 1 WHERE one = 1 RETURNING version, next, violation";

pub(crate) const SET_NEXT: &str = "UPDATE books SET next = $1 WHERE one = 1";

pub(crate) static FIND_HOLDS: Bulk = Bulk {
    text: "SELECT id, customer, amount, opened_at, expires_at, digest, expired FROM holds WHERE id IN (SELECT key FROM {rows})",
    columns: &[("key", Text)],
};

pub(crate) static FIND_TRANSACTIONS: Bulk = Bulk {
    text: "SELECT id, number, kind, digest, hold_digest, time, account, amount, undone, outcome FROM transactions \
           WHERE id IN (SELECT key FROM {rows})",
    columns: &[("key", Text)],
};

pub(crate) static FIND_ACCOUNTS: Bulk = Bulk {
    text: "SELECT id, balance, held, floor, owed, opened_at FROM accounts WHERE id IN (SELECT key FROM {rows})",
    columns: &[("key", Text)],
};

pub(crate) const POSTINGS_OF: &str =
    "SELECT account, amount FROM postings WHERE number >= $1 AND number < $2 ORDER BY number";

pub(crate) const IMMATURE: &str =
    "SELECT CAST(COALESCE(SUM(earned - refunded), 0) AS BIGINT) FROM flows WHERE account = $1 AND hour > $2";

pub(crate) static PUT_ACCOUNTS: Bulk = Bulk {
    text: "INSERT INTO accounts (id, balance, held, floor, owed, opened_at) \
           SELECT id, balance, held, floor, owed, opened_at FROM {rows} WHERE true \
           ON CONFLICT (id) DO UPDATE SET balance = excluded.balance, held = excluded.held, floor = excluded.floor, \
           owed = excluded.owed",
    columns: &[("id", Text), ("balance", Int), ("held", Int), ("floor", Int), ("owed", Int), ("opened_at", Int)],
};

pub(crate) static NEW_HOLDS: Bulk = Bulk {
    text: "INSERT INTO holds (id, customer, amount, opened_at, expires_at, digest, expired) \
           SELECT id, customer, amount, opened_at, expires_at, digest, expired FROM {rows} WHERE true",
    columns: &[
        ("id", Text),
        ("customer", Text),
        ("amount", Int),
        ("opened_at", Int),
        ("expires_at", Int),
        ("digest", Int),
        ("expired", Int),
    ],
};

pub(crate) static EXPIRED_HOLDS: Bulk =
    Bulk { text: "UPDATE holds SET expired = 1 WHERE id IN (SELECT key FROM {rows})", columns: &[("key", Text)] };

pub(crate) static ENDED_HOLDS: Bulk =
    Bulk { text: "DELETE FROM holds WHERE id IN (SELECT key FROM {rows})", columns: &[("key", Text)] };

pub(crate) static NEW_TRANSACTIONS: Bulk = Bulk {
    text: "INSERT INTO transactions (number, id, kind, time, digest, hold_digest, account, amount, undone, held, reference, \
           note, operator, split, model, price, prompt, cached, output, accepted, outcome, first_token_ms, total_ms, late) \
           SELECT number, id, kind, time, digest, hold_digest, account, amount, undone, held, reference, \
           note, operator, split, model, price, prompt, cached, output, accepted, outcome, first_token_ms, total_ms, late \
           FROM {rows} WHERE true",
    columns: &[
        ("number", Int),
        ("id", Text),
        ("kind", Int),
        ("time", Int),
        ("digest", Int),
        ("hold_digest", Int),
        ("account", Text),
        ("amount", Int),
        ("undone", Int),
        ("held", Int),
        ("reference", Text),
        ("note", Text),
        ("operator", Text),
        ("split", Text),
        ("model", Text),
        ("price", Int),
        ("prompt", Int),
        ("cached", Int),
        ("output", Int),
        ("accepted", Int),
        ("outcome", Int),
        ("first_token_ms", Int),
        ("total_ms", Int),
        ("late", Int),
    ],
};

pub(crate) static NEW_POSTINGS: Bulk = Bulk {
    text: "INSERT INTO postings (number, account, amount) SELECT number, account, amount FROM {rows} WHERE true",
    columns: &[("number", Int), ("account", Text), ("amount", Int)],
};

pub(crate) static ADD_FLOWS: Bulk = Bulk {
    text: "INSERT INTO flows (account, hour, earned, refunded, requests) \
           SELECT account, hour, earned, refunded, requests FROM {rows} WHERE true \
           ON CONFLICT (account, hour) DO UPDATE SET earned = flows.earned + excluded.earned, \
           refunded = flows.refunded + excluded.refunded, \
           requests = flows.requests + excluded.requests",
    columns: &[("account", Text), ("hour", Int), ("earned", Int), ("refunded", Int), ("requests", Int)],
};

pub(crate) static ADD_TRAFFIC: Bulk = Bulk {
    text: "INSERT INTO traffic (hour, model, outcome, late, requests, prompt, cached, output, accepted, amount) \
           SELECT hour, model, outcome, late, requests, prompt, cached, output, accepted, amount FROM {rows} WHERE true \
           ON CONFLICT (hour, model, outcome, late) DO UPDATE SET requests = traffic.requests + excluded.requests, \
           prompt = traffic.prompt + excluded.prompt, cached = traffic.cached + excluded.cached, \
           output = traffic.output + excluded.output, accepted = traffic.accepted + excluded.accepted, \
           amount = traffic.amount + excluded.amount",
    columns: &[
        ("hour", Int),
        ("model", Text),
        ("outcome", Int),
        ("late", Int),
        ("requests", Int),
        ("prompt", Int),
        ("cached", Int),
        ("output", Int),
        ("accepted", Int),
        ("amount", Int),
    ],
};

pub(crate) const SET_UNDONE: &str = "UPDATE transactions SET undone = $1 WHERE number = $2";
