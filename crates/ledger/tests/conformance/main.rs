//! What the ledger promises, on both databases alike. Each case is a function that gets an empty place; the two tests at
//! the end run all of them, one on SQLite, one on a PostgreSQL of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod orders;
mod questions;
mod requests;
#[path = "../support/mod.rs"]
mod support;

use ledger::{Database, LedgerError, Refusal};
use std::future::Future;
use std::pin::Pin;
use support::Place;
use support::postgres::Cluster;

type Case = fn(Place) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |place| Box::pin($module::$name(place)))),*];
    };
}

cases![
    requests::a_paid_request_moves_what_it_cost_and_frees_the_rest,
    requests::what_is_done_twice_happens_once,
    requests::an_id_with_other_content_is_refused,
    requests::nobody_spends_what_they_do_not_have,
    requests::only_paid_requests_move_money,
    requests::a_released_hold_costs_nothing,
    requests::an_expired_hold_is_free_again_and_may_still_be_settled,
    orders::payouts_wait_for_the_audit_window,
    orders::stakes_are_slashed_and_appeals_undo_it,
    orders::refunds_take_back_from_those_who_earned,
    requests::a_clock_that_goes_back_harms_nothing,
    requests::a_group_answers_each_as_if_alone,
    questions::questions_are_answered_by_page,
    requests::bad_operations_are_refused_in_words,
];

fn refusal(error: LedgerError) -> Refusal {
    match error {
        LedgerError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

fn run(name: &str, case: Case, place: Place) {
    eprintln!("{name}");
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case(place));
}

#[test]
fn sqlite_conforms() {
    for (name, case) in CASES {
        let folder = tempfile::tempdir().unwrap();
        run(name, *case, Place::new(Database::Sqlite(folder.path().join("books/ledger.sqlite")), folder.path()));
    }
}

#[test]
fn postgres_conforms() {
    let Some(cluster) = Cluster::start() else { return };
    for (name, case) in CASES {
        let folder = tempfile::tempdir().unwrap();
        run(name, *case, Place::new(cluster.database(), folder.path()));
    }
}
