//! Records on disk, and reports by hand.

use crate::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;

const DAY: u64 = 24 * 3600 * 1_000_000;

fn record(from: u64, to: u64) -> Record {
    let time = Time { decode: (to - from) * 400, idle: (to - from) * 600, ..Time::default() };
    let used = Use { time: Time { decode: (to - from) * 400, ..Time::default() }, answers: 1, ..Use::default() };
    Record { run: 7, from, to, time, adapters: BTreeMap::from([("sql".to_owned(), used)]), ..Record::default() }
}

#[test]
fn records_are_read_back_by_period_across_days() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(folder.path()).unwrap();
    let start = 20_000 * DAY - DAY / 2;
    let written: Vec<Record> = (0..12).map(|n| record(start + n * DAY / 8, start + (n + 1) * DAY / 8)).collect();
    written.iter().for_each(|record| journal.append(record).unwrap());
    assert!(std::fs::read_dir(folder.path()).unwrap().count() >= 2);
    assert_eq!(read(folder.path(), 0, u64::MAX).unwrap(), written);
    for cut in 0..12 {
        let middle = written[cut].to;
        let (before, after) =
            (read(folder.path(), start, middle).unwrap(), read(folder.path(), middle, u64::MAX).unwrap());
        assert_eq!((before.as_slice(), after.as_slice()), written.split_at(cut + 1));
    }
    assert_eq!(read(&folder.path().join("none"), 0, u64::MAX).unwrap(), []);
}

#[test]
fn what_a_kill_left_of_a_line_is_cut_and_damage_is_told_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (record(DAY, DAY + 10), record(DAY + 10, DAY + 20));
    Journal::open(folder.path()).unwrap().append(&one).unwrap();
    let path = folder.path().join("1970-01-02.jsonl");
    let line = std::fs::read(&path).unwrap();
    for cut in [1, line.len() / 2, line.len() - 1] {
        std::fs::write(&path, [&line[..], &line[..cut]].concat()).unwrap();
        assert_eq!(read(folder.path(), 0, u64::MAX).unwrap(), std::slice::from_ref(&one));
        Journal::open(folder.path()).unwrap().append(&two).unwrap();
        assert_eq!(read(folder.path(), 0, u64::MAX).unwrap(), [one.clone(), two.clone()]);
    }
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"run\":-1}\n").unwrap();
    let error = read(folder.path(), 0, u64::MAX).unwrap_err();
    assert!(matches!(error, ReturnsError::Record { line: 3, .. }), "{error}");
}

fn rented(rent: u64) -> Device {
    Device { rent, ..Device::default() }
}

fn work(answers: u64, tokens: u64, amount: i64) -> Work {
    Work { answers, answer_tokens: tokens, amount, operator: amount / 2, ..Work::default() }
}

#[test]
fn a_report_by_hand() {
    // Ten hours, of which five are recorded and two computed: 3 dollars of good work, 4 of late work.
    let hour = 3_600_000_000;
    let period = Period { from: 0, to: 10 * hour, devices: 1 };
    let records = [record(hour, 3 * hour), record(3 * hour, 6 * hour)];
    let answers = [
        ("sql".to_owned(), Standing::Good, work(2, 1000, 3_000_000)),
        ("sql".to_owned(), Standing::Late, work(1, 500, 4_000_000)),
        ("base".to_owned(), Standing::Free, work(9, 90, 0)),
    ];
    let report = Report::new(period, rented(100_000), &records, answers);
    let returns = report.returns();
    assert_eq!((returns.revenue, returns.cash_margin, returns.economic_profit), (300_000, 200_000, 200_000));
    assert_eq!((returns.goodput_per_dollar, returns.operator_revenue), (Some(1000), 150_000));
    assert_eq!((report.unrecorded, returns.busy_ppm), (5 * hour * 1000, 200_000));
    assert_eq!((report.of(Standing::Late).amount, report.of(Standing::Free).answers), (4_000_000, 9));
    assert_eq!((report.models["sql"].used.answers, report.clock_error_ppm()), (2, 0));
    assert_eq!(Report::new(report.period.clone(), Device::default(), &[], []).returns().goodput_per_dollar, None);
}

#[test]
fn devices_together_bring_what_each_brought_for_the_hours_of_all() {
    let hour = 3_600_000_000;
    let report = |hours: u64, rent, amount| {
        let period = Period { from: 0, to: hours * hour, devices: 1 };
        let answers = [("sql".to_owned(), Standing::Good, work(1, 500, amount))];
        Report::new(period, rented(rent), &[record(0, hour)], answers)
    };
    // One brings a dollar in an hour that costs 10 cents, the other two in three hours of 30 cents.
    let (one, two) = (report(1, 100_000, 1_000_000), report(3, 300_000, 2_000_000));
    let together = Returns::together([&one, &two]);
    assert_eq!((together.revenue, together.economic_profit), (750_000, 500_000));
    assert_eq!((together.goodput_per_dollar, together.operator_revenue), (Some(1000), 375_000));
    assert_eq!(together.busy_ppm, 200_000, "0.8 of 4 hours");
    assert_eq!(Returns::together([]), Returns::default());
}

proptest! {
    /// However the answers and records are cut into two periods, the sums of both are those of the whole.
    #[test]
    fn periods_that_meet_add_up(
        stretches in prop::collection::vec(1..100_000_000u64, 1..30),
        amounts in prop::collection::vec((0..6usize, 0..1_000_000i64), 0..30),
        at in any::<prop::sample::Index>(),
    ) {
        let mut records = Vec::new();
        let mut end = 0;
        for stretch in stretches {
            records.push(record(end, end + stretch));
            end += stretch;
        }
        let answer = |(standing, amount): &(usize, i64)| ("sql".to_owned(), Standing::ALL[*standing], work(1, 5, *amount));
        let report = |from, to, records: &[Record], amounts: &[(usize, i64)]| {
            Report::new(Period { from, to, devices: 1 }, rented(0), records, amounts.iter().map(answer))
        };
        let cut = at.index(records.len());
        let middle = records[cut].to;
        let half = at.index(amounts.len() + 1);
        let whole = report(0, end, &records, &amounts);
        let one = report(0, middle, &records[..=cut], &amounts[..half]);
        let two = report(middle, end, &records[cut + 1..], &amounts[half..]);
        let mut time = one.time;
        time.add(&two.time);
        prop_assert_eq!(time, whole.time);
        for standing in Standing::ALL {
            let mut work = one.of(standing);
            work.add(&two.of(standing));
            prop_assert_eq!(work, whole.of(standing));
        }
        prop_assert_eq!(whole.unrecorded, 0);
    }
}
