//! Holds and how they end.

use crate::refusal;
use crate::support::{BEGIN, HOUR, Place, account, ada, hold, settlement, state, sums};
use ledger::{AccountId, Kind, Micros, Outcome, Refusal, Split, Time, What};

pub(crate) async fn a_paid_request_moves_what_it_cost_and_frees_the_rest(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(1_000_000)).await.unwrap();
    ledger.hold(hold("r1", 10_000)).await.unwrap();
    assert_eq!(state(&ledger, &ada()).await, (1_000_000, 10_000, 990_000));
    let done = ledger.settle(settlement("r1", 4_001)).await.unwrap();
    assert_eq!((done.number, done.repeated, done.queued), (Some(2), false, false));
    assert_eq!(state(&ledger, &ada()).await, (995_999, 0, 995_999));
    for (name, amount) in [("operator:n1", 2_801), ("author:bo", 800), ("network", 240), ("insurance", 160)] {
        assert_eq!(state(&ledger, &account(name)).await.0, amount, "{name}");
    }
    assert_eq!(sums(&ledger).await, (0, 0));
    let (entry, lines) = ledger.transaction("r1").await.unwrap().unwrap();
    assert_eq!((entry.kind, entry.amount, entry.time), (Kind::Settle, Micros(4_001), BEGIN));
    let settled = entry.settled.unwrap();
    assert_eq!((settled.held, settled.usage.cached, settled.total_ms), (Micros(10_000), 40, 90));
    assert_eq!(entry.reference.as_deref(), Some("rcpt-00"));
    assert_eq!(lines.len(), 5);
    assert_eq!(lines.iter().map(|(_, amount)| amount.0).sum::<i64>(), 0);
}

pub(crate) async fn what_is_done_twice_happens_once(place: Place) {
    let ledger = place.open().await;
    for repeated in [false, true] {
        assert_eq!(ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap().repeated, repeated);
        assert_eq!(
            ledger.order("o1", What::Open { account: ada(), floor: Micros(-5) }, "").await.unwrap().repeated,
            repeated
        );
    }
    for repeated in [false, true] {
        assert_eq!(ledger.hold(hold("r1", 500)).await.unwrap().repeated, repeated);
    }
    let first = ledger.settle(settlement("r1", 300)).await.unwrap();
    drop(ledger);
    let ledger = place.open().await;
    let again = ledger.settle(settlement("r1", 300)).await.unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!((again.number, again.amount), (first.number, first.amount));
    // A hold that has ended must not admit a request again.
    let ended = Refusal::Ended { id: "r1".to_owned(), how: "settled" };
    assert_eq!(refusal(ledger.hold(hold("r1", 500)).await.unwrap_err()), ended);
    assert_eq!(refusal(ledger.release("r1").await.unwrap_err()), ended);
    assert_eq!(state(&ledger, &ada()).await, (700, 0, 705));
    assert_eq!(sums(&ledger).await, (0, 0));
}

pub(crate) async fn an_id_with_other_content_is_refused(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("x", &ada(), Micros(1_000)).await.unwrap();
    ledger.hold(hold("r1", 100)).await.unwrap();
    let other = |id: &str| Refusal::OtherContent(id.to_owned());
    assert_eq!(refusal(ledger.deposit("x", &ada(), Micros(1_001)).await.unwrap_err()), other("x"));
    assert_eq!(refusal(ledger.deposit("r1", &ada(), Micros(1)).await.unwrap_err()), other("r1"));
    assert_eq!(refusal(ledger.payout("x", &ada(), Micros(1_000)).await.unwrap_err()), other("x"));
    assert_eq!(refusal(ledger.hold(hold("x", 100)).await.unwrap_err()), other("x"));
    assert_eq!(refusal(ledger.hold(hold("r1", 101)).await.unwrap_err()), other("r1"));
    assert_eq!(refusal(ledger.settle(settlement("x", 1)).await.unwrap_err()), other("x"));
    ledger.settle(settlement("r1", 60)).await.unwrap();
    assert_eq!(refusal(ledger.settle(settlement("r1", 61)).await.unwrap_err()), other("r1"));
    assert_eq!(state(&ledger, &ada()).await.0, 940);
}

pub(crate) async fn nobody_spends_what_they_do_not_have(place: Place) {
    let ledger = place.open().await;
    assert_eq!(refusal(ledger.hold(hold("r0", 1)).await.unwrap_err()), Refusal::NoAccount(ada()));
    ledger.deposit("d1", &ada(), Micros(100)).await.unwrap();
    ledger.hold(hold("r1", 70)).await.unwrap();
    let funds =
        |available, wanted| Refusal::Funds { account: ada(), available: Micros(available), wanted: Micros(wanted) };
    assert_eq!(refusal(ledger.hold(hold("r2", 31)).await.unwrap_err()), funds(30, 31));
    ledger.open_account("credit", &ada(), Micros(-10)).await.unwrap();
    ledger.hold(hold("r2", 31)).await.unwrap();
    let above = Refusal::AboveHold { id: "r2".to_owned(), held: Micros(31), amount: Micros(32) };
    assert_eq!(refusal(ledger.settle(settlement("r2", 32)).await.unwrap_err()), above);
    assert!(matches!(
        refusal(ledger.open_account("less", &ada(), Micros(0)).await.unwrap_err()),
        Refusal::Floor { .. }
    ));
    assert_eq!(refusal(ledger.payout("p1", &ada(), Micros(10)).await.unwrap_err()), funds(9, 10));
    ledger.settle(settlement("r1", 70)).await.unwrap();
    ledger.settle(settlement("r2", 31)).await.unwrap();
    assert_eq!(state(&ledger, &ada()).await, (-1, 0, 9));
}

pub(crate) async fn only_paid_requests_move_money(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    for outcome in Outcome::ALL {
        ledger.hold(hold(outcome.name(), 100)).await.unwrap();
        ledger.settle(ledger::Settlement { outcome, ..settlement(outcome.name(), 50) }).await.unwrap();
    }
    assert_eq!(state(&ledger, &ada()).await, (950, 0, 950));
    let traffic = ledger.traffic(BEGIN - HOUR, BEGIN + HOUR).await.unwrap();
    assert_eq!(
        traffic.iter().map(|row| (row.outcome, row.requests, row.amount.0)).collect::<Vec<_>>(),
        Outcome::ALL.map(|outcome| (outcome, 1, 50))
    );
    assert!(traffic.iter().all(|row| row.hour <= BEGIN && row.hour > BEGIN - HOUR && row.usage.accepted == 5));
    let error = refusal(
        ledger.order("f", What::Refund { settlement: "free".to_owned(), amount: Micros(1) }, "").await.unwrap_err(),
    );
    assert!(matches!(error, Refusal::AboveRest { left: Micros(0), .. }));
}

pub(crate) async fn a_released_hold_costs_nothing(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    ledger.hold(hold("r1", 1_000)).await.unwrap();
    assert!(!ledger.release("r1").await.unwrap().repeated);
    assert!(ledger.release("r1").await.unwrap().repeated);
    let released = Refusal::Ended { id: "r1".to_owned(), how: "released" };
    assert_eq!(refusal(ledger.settle(settlement("r1", 1)).await.unwrap_err()), released);
    assert_eq!(refusal(ledger.hold(hold("r1", 1_000)).await.unwrap_err()), released);
    assert_eq!(refusal(ledger.release("r2").await.unwrap_err()), Refusal::NoHold("r2".to_owned()));
    assert_eq!(state(&ledger, &ada()).await, (1_000, 0, 1_000));
}

pub(crate) async fn an_expired_hold_is_free_again_and_may_still_be_settled(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(100)).await.unwrap();
    ledger.hold(hold("r1", 60)).await.unwrap();
    ledger.hold(hold("r2", 40)).await.unwrap();
    assert_eq!(ledger.expire().await.unwrap(), 0);
    place.pass(HOUR);
    assert_eq!(ledger.expire().await.unwrap(), 2);
    assert_eq!(ledger.expire().await.unwrap(), 0);
    assert_eq!(state(&ledger, &ada()).await, (100, 0, 100));
    let expired = Refusal::Ended { id: "r1".to_owned(), how: "expired" };
    assert_eq!(refusal(ledger.hold(hold("r1", 60)).await.unwrap_err()), expired);
    // The money is there.
    ledger.settle(settlement("r1", 60)).await.unwrap();
    ledger.payout("p1", &ada(), Micros(40)).await.unwrap();
    // It is not: the work was done, and the customer owes.
    ledger.settle(settlement("r2", 40)).await.unwrap();
    let balance = ledger.balance(&ada()).await.unwrap().unwrap();
    assert_eq!((balance.balance, balance.owed), (Micros(-40), Micros(40)));
    assert!(matches!(
        refusal(ledger.hold(ledger::Hold { expires_at: BEGIN + 2 * HOUR, ..hold("r3", 0) }).await.unwrap_err()),
        Refusal::Funds { .. }
    ));
    ledger.deposit("d2", &ada(), Micros(50)).await.unwrap();
    let balance = ledger.balance(&ada()).await.unwrap().unwrap();
    assert_eq!((balance.balance, balance.owed), (Micros(10), Micros(0)));
    assert_eq!(sums(&ledger).await, (0, 0));
}

pub(crate) async fn a_clock_that_goes_back_harms_nothing(place: Place) {
    let ledger = place.open().await;
    let operator = AccountId::operator("n1").unwrap();
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    ledger.hold(hold("r1", 1_000)).await.unwrap();
    place.pass(-1_000 * HOUR);
    assert_eq!(ledger.expire().await.unwrap(), 0);
    ledger.settle(settlement("r1", 1_000)).await.unwrap();
    let (entry, _) = ledger.transaction("r1").await.unwrap().unwrap();
    assert_eq!(entry.time, BEGIN);
    place.pass(1_000 * HOUR);
    // It did not mature in a past that never was.
    assert_eq!(ledger.payable(&operator).await.unwrap(), Micros(0));
    place.pass(-1_000_000 * HOUR);
    assert_eq!(ledger.payable(&operator).await.unwrap(), Micros(0));
    let expired = refusal(ledger.hold(ledger::Hold { expires_at: Time::MIN, ..hold("r2", 0) }).await.unwrap_err());
    assert_eq!(expired, Refusal::Expired("r2".to_owned()));
    assert_eq!(sums(&ledger).await, (0, 0));
}

pub(crate) async fn a_group_answers_each_as_if_alone(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(100_000)).await.unwrap();
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let id = format!("r{number}");
                // Every third asks for too much.
                let amount = if number % 3 == 0 { 1_000_000 } else { 500 };
                let held = ledger.hold(hold(&id, amount)).await;
                if held.is_ok() {
                    ledger.settle(settlement(&id, 100)).await.unwrap();
                }
                held.is_ok()
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += i64::from(task.await.unwrap());
    }
    // As many as there was money for at that moment; each of them once.
    assert!((1..=200).contains(&admitted));
    assert_eq!(state(&ledger, &ada()).await, (100_000 - 100 * admitted, 0, 100_000 - 100 * admitted));
    assert_eq!(sums(&ledger).await, (0, 0));
}

pub(crate) async fn bad_operations_are_refused_in_words(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    let somebody = account("customer:b");
    let deposit = |amount| ledger.deposit("bad", &somebody, Micros(amount));
    for amount in [0, -1, i64::MIN, Micros::MAX.0 + 1] {
        assert_eq!(refusal(deposit(amount).await.unwrap_err()), Refusal::Amount(Micros(amount)));
    }
    assert!(refusal(deposit(-1).await.unwrap_err()).to_string().contains("from 0 to 1000000000.000000, not -0.000001"));
    let long = "x".repeat(129);
    for id in ["", "a b", "a\n", "a\0", &long] {
        assert!(matches!(refusal(ledger.deposit(id, &ada(), Micros(1)).await.unwrap_err()), Refusal::Text { .. }));
    }
    assert!(matches!(refusal(ledger.hold(hold("h", -1)).await.unwrap_err()), Refusal::Amount(_)));
    let hold_of = |name: &str| ledger::Hold { customer: account(name), ..hold("h", 1) };
    assert!(matches!(refusal(ledger.hold(hold_of("operator:x")).await.unwrap_err()), Refusal::Kind { .. }));
    assert!(matches!(
        refusal(ledger.payout("p", &AccountId::outside(), Micros(1)).await.unwrap_err()),
        Refusal::Kind { .. }
    ));
    ledger.hold(hold("h", 100)).await.unwrap();
    let wrong = ledger::Settlement { operator: account("author:bo"), ..settlement("h", 1) };
    assert!(matches!(refusal(ledger.settle(wrong).await.unwrap_err()), Refusal::Kind { .. }));
    let wrong = ledger::Settlement { model: "a\0b".to_owned(), ..settlement("h", 1) };
    assert!(matches!(refusal(ledger.settle(wrong).await.unwrap_err()), Refusal::Text { .. }));
    let many = ledger::Usage { prompt: u64::MAX, ..Default::default() };
    let wrong = ledger::Settlement { usage: many, ..settlement("h", 1) };
    assert!(matches!(refusal(ledger.settle(wrong).await.unwrap_err()), Refusal::Tokens(_)));
    let note = ledger.order("n", What::Deposit { account: ada(), amount: Micros(1) }, "a\0b").await;
    assert!(matches!(refusal(note.unwrap_err()), Refusal::Text { .. }));
    // Nothing of it left a trace.
    assert_eq!(state(&ledger, &ada()).await, (1_000, 100, 900));
    ledger.settle(ledger::Settlement { split: Split::standard(), ..settlement("h", 100) }).await.unwrap();
    // Many deposits of the most there may be do not overflow: they are refused before.
    for number in 0..999 {
        ledger.deposit(&format!("m{number}"), &account("customer:m"), Micros::MAX).await.unwrap();
    }
    let much = ledger.deposit("m", &account("customer:m"), Micros::MAX).await.unwrap_err();
    assert!(matches!(refusal(much), Refusal::Balance(_)));
    assert_eq!(sums(&ledger).await, (0, 0));
}
