use super::*;
use crate::numbers::Mark;
use receipt::{Bundle, Monitor, Receipt};
use std::path::Path;

fn start(path: &Path) -> Recorder {
    Recorder::start(Folder::open(path).unwrap(), 1000).unwrap()
}

/// Records so many answers at once; gives their tickets.
async fn record(recorder: &Arc<Recorder>, count: u64) -> Vec<Ticket> {
    // Made before, so that all come at once.
    let drafts: Vec<Draft> = (0..count).map(Draft::example).collect();
    let task = |draft: Draft| {
        let recorder = recorder.clone();
        tokio::spawn(async move { recorder.record(draft).await.unwrap() })
    };
    let tasks: Vec<_> = drafts.into_iter().map(task).collect();
    let mut tickets = vec![];
    for task in tasks {
        tickets.push(task.await.unwrap());
    }
    tickets
}

/// Reads the whole log as a stranger would.
fn monitor(recorder: &Recorder) -> Monitor {
    let mut monitor = Monitor::new(recorder.node());
    for index in 0..recorder.log.size() {
        monitor.read(&recorder.log.entry(index).unwrap()).unwrap();
    }
    monitor
}

#[tokio::test]
async fn answers_at_once_share_a_synchronisation_and_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut tickets = vec![];
    for _ in 0..2 {
        let recorder = Arc::new(start(folder.path()));
        tickets.extend(record(&recorder, 1000).await);
    }
    let recorder = start(folder.path());
    for (i, ticket) in tickets.iter().enumerate() {
        let bundle = Bundle::from_bytes(&recorder.bundle(&ticket.name).unwrap().unwrap()).unwrap();
        let receipt = bundle.check().unwrap();
        assert_eq!(receipt.claims.seed, i as u64 % 1000, "each answer gets its own receipt");
        assert_eq!(recorder.receipt(&ticket.name).unwrap().unwrap().0, bundle.receipt);
        assert!(recorder.opens(&ticket.key.unwrap(), &receipt.hash));
        assert!(!recorder.opens(&tickets[(i + 1) % 2000].key.unwrap(), &receipt.hash));
    }
    assert_eq!((monitor(&recorder).receipts(), recorder.count()), (2000, 2000));
    let openings = std::fs::read(folder.path().join("openings/00000000/openings")).unwrap();
    let groups = openings.windows(4).filter(|four| four == b"LKRG").count();
    assert!(groups < 1000, "{groups} synchronisations for 2000 receipts");
}

#[tokio::test]
async fn every_number_that_was_taken_is_settled_in_the_log_also_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut taken_in_all = 0;
    for round in 0..5 {
        let recorder = Arc::new(start(folder.path()));
        assert_eq!(monitor(&recorder).unsettled().count(), 256, "only what was committed to just now is open");
        let mut kept = vec![];
        for i in 0..200 {
            let taken = recorder.take(Nonce::default()).unwrap();
            taken_in_all += 1;
            if i % 10 == 3 {
                kept.push(taken);
            }
            if i % 50 == 0 {
                record(&recorder, 1).await;
            }
        }
        if round % 2 == 0 {
            // A crash: what was open is never heard of again.
            kept.into_iter().for_each(std::mem::forget);
        }
    }
    let recorder = start(folder.path());
    let monitor = monitor(&recorder);
    assert_eq!(monitor.unsettled().count(), 256);
    assert!(monitor.committed() >= taken_in_all + 256);
}

#[tokio::test]
async fn without_its_mark_the_log_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Arc::new(start(folder.path()));
    std::mem::forget(recorder.take(Nonce::default()).unwrap());
    record(&recorder, 3).await;
    drop(recorder);
    std::fs::remove_file(folder.path().join(MARK)).unwrap();
    let recorder = start(folder.path());
    assert_eq!(monitor(&recorder).unsettled().count(), 256);
}

#[tokio::test]
async fn the_mark_follows_the_log_where_clients_choose_their_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Arc::new(start(folder.path()));
    std::mem::forget(recorder.take(Nonce::default()).unwrap());
    let mark = |recorder: &Recorder| Mark::read(&folder.path().join(MARK), recorder.log.size());
    for _ in 0..5 {
        record(&recorder, 1000).await;
    }
    assert_eq!(mark(&recorder).entry, 1, "a number was taken when the log had one entry, and is open");
    drop(recorder);
    // The next start aborts it, and then nothing is open.
    let recorder = Arc::new(start(folder.path()));
    assert_eq!(monitor(&recorder).unsettled().count(), 256);
    for _ in 0..5 {
        record(&recorder, 1000).await;
    }
    assert!(mark(&recorder).entry > 9000, "{:?}", mark(&recorder));
    drop(recorder);
    let recorder = start(folder.path());
    let monitor = monitor(&recorder);
    assert_eq!((monitor.receipts(), monitor.unsettled().count()), (10_000, 256));
}

#[test]
fn another_key_does_not_continue_the_log() {
    let folder = tempfile::tempdir().unwrap();
    drop(start(folder.path()));
    std::fs::write(folder.path().join("node.key"), "9".repeat(64)).unwrap();
    let again = Recorder::start(Folder::open(folder.path()).unwrap(), 1000);
    assert!(matches!(again, Err(StartError::OtherKey { .. })));
}

#[test]
fn receipts_of_an_earlier_format_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("receipts.log"), b"lockstep log 1\n\0").unwrap();
    let refused = Recorder::start(Folder::open(folder.path()).unwrap(), 1000);
    assert!(matches!(refused, Err(StartError::OldFormat { .. })));
    assert!(!folder.path().join("node.key").exists());
}

#[tokio::test]
async fn a_receipt_in_the_log_says_how_long_it_can_be_audited() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Arc::new(start(folder.path()));
    let ticket = record(&recorder, 1).await[0];
    let (bytes, _) = recorder.receipt(&ticket.name).unwrap().unwrap();
    assert_eq!(Receipt::parse(&bytes).unwrap().claims.opening_seconds, 1000);
}
