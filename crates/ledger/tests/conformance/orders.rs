//! Orders: payouts, stakes, refunds.

use crate::refusal;
use crate::support::{BEGIN, HOUR, Place, account, ada, hold, settlement, state, sums};
use ledger::{AccountId, Micros, Refusal, Time, What};

pub(crate) async fn payouts_wait_for_the_audit_window(place: Place) {
    let ledger = place.open().await;
    let operator = AccountId::operator("n1").unwrap();
    // Late in an hour: what is earned then waits as long as what was earned at its beginning.
    place.pass(HOUR * 3 / 4);
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    ledger.hold(hold("r1", 1_000)).await.unwrap();
    ledger.settle(settlement("r1", 1_000)).await.unwrap();
    let immature =
        |payable| Refusal::Immature { account: account("operator:n1"), payable: Micros(payable), wanted: Micros(700) };
    assert_eq!(refusal(ledger.payout("p1", &operator, Micros(700)).await.unwrap_err()), immature(0));
    place.pass(47 * HOUR);
    assert_eq!(refusal(ledger.payout("p1", &operator, Micros(700)).await.unwrap_err()), immature(0));
    place.pass(HOUR - 60_000_000);
    assert_eq!(refusal(ledger.payout("p1", &operator, Micros(700)).await.unwrap_err()), immature(0));
    // What comes in between waits by itself.
    ledger.hold(ledger::Hold { expires_at: Time::MAX, ..hold("r2", 0) }).await.unwrap();
    ledger.settle(settlement("r2", 0)).await.unwrap();
    place.pass(2 * HOUR);
    assert_eq!(ledger.payable(&operator).await.unwrap(), Micros(700));
    ledger.payout("p1", &operator, Micros(700)).await.unwrap();
    assert!(ledger.payout("p1", &operator, Micros(700)).await.unwrap().repeated);
    assert_eq!(state(&ledger, &operator).await.0, 0);
    assert_eq!(state(&ledger, &AccountId::outside()).await.0, -300);
}

pub(crate) async fn stakes_are_slashed_and_appeals_undo_it(place: Place) {
    let ledger = place.open().await;
    let (operator, stake) = (account("operator:n1"), account("stake:n1"));
    ledger.deposit("d1", &operator, Micros(100)).await.unwrap();
    let node = || "n1".to_owned();
    ledger.order("s1", What::Stake { node: node(), amount: Micros(60) }, "").await.unwrap();
    assert!(matches!(refusal(ledger.payout("p1", &stake, Micros(1)).await.unwrap_err()), Refusal::Kind { .. }));
    let slash = |amount| What::Slash { node: node(), amount: Micros(amount) };
    assert!(matches!(
        refusal(ledger.order("x", slash(101), "").await.unwrap_err()),
        Refusal::Funds { available: Micros(100), .. }
    ));
    ledger.order("x", slash(70), "two receipts with one number").await.unwrap();
    assert_eq!((state(&ledger, &stake).await.0, state(&ledger, &operator).await.0), (0, 30));
    assert_eq!(state(&ledger, &AccountId::insurance()).await.0, 70);
    ledger.order("a", What::Appeal { slash: "x".to_owned() }, "").await.unwrap();
    assert_eq!((state(&ledger, &stake).await.0, state(&ledger, &operator).await.0), (60, 40));
    let twice = refusal(ledger.order("b", What::Appeal { slash: "x".to_owned() }, "").await.unwrap_err());
    assert!(matches!(twice, Refusal::AboveRest { left: Micros(0), .. }));
    let absent = refusal(ledger.order("c", What::Appeal { slash: "s1".to_owned() }, "").await.unwrap_err());
    assert!(matches!(absent, Refusal::NoTransaction { kind: "slash", .. }));
    // What was staked a moment ago could still be slashed: it waits like an earning.
    ledger.order("u", What::Unstake { node: node(), amount: Micros(60) }, "").await.unwrap();
    assert!(matches!(
        refusal(ledger.payout("p2", &operator, Micros(41)).await.unwrap_err()),
        Refusal::Immature { payable: Micros(40), .. }
    ));
    let (entry, _) = ledger.transaction("x").await.unwrap().unwrap();
    assert_eq!((entry.undone, entry.note.as_str()), (Micros(70), "two receipts with one number"));
}

pub(crate) async fn refunds_take_back_from_those_who_earned(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(1_000)).await.unwrap();
    ledger.hold(hold("r1", 1_000)).await.unwrap();
    ledger.settle(settlement("r1", 997)).await.unwrap();
    let refund = |amount| What::Refund { settlement: "r1".to_owned(), amount: Micros(amount) };
    for (id, amount) in [("f1", 1), ("f2", 500), ("f3", 33)] {
        ledger.order(id, refund(amount), "").await.unwrap();
        assert_eq!(sums(&ledger).await, (0, 0));
    }
    assert!(matches!(
        refusal(ledger.order("f4", refund(464), "").await.unwrap_err()),
        Refusal::AboveRest { left: Micros(463), .. }
    ));
    place.pass(72 * HOUR);
    let operator = account("operator:n1");
    let payable = ledger.payable(&operator).await.unwrap();
    ledger.payout("p1", &operator, payable).await.unwrap();
    ledger.order("f4", refund(463), "").await.unwrap();
    // In parts as at once: everybody gave back what they had earned, whoever was paid out owes it.
    for name in ["author:bo", "network", "insurance"] {
        assert_eq!(state(&ledger, &account(name)).await.0, 0, "{name}");
    }
    let owes = ledger.balance(&operator).await.unwrap().unwrap();
    assert_eq!((owes.balance.0, owes.owed), (-payable.0, payable));
    assert_eq!(state(&ledger, &ada()).await.0, 1_000);
    let earnings = ledger.earnings(BEGIN - HOUR, BEGIN + HOUR, Some("operator:")).await.unwrap();
    assert_eq!(earnings.iter().map(|row| row.earned.0 - row.refunded.0).collect::<Vec<_>>(), [0]);
}
