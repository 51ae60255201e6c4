//! A process that is killed before any statement, or after it, has lost nothing it acknowledged; and what is sent again
//! happens once.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use ledger::{Config, Database, Extent, Micros, What};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use support::postgres::Cluster;
use support::{HOUR, Place, account, ada, hold, settlement, state, sums};

const DATABASE: &str = "LOCKSTEP_TEST_DATABASE";
const FOLDER: &str = "LOCKSTEP_TEST_FOLDER";
/// The statement before which the process dies.
const DIE_AT: &str = "LOCKSTEP_TEST_DIE_AT";

/// A little of everything, in order. Each step is acknowledged on standard output.
async fn script(place: &Place, config: Config, mut told: impl FnMut(String)) {
    let ledger = support::open(config).await;
    let node = || "n1".to_owned();
    let mut tell = |done: ledger::Done| told(done.id);
    tell(ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap());
    tell(ledger.deposit("d2", &account("operator:n1"), Micros(500)).await.unwrap());
    tell(ledger.open_account("o1", &ada(), Micros(-100)).await.unwrap());
    let admitted = |result: Result<ledger::Done, ledger::LedgerError>| match result {
        Ok(done) => Some(done),
        // Ended before the kill.
        Err(ledger::LedgerError::Refused(ledger::Refusal::Ended { .. })) => None,
        Err(error) => unreachable!("{error}"),
    };
    for id in ["r1", "r2", "r3"] {
        admitted(ledger.hold(hold(id, 1_000)).await);
    }
    // A group of three.
    let group = tokio::join!(
        ledger.settle(settlement("r1", 777)),
        ledger.hold(hold("r4", 10)),
        ledger.settle(settlement("r2", 33))
    );
    tell(group.0.unwrap());
    admitted(group.1);
    tell(group.2.unwrap());
    tell(ledger.release("r3").await.unwrap());
    tell(ledger.order("s1", What::Stake { node: node(), amount: Micros(400) }, "").await.unwrap());
    tell(ledger.order("x1", What::Slash { node: node(), amount: Micros(300) }, "").await.unwrap());
    tell(ledger.order("a1", What::Appeal { slash: "x1".to_owned() }, "").await.unwrap());
    let refund = What::Refund { settlement: "r1".to_owned(), amount: Micros(77) };
    tell(ledger.order("f1", refund, "").await.unwrap());
    place.pass(HOUR);
    ledger.expire().await.unwrap();
    tell(ledger.settle(settlement("r4", 10)).await.unwrap());
    tell(ledger.payout("p1", &ada(), Micros(500)).await.unwrap());
    ledger.check(Extent::New).await.unwrap();
}

/// What the books hold after the script, however often it was begun.
async fn verify(place: &Place) {
    let ledger = place.open().await;
    assert_eq!(state(&ledger, &ada()).await, (998_757, 0, 998_857));
    assert_eq!(state(&ledger, &account("stake:n1")).await.0, 400);
    assert_eq!(sums(&ledger).await, (0, 0));
    let checked = ledger.check(Extent::Everything).await.unwrap();
    assert_eq!((checked.up_to, checked.faults), (12, vec![]));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Not a test of its own: the process that the next tests kill.
#[test]
#[ignore = "run by the next tests"]
fn work_until_killed() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let folder = std::env::var(FOLDER).unwrap();
    let place = Place::new(database.parse().unwrap(), Path::new(&folder));
    let left = AtomicI64::new(std::env::var(DIE_AT).unwrap().parse().unwrap());
    let watch = move |_: &str| {
        if left.fetch_sub(1, Ordering::SeqCst) == 0 {
            // Nobody is told, nothing is flushed: as good as kill -9, at this very statement.
            std::process::abort();
        }
    };
    let config = Config { watch: Some(Arc::new(watch)), ..place.config() };
    runtime().block_on(script(&place, config, |id| println!("done {id}")));
    println!("finished");
}

/// A folder in memory where there is one: hundreds of books are made and closed, and no kill asks what a disk has.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Kills the script at every statement; gives at how many.
fn kill_everywhere(new_place: &dyn Fn() -> (Place, tempfile::TempDir, String)) -> i64 {
    for die_at in 0.. {
        let (place, folder, database) = new_place();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "work_until_killed", "--ignored", "--nocapture", "--quiet"])
            .env(DATABASE, &database)
            .env(FOLDER, folder.path())
            .env(DIE_AT, die_at.to_string())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let output = String::from_utf8(child.stdout).unwrap();
        let acknowledged: BTreeSet<&str> = output.lines().filter_map(|line| line.strip_prefix("done ")).collect();
        runtime().block_on(async {
            let ledger = place.open().await;
            for id in acknowledged {
                assert!(ledger.transaction(id).await.unwrap().is_some(), "killed at {die_at}: {id} is lost");
            }
            let checked = ledger.check(Extent::Everything).await.unwrap();
            assert!(checked.is_sound(), "killed at {die_at}: {:?}", checked.faults);
            drop(ledger);
            // Everything is sent again.
            script(&place, place.config(), |_| {}).await;
            verify(&place).await;
        });
        if output.contains("finished") {
            return die_at;
        }
    }
    0
}

#[test]
fn a_kill_at_every_statement_loses_nothing_in_sqlite() {
    let statements = kill_everywhere(&|| {
        let folder = in_memory();
        let path = folder.path().join("books");
        let url = format!("sqlite:{}", path.display());
        (Place::new(Database::Sqlite(path), folder.path()), folder, url)
    });
    println!("killed at each of {statements} statements");
    assert!(statements > 60, "{statements}");
}

#[test]
fn a_kill_at_every_statement_loses_nothing_in_postgres() {
    let Some(cluster) = Cluster::start() else { return };
    let statements = kill_everywhere(&|| {
        let folder = in_memory();
        let (database, url) = cluster.database_and_url();
        (Place::new(database, folder.path()), folder, url)
    });
    println!("killed at each of {statements} statements");
    assert!(statements > 60, "{statements}");
}
