//! Whatever is asked, in whatever order and however often: the books stay sound.

use crate::account::AccountId;
use crate::money::Micros;
use crate::operation::{Hold, Operation, Order, Outcome, Settlement, Time, What};
use crate::price::Usage;
use crate::rules::apply;
use crate::slice::{HOUR, Slice};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NAMES: [&str; 9] =
    ["customer:a", "customer:b", "operator:n", "operator:m", "stake:n", "author:bo", "network", "insurance", "outside"];

fn account(index: usize) -> AccountId {
    NAMES[index % NAMES.len()].parse().unwrap()
}

/// Books in memory, of which everything was read.
fn books() -> Slice {
    let mut slice = Slice { next: 1, ..Slice::default() };
    for index in 0..NAMES.len() {
        slice.accounts.insert(account(index), None);
        slice.immature.insert(account(index), Micros::ZERO);
    }
    slice.accounts.insert("stake:m".parse().unwrap(), None);
    slice
}

fn amounts() -> impl Strategy<Value = Micros> {
    prop_oneof![
        20 => (0i64..2_000).prop_map(Micros),
        1 => any::<i64>().prop_map(Micros),
        1 => Just(Micros::MAX),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let id = (0u8..12).prop_map(|id| format!("i{id}"));
    prop_oneof![
        (0usize..9, amounts()).prop_map(|(index, amount)| What::Deposit { account: account(index), amount }),
        (0usize..9, amounts()).prop_map(|(index, amount)| What::Deposit { account: account(index % 2), amount }),
        (0usize..9, -500i64..100)
            .prop_map(|(index, floor)| What::Open { account: account(index), floor: Micros(floor) }),
        (0usize..9, amounts()).prop_map(|(index, amount)| What::Payout { account: account(index), amount }),
        amounts().prop_map(|amount| What::Stake { node: "n".to_owned(), amount }),
        amounts().prop_map(|amount| What::Unstake { node: "n".to_owned(), amount }),
        amounts().prop_map(|amount| What::Slash { node: "n".to_owned(), amount }),
        id.clone().prop_map(|slash| What::Appeal { slash }),
        (id, amounts()).prop_map(|(settlement, amount)| What::Refund { settlement, amount }),
    ]
}

fn settlement(hold: String, amount: Micros, outcome: usize, node: bool, odd: u32) -> Settlement {
    let split = format!("operator={},author:bo={odd},network=60000,insurance=40000", 900_000 - odd);
    Settlement {
        hold,
        amount,
        operator: account(if node { 2 } else { 3 }),
        split: split.parse().unwrap(),
        usage: Usage { prompt: 10, cached: 4, output: 3, accepted: 1 },
        model: "sql".to_owned(),
        price: 1,
        receipt: None,
        outcome: Outcome::ALL[outcome],
        first_token_ms: None,
        total_ms: 5,
        late: false,
    }
}

/// Few ids, so that they meet: repetitions, other content, refunds of what there is.
fn operations() -> impl Strategy<Value = Operation> {
    let id = || (0u8..12).prop_map(|id| format!("i{id}"));
    let hold = (id(), 0usize..3, amounts(), 0i64..40).prop_map(|(id, customer, amount, hours)| {
        Operation::Hold(Hold { id, customer: account(customer), amount, expires_at: hours * HOUR })
    });
    let settle = (id(), amounts(), 0usize..6, any::<bool>(), 0u32..900_000);
    let settle = settle.prop_map(|(id, amount, outcome, node, odd)| {
        Operation::Settle(settlement(id, amount, outcome.saturating_sub(2), node, odd))
    });
    prop_oneof![
        3 => hold,
        3 => settle,
        1 => id().prop_map(|hold| Operation::Release { hold }),
        1 => id().prop_map(|hold| Operation::Expire { hold }),
        4 => (id(), what()).prop_map(|(id, what)| Operation::Order(Order { id, what, note: String::new() })),
    ]
}

/// What must be so after every operation.
fn check(slice: &Slice) {
    let (mut held, mut sums): (BTreeMap<&AccountId, i64>, BTreeMap<&AccountId, i64>) = Default::default();
    for hold in slice.holds.values().filter(|hold| !hold.expired) {
        *held.entry(&hold.customer).or_default() += hold.amount.0;
    }
    let mut by_transaction: BTreeMap<i64, i64> = BTreeMap::new();
    for (number, _, account, amount) in &slice.changes.postings {
        *sums.entry(account).or_default() += amount.0;
        *by_transaction.entry(*number).or_default() += amount.0;
        assert_ne!(*amount, Micros::ZERO);
    }
    assert!(by_transaction.values().all(|sum| *sum == 0), "a transaction does not add up");
    let mut total = 0i128;
    for (id, account) in slice.accounts.iter().filter_map(|(id, account)| Some((id, (*account)?))) {
        total += i128::from(account.balance.0);
        assert_eq!(account.balance.0, sums.get(id).copied().unwrap_or_default(), "{id}'s balance is not its postings");
        assert_eq!(account.held.0, held.get(id).copied().unwrap_or_default(), "{id}'s holds");
        assert!(id.is_outside() || account.available().0 + account.owed.0 >= 0, "{id} is below its floor: {account:?}");
        assert!(account.owed.0 >= 0 && account.owed.0 <= (-account.available().0).max(0), "{id} owes too much");
    }
    assert_eq!(total, 0);
    let numbers: Vec<i64> = slice.changes.transactions.iter().map(|transaction| transaction.known.number).collect();
    assert_eq!(numbers, (1..slice.next).collect::<Vec<_>>(), "transactions are numbered without a gap");
    let flows: i64 = slice.changes.flows.values().map(|flow| flow.earned - flow.refunded).sum();
    assert!(flows >= 0);
}

/// Everything but what the rules note for the writer.
fn state(slice: &Slice) -> String {
    let holds: BTreeMap<_, _> = slice.holds.iter().collect();
    let known: BTreeMap<_, _> = slice.known.iter().collect();
    let accounts: Vec<_> = slice.accounts.iter().filter(|(_, account)| account.is_some()).collect();
    format!("{accounts:?} {holds:?} {known:?} {}", slice.next)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn books_stay_sound_whatever_is_asked(asked in prop::collection::vec((operations(), -3i64..6), 1..60)) {
        let mut slice = books();
        let mut now: Time = 0;
        for (operation, hours) in asked {
            // Clocks go back, too.
            now += hours * HOUR;
            let before = state(&slice);
            match apply(&mut slice, &operation, now) {
                Err(_) => prop_assert_eq!(&before, &state(&slice), "what is refused changes nothing"),
                Ok(done) if done.repeated => prop_assert_eq!(&before, &state(&slice), "twice is once"),
                Ok(done) => {
                    prop_assert_eq!(done.id.as_str(), operation.id());
                    let after = state(&slice);
                    let again = apply(&mut slice, &operation, now);
                    prop_assert!(again.is_err() || again.is_ok_and(|again| again.repeated));
                    prop_assert_eq!(after, state(&slice), "twice is once");
                }
            }
            check(&slice);
        }
    }

    #[test]
    fn many_refunds_give_back_what_one_would(amount in 1i64..5_000, parts in prop::collection::vec(1i64..900, 1..9), odd in 0u32..900_000) {
        let mut slice = books();
        let order = |id: &str, what| Operation::Order(Order { id: id.to_owned(), what, note: String::new() });
        apply(&mut slice, &order("d", What::Deposit { account: account(0), amount: Micros(amount) }), 0).unwrap();
        let hold = Hold { id: "r".to_owned(), customer: account(0), amount: Micros(amount), expires_at: HOUR };
        apply(&mut slice, &Operation::Hold(hold), 0).unwrap();
        apply(&mut slice, &Operation::Settle(settlement("r".to_owned(), Micros(amount), 0, true, odd)), 0).unwrap();
        let mut left = amount;
        for (index, part) in parts.iter().enumerate() {
            let part = if index + 1 == parts.len() { left } else { *part.min(&left) };
            if part > 0 {
                let what = What::Refund { settlement: "r".to_owned(), amount: Micros(part) };
                apply(&mut slice, &order(&format!("f{index}"), what), 0).unwrap();
                left -= part;
                check(&slice);
            }
        }
        let balance = |index| slice.accounts[&account(index)].map_or(0, |account| account.balance.0);
        prop_assert_eq!((2..8).map(balance).collect::<Vec<_>>(), [0; 6]);
        prop_assert_eq!(balance(0), amount);
    }
}
