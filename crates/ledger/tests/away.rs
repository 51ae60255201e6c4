//! While the database is away nobody is served who would have to pay, and nothing that was done is lost.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use ledger::{Config, Database, Durability, Ledger, LedgerError, Micros};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::postgres::Cluster;
use support::{Place, ada, hold, settlement, state, sums};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until nothing waits in the spool any more.
async fn drained(ledger: &Ledger) {
    for _ in 0..2400 {
        if ledger.health().await.waiting == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("it still waits: {:?}", ledger.health().await);
}

#[test]
fn a_database_that_goes_and_comes_back_has_everything_once() {
    let Some(mut cluster) = Cluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(cluster.database(), folder.path());
    runtime().block_on(async {
        let ledger = place.open().await;
        ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
        for id in ["r1", "r2", "r3", "r4"] {
            ledger.hold(hold(id, 1_000)).await.unwrap();
        }
        ledger.settle(settlement("r1", 100)).await.unwrap();
        cluster.stop();
        // Fails closed: a hold that nobody can vouch for is none.
        let away = ledger.hold(hold("r5", 1_000)).await.unwrap_err();
        assert!(matches!(away, LedgerError::Away(_)), "{away}");
        assert!(away.to_string().contains("try again with the same id"), "{away}");
        // What was done is kept, in order; a repetition too.
        assert!(ledger.settle(settlement("r2", 200)).await.unwrap().queued);
        assert!(ledger.settle(settlement("r2", 200)).await.unwrap().queued);
        assert!(ledger.release("r3").await.unwrap().queued);
        assert!(ledger.settle(settlement("r1", 100)).await.unwrap().queued);
        let health = ledger.health().await;
        assert!(health.away.is_some());
        assert_eq!(health.waiting, 4);
        // The process ends and another begins: nothing is lost.
        drop(ledger);
        cluster.serve();
        let ledger = place.open().await;
        drained(&ledger).await;
        assert_eq!(state(&ledger, &ada()).await, (999_700, 1_000, 998_700));
        assert!(ledger.settle(settlement("r2", 200)).await.unwrap().repeated);
        // Once more, without an end of the process.
        cluster.stop();
        assert!(ledger.settle(settlement("r4", 300)).await.unwrap().queued);
        cluster.serve();
        drained(&ledger).await;
        ledger.hold(hold("r5", 1_000)).await.unwrap();
        assert_eq!(state(&ledger, &ada()).await, (999_400, 1_000, 998_400));
        assert_eq!(sums(&ledger).await.0, 0);
        assert_eq!(ledger.health().await.set_aside, 0);
    });
}

/// Not a test of its own: settles while the disk takes less and less.
#[test]
#[ignore = "run by the next test, with a limit on the size of files"]
fn settle_until_the_disk_is_full() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let folder = Path::new(&folder);
    let place = Place::new(Database::Sqlite(folder.join("books")), folder);
    runtime().block_on(async {
        let ledger = Ledger::open(Config { spool_bytes: 40_000, ..place.config() }).await.unwrap();
        for number in 0..HOLDS {
            let id = format!("r{number}");
            let told = match ledger.settle(settlement(&id, 10)).await {
                Ok(done) if done.queued => format!("queued {id}"),
                Ok(_) => format!("settled {id}"),
                Err(error) => format!("failed {error}"),
            };
            println!("{told}");
        }
    });
}

const CHILD_FOLDER: &str = "LOCKSTEP_TEST_FOLDER";
const HOLDS: usize = 400;

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(Database::Sqlite(folder.path().join("books")), folder.path());
    runtime().block_on(async {
        let ledger = place.open().await;
        ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
        for number in 0..HOLDS {
            ledger.hold(hold(&format!("r{number}"), 1_000)).await.unwrap();
        }
    });
    // No file may grow beyond what the books have and a little more; writing beyond fails, as it does on a full disk.
    let blocks = std::fs::metadata(folder.path().join("books")).unwrap().len() / 512 + 16;
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "settle_until_the_disk_is_full", "--ignored", "--nocapture", "--quiet"])
        .env(CHILD_FOLDER, folder.path())
        .output()
        .unwrap();
    let output = String::from_utf8(child.stdout).unwrap();
    let told = |word: &str| {
        let lines = output.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (settled, queued, failed) = (told("settled "), told("queued "), told("failed "));
    assert_eq!(settled.len() + queued.len() + failed.len(), HOLDS, "{output}");
    assert!(
        !settled.is_empty() && !queued.is_empty() && !failed.is_empty(),
        "{} {} {output}",
        settled.len(),
        queued.len()
    );
    assert!(failed.iter().all(|error| error.contains("is full")), "{failed:?}");
    // There is room again.
    runtime().block_on(async {
        let ledger = place.open().await;
        drained(&ledger).await;
        for id in settled.iter().chain(&queued) {
            assert!(ledger.transaction(id).await.unwrap().is_some(), "{id} was acknowledged");
        }
        let paid = (settled.len() + queued.len()) as i64;
        let held = (HOLDS as i64 - paid) * 1_000;
        assert_eq!(state(&ledger, &ada()).await, (1_000_000 - 10 * paid, held, 1_000_000 - 10 * paid - held));
        assert!(ledger.check(ledger::Extent::Everything).await.unwrap().is_sound());
    });
}

#[test]
fn what_waits_survives_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(Database::Sqlite(folder.path().join("books")), folder.path());
    runtime().block_on(async {
        let ledger = place.open().await;
        ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
        ledger.hold(hold("r1", 1_000)).await.unwrap();
        drop(ledger);
        // What a kill leaves: one whole group, and the beginning of a second.
        let operation = ledger::Operation::Settle(settlement("r1", 10));
        let spool = place.folder.join("spool");
        std::fs::remove_file(&spool).unwrap();
        let mut journal = tlog::Journal::open(&spool, b"lockstep spool 1", |_, _| Ok(())).unwrap();
        journal.append(&[&serde_json::to_vec(&[operation]).unwrap()]).unwrap();
        drop(journal);
        let mut file = std::fs::OpenOptions::new().append(true).open(&spool).unwrap();
        file.write_all(b"LKRG\x40\x00\x00\x00torn").unwrap();
        drop(file);
        let ledger = place.open().await;
        drained(&ledger).await;
        assert_eq!(state(&ledger, &ada()).await, (999_990, 0, 999_990));
    });
}

#[test]
fn what_the_rules_refuse_in_the_end_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(Database::Sqlite(folder.path().join("books")), folder.path());
    runtime().block_on(async {
        let ledger = place.open().await;
        ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
        ledger.hold(hold("r1", 1_000)).await.unwrap();
        drop(ledger);
        let spool = place.folder.join("spool");
        std::fs::remove_file(&spool).unwrap();
        let mut journal = tlog::Journal::open(&spool, b"lockstep spool 1", |_, _| Ok(())).unwrap();
        for id in ["nobody", "r1"] {
            let operation = ledger::Operation::Settle(settlement(id, 10));
            journal.append(&[&serde_json::to_vec(&[operation]).unwrap()]).unwrap();
        }
        drop(journal);
        let ledger = place.open().await;
        drained(&ledger).await;
        assert_eq!(state(&ledger, &ada()).await.0, 999_990);
        assert_eq!(ledger.health().await.set_aside, 1);
        let refused = std::fs::read_to_string(place.folder.join("spool.refused")).unwrap();
        assert!(refused.contains("there is no hold nobody") && refused.contains("\"settle\""), "{refused}");
    });
}

#[test]
fn a_full_spool_says_so_and_keeps_what_it_has() {
    let Some(mut cluster) = Cluster::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(cluster.database(), folder.path());
    runtime().block_on(async {
        let ledger = Ledger::open(Config { spool_bytes: 1_500, ..place.config() }).await.unwrap();
        ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
        for number in 0..5 {
            ledger.hold(hold(&format!("r{number}"), 1_000)).await.unwrap();
        }
        cluster.stop();
        let mut kept = vec![];
        for number in 0..5 {
            match ledger.settle(settlement(&format!("r{number}"), 10)).await {
                Ok(done) => kept.push(done.id),
                Err(error) => {
                    assert!(matches!(error, LedgerError::Spool(_)), "{error}");
                    assert!(error.to_string().contains("is full (1500 bytes)"), "{error}");
                }
            }
        }
        assert!((1..5).contains(&kept.len()), "{kept:?}");
        cluster.serve();
        drained(&ledger).await;
        for number in 0..5 {
            let id = format!("r{number}");
            assert_eq!(ledger.transaction(&id).await.unwrap().is_some(), kept.contains(&id));
        }
    });
}

#[test]
fn a_spool_is_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(Database::Sqlite(folder.path().join("books")), folder.path());
    runtime().block_on(async {
        let _ledger = place.open().await;
        let error = Ledger::open(place.config()).await.err().unwrap();
        assert!(error.to_string().contains("is used by another process"), "{error}");
    });
}

#[test]
fn a_database_that_cannot_be_opened_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let database: Database =
            format!("postgres://ada:secret@localhost/x?host={}", folder.path().display()).parse().unwrap();
        let error = Ledger::open(Config::new(database, folder.path().join("spool"))).await.err().unwrap().to_string();
        assert!(error.contains("localhost/x") && !error.contains("secret"), "{error}");
        std::fs::write(
            folder.path().join("books"),
            "this is no database, but it is long enough to look at twice".repeat(9),
        )
        .unwrap();
        let database = Database::Sqlite(folder.path().join("books"));
        let error =
            Ledger::open(Config { durability: Durability::Power, ..Config::new(database, folder.path().join("s2")) });
        assert!(error.await.err().unwrap().to_string().contains("not a database"));
    });
}
