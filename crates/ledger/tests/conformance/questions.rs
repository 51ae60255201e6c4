//! Questions to the books.

use crate::support::{BEGIN, HOUR, Place, ada, hold, settlement};
use ledger::{Kind, Micros};

pub(crate) async fn questions_are_answered_by_page(place: Place) {
    let ledger = place.open().await;
    ledger.deposit("d1", &ada(), Micros(100_000)).await.unwrap();
    for number in 0..7 {
        let id = format!("r{number}");
        ledger.hold(hold(&id, 500)).await.unwrap();
        place.pass(1);
        if number != 3 {
            ledger.settle(settlement(&id, 100 + number)).await.unwrap();
        }
    }
    let names = |page: &[ledger::Balance]| page.iter().map(|row| row.account.to_string()).collect::<Vec<_>>();
    let first = ledger.accounts(None, None, 3).await.unwrap();
    assert_eq!(names(&first), ["author:bo", "customer:ada", "insurance"]);
    let rest = ledger.accounts(None, Some(&first[2].account), 10).await.unwrap();
    assert_eq!(names(&rest), ["network", "operator:n1", "outside"]);
    assert_eq!(
        names(&ledger.accounts(Some("r:"), None, 10).await.unwrap()),
        ["author:bo", "customer:ada", "operator:n1"]
    );
    assert!(ledger.accounts(Some("%"), None, 10).await.unwrap().is_empty());
    let page = ledger.postings(&ada(), None, 4).await.unwrap();
    assert_eq!(page.iter().map(|row| row.amount.0).collect::<Vec<_>>(), [-106, -105, -104, -102]);
    let page = ledger.postings(&ada(), Some(page[3].number), 10).await.unwrap();
    assert_eq!(
        page.iter().map(|row| (row.id.as_str(), row.kind)).collect::<Vec<_>>(),
        [("r1", Kind::Settle), ("r0", Kind::Settle), ("d1", Kind::Deposit)]
    );
    let page = ledger.settlements(BEGIN, BEGIN + HOUR, None, 4).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["r0", "r1", "r2", "r4"]);
    let page = ledger.settlements(BEGIN, BEGIN + 7, Some((page[3].time, page[3].number)), 4).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["r5"]);
    let holds = ledger.holds(None, 10).await.unwrap();
    assert_eq!(holds.iter().map(|row| (row.id.as_str(), row.amount.0)).collect::<Vec<_>>(), [("r3", 500)]);
    assert!(ledger.holds(Some((holds[0].expires_at, "r3")), 10).await.unwrap().is_empty());
    let earnings = ledger.earnings(BEGIN - HOUR, BEGIN + HOUR, None).await.unwrap();
    let sum = |of: fn(&ledger::Earnings) -> i64| earnings.iter().map(of).sum::<i64>();
    assert_eq!(sum(|row| row.earned.0), 618);
    assert_eq!(ledger.transactions(None, 2).await.unwrap().iter().map(|row| row.number).collect::<Vec<_>>(), [7, 6]);
    assert!(ledger.transaction("nobody").await.unwrap().is_none());
    let health = ledger.health().await;
    assert_eq!((health.away, health.waiting, health.violation), (None, 0, None));
}
