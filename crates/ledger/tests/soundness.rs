//! A check finds what anybody does to the books behind the rules' back, on both databases; then payouts stop, serving goes on.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use ledger::{AccountId, Database, Extent, Ledger, LedgerError, Micros, Refusal, What};
use sqlx::{ConnectOptions, Connection};
use support::postgres::Cluster;
use support::{Place, account, ada, hold, settlement, state};

/// What is done to the books, what the check says, and whether only a check of everything sees it.
const TAMPERS: &[(&str, &str, bool)] = &[
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 'network'", "all balances add up to 1 micro-dollars", false),
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 'network'", "the balance of network is not", false),
    ("UPDATE postings SET amount = amount + 1 WHERE number = 193", "postings of transaction 3 do not add up", true),
    ("UPDATE postings SET amount = amount - 1 WHERE number = 192", "settlement 3 did not move what it cost", true),
    ("DELETE FROM postings WHERE number = 194", "the balance of author:bo is not", true),
    ("UPDATE transactions SET amount = amount + 1 WHERE number = 3", "settlement 3 did not move what it cost", true),
    ("DELETE FROM transactions WHERE number = 3", "1 transactions are missing", true),
    ("INSERT INTO postings (number, account, amount) VALUES (64000, 'network', 5)", "posting 64000 is of no", false),
    ("UPDATE accounts SET held = held + 1 WHERE id = 'customer:ada'", "what customer:ada has held is not", false),
    ("DELETE FROM holds WHERE id = 'open'", "what customer:ada has held is not", false),
    ("UPDATE accounts SET floor = 10000000 WHERE id = 'network'", "network is below its floor", false),
    ("DELETE FROM accounts WHERE id = 'insurance'", "the account insurance is gone", false),
    ("UPDATE traffic SET requests = requests + 1", "the sums of the hour", true),
];

async fn tamper(cluster: Option<&Cluster>, database: &Database, sql: &'static str) {
    match (cluster, database) {
        (Some(cluster), database) => cluster.tamper(database, sql),
        (None, Database::Sqlite(path)) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.unwrap();
            assert!(sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected() > 0);
            connection.close().await.unwrap();
        }
        (None, Database::Postgres(_)) => unreachable!(),
    }
}

/// Books with something in them, partly checked.
async fn fill(ledger: &Ledger) {
    ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
    ledger.open_account("o1", &account("customer:bob"), Micros(-100)).await.unwrap();
    for id in ["r1", "r2", "r3"] {
        ledger.hold(hold(id, 1_000)).await.unwrap();
        ledger.settle(settlement(id, 777)).await.unwrap();
    }
    ledger.hold(hold("open", 50)).await.unwrap();
}

async fn faults_are_found(place: &Place, cluster: Option<&Cluster>, (sql, says, all): (&'static str, &str, bool)) {
    let ledger = place.open().await;
    fill(&ledger).await;
    let clean = ledger.check(Extent::New).await.unwrap();
    assert_eq!((clean.transactions, clean.faults.as_slice()), (5, &[][..]));
    tamper(cluster, &place.database, sql).await;
    let found = ledger.check(if all { Extent::Everything } else { Extent::New }).await.unwrap();
    assert!(found.faults.iter().any(|fault| fault.contains(says)), "{sql}: {:?}", found.faults);
    let health = ledger.health().await;
    assert!(health.violation.unwrap().contains(says), "{sql}");
    // Payouts stop, for every gateway; serving goes on.
    let other = Ledger::open(ledger::Config { spool: None, ..place.config() }).await.unwrap();
    let stopped = other.payout("p1", &account("customer:ada"), Micros(1)).await.unwrap_err();
    assert!(matches!(stopped, LedgerError::Refused(Refusal::Unsound(_))), "{stopped}");
    other.hold(hold("after", 5)).await.unwrap();
    other.release("after").await.unwrap();
    assert!(!other.clear_violation().await.unwrap().is_sound());
    assert!(other.health().await.violation.is_some());
}

async fn clean_books_stay_clean(place: &Place) {
    let ledger = place.open().await;
    fill(&ledger).await;
    assert_eq!(ledger.check(Extent::New).await.unwrap().transactions, 5);
    assert_eq!(ledger.check(Extent::New).await.unwrap().transactions, 0);
    ledger.deposit("d2", &ada(), Micros(5)).await.unwrap();
    ledger.release("open").await.unwrap();
    let refund = What::Refund { settlement: "r2".to_owned(), amount: Micros(776) };
    ledger.order("f", refund, "").await.unwrap();
    let checked = ledger.check(Extent::New).await.unwrap();
    assert_eq!((checked.transactions, checked.up_to, checked.is_sound()), (3, 8, true));
    let checked = ledger.check(Extent::Everything).await.unwrap();
    assert_eq!((checked.transactions, checked.accounts, checked.faults), (8, 7, vec![]));
    let health = ledger.health().await;
    assert_eq!((health.checked, health.checked_at, health.violation), (8, support::BEGIN, None));
    // A statement of these books adds up, and every account's proof holds.
    let key = ledger::SigningKey::from_bytes(&[9; 32]);
    let leaves = ledger.statement(&key).await.unwrap();
    let said = leaves.verify(Some(&key.verifying_key().to_bytes())).unwrap();
    assert_eq!((said.accounts, said.transactions, said.time), (7, 8, support::BEGIN));
    assert_eq!(state(&ledger, &AccountId::network()).await.0, leaves.leaves[4].balance.0);
}

async fn a_fault_that_was_mended_can_be_cleared(place: &Place, cluster: Option<&Cluster>) {
    let ledger = place.open().await;
    fill(&ledger).await;
    tamper(cluster, &place.database, "UPDATE accounts SET balance = balance + 1 WHERE id = 'network'").await;
    assert!(!ledger.check(Extent::New).await.unwrap().is_sound());
    tamper(cluster, &place.database, "UPDATE accounts SET balance = balance - 1 WHERE id = 'network'").await;
    // Sound again, but somebody has to look first.
    assert!(ledger.check(Extent::New).await.unwrap().is_sound());
    assert!(ledger.health().await.violation.is_some());
    assert!(ledger.clear_violation().await.unwrap().is_sound());
    assert!(ledger.health().await.violation.is_none());
    ledger.payout("p1", &ada(), Micros(1)).await.unwrap();
}

fn on(cluster: Option<&Cluster>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = || {
        let folder = tempfile::tempdir().unwrap();
        let database = cluster.map_or_else(|| Database::Sqlite(folder.path().join("books")), Cluster::database);
        (Place::new(database, folder.path()), folder)
    };
    for tamper in TAMPERS {
        let (place, _folder) = place();
        runtime.block_on(faults_are_found(&place, cluster, *tamper));
    }
    let (first, _folder) = place();
    runtime.block_on(clean_books_stay_clean(&first));
    let (second, _folder) = place();
    runtime.block_on(a_fault_that_was_mended_can_be_cleared(&second, cluster));
}

#[test]
fn faults_are_found_in_sqlite() {
    on(None);
}

#[test]
fn faults_are_found_in_postgres() {
    if let Some(cluster) = Cluster::start() {
        on(Some(&cluster));
    }
}
