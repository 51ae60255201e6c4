//! What each hour came to, kept so small that a month of hours is added up for every page that wants it: models are numbers
//! here, and an hour's records of the device's time are one where nothing is missing between them.

use super::sums::HOUR;
use crate::report::answer;
use ledger::{AccountId, Entry};
use returns::{Bytes, Device, Period, Record, Report, Standing, Time, Use, Work};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Models and standings of one hour that are told apart; the rest are summed up together.
const PARTS_MAX: usize = 1024;
/// Names that are told apart.
const NAMES_MAX: usize = 100_000;
/// What the rest is called.
const REST: &str = "(others)";

/// How many took so long: by powers of two of milliseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Speeds([u32; 24]);

impl Speeds {
    fn add(&mut self, milliseconds: u32) {
        let bits = (u32::BITS - milliseconds.leading_zeros()) as usize;
        let place = bits.min(self.0.len() - 1);
        self.0[place] = self.0[place].saturating_add(1);
    }

    fn merge(&mut self, other: &Speeds) {
        self.0.iter_mut().zip(other.0).for_each(|(own, more)| *own = own.saturating_add(more));
    }

    /// Milliseconds within which so many of a hundred came, to the next power of two.
    pub(crate) fn within(&self, hundredths: u64) -> Option<u64> {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let mut sum = 0;
        let reached = self.0.iter().position(|count| {
            sum += u64::from(*count);
            sum * 100 >= all * hundredths
        });
        reached.filter(|_| all > 0).map(|bits| 1 << bits)
    }
}

/// Numbers of models' names.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.names.len() >= NAMES_MAX && name != REST {
            return self.number(REST);
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn name(&self, number: u32) -> String {
        self.names.get(number as usize).cloned().unwrap_or_default()
    }
}

/// Answers of one model and standing.
#[derive(Clone, Copy, Default, Debug)]
struct Part {
    work: Work,
    first: Speeds,
}

/// Answers of one hour, by model and standing.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<(u32, Standing), Part>);

/// Records without a gap between them.
struct Stretch {
    run: u64,
    from: u64,
    to: u64,
    time: Time,
    rejected: u64,
    bytes: Bytes,
    /// What the base by itself and adapters took.
    uses: BTreeMap<u32, Use>,
}

#[derive(Default)]
struct Hour {
    answers: Answers,
    stretches: Vec<Stretch>,
}

/// All hours that are kept.
#[derive(Default)]
pub(crate) struct Hours {
    names: Names,
    hours: BTreeMap<u64, Hour>,
    /// When the first record began.
    begun: Option<u64>,
}

/// The hour of a moment (microseconds since 1970).
pub(crate) fn hour_of(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0) / HOUR
}

/// A settlement as far as it is summed.
pub(crate) struct Summed {
    time: i64,
    model: String,
    standing: Standing,
    work: Work,
    first_ms: Option<u32>,
}

impl Summed {
    /// Of a transaction; none if it is no settlement, or another operator's.
    pub(crate) fn of(entry: &Entry, operator: &AccountId) -> Option<Summed> {
        // The node's own receipts are in its log before they are settled.
        let (model, standing, work) = answer(entry, operator, &|_: &str| true)?;
        let first_ms = entry.settled.as_ref().and_then(|settled| settled.first_token_ms);
        Some(Summed { time: entry.time, model, standing, work, first_ms })
    }
}

impl Names {
    fn add(&mut self, answers: &mut Answers, one: &Summed) {
        let mut key = (self.number(&one.model), one.standing);
        if answers.0.len() >= PARTS_MAX && !answers.0.contains_key(&key) {
            key.0 = self.number(REST);
        }
        let part = answers.0.entry(key).or_default();
        part.work.add(&one.work);
        one.first_ms.into_iter().for_each(|first| part.first.add(first));
    }
}

impl Hours {
    /// Adds a settlement to its hour.
    pub(crate) fn add(&mut self, one: &Summed) {
        let hour = self.hours.entry(hour_of(one.time)).or_default();
        self.names.add(&mut hour.answers, one);
    }

    /// Adds a settlement to answers that are summed anew.
    pub(crate) fn add_to(&mut self, answers: &mut Answers, one: &Summed) {
        self.names.add(answers, one);
    }

    /// An hour's answers, summed anew.
    pub(crate) fn replace(&mut self, hour: u64, answers: Answers) {
        self.hours.entry(hour).or_default().answers = answers;
    }

    /// Forgets the hours before one.
    pub(crate) fn keep_from(&mut self, oldest: u64) {
        self.hours.retain(|hour, _| *hour >= oldest);
    }

    /// The first hour with answers.
    pub(crate) fn first(&self) -> Option<u64> {
        self.hours.iter().find(|(_, hour)| !hour.answers.0.is_empty()).map(|(hour, _)| *hour)
    }

    /// Adds a record of the device's time.
    pub(crate) fn add_record(&mut self, record: &Record) {
        self.begun = Some(self.begun.map_or(record.from, |begun| begun.min(record.from)));
        // A record belongs to the period that it ended in, the period's own end included.
        let hour = self.hours.entry(record.to.saturating_sub(1) / HOUR).or_default();
        let known = hour.stretches.iter().position(|known| known.run == record.run && known.to == record.from);
        let place = known.unwrap_or_else(|| {
            let (run, from, to) = (record.run, record.from, record.from);
            let (time, bytes) = (Time::default(), Bytes::default());
            hour.stretches.push(Stretch { run, from, to, time, rejected: 0, bytes, uses: BTreeMap::new() });
            hour.stretches.len() - 1
        });
        let Some(stretch) = hour.stretches.get_mut(place) else { return };
        (stretch.to, stretch.bytes) = (record.to, record.bytes);
        stretch.time.add(&record.time);
        stretch.rejected += record.drafts_rejected;
        for (name, used) in &record.adapters {
            stretch.uses.entry(self.names.number(name)).or_default().add(used);
        }
        if record.base != Use::default() {
            stretch.uses.entry(self.names.number(&record.model)).or_default().add(&record.base);
        }
    }

    /// What the hours from one to another, the latter not included, come to. Paid time begins with the first record there
    /// is and ends with the last.
    pub(crate) fn report(&self, device: &Device, hours: Range<u64>) -> Report {
        let mut work = BTreeMap::<(u32, Standing), Work>::new();
        let (mut uses, mut all) = (BTreeMap::<u32, Use>::new(), Record::default());
        let (mut ended, mut recorded) = (None, 0);
        for (_, hour) in self.hours.range(hours.clone()) {
            for (key, part) in &hour.answers.0 {
                work.entry(*key).or_default().add(&part.work);
            }
            for stretch in &hour.stretches {
                all.time.add(&stretch.time);
                all.drafts_rejected += stretch.rejected;
                recorded += stretch.to.saturating_sub(stretch.from);
                if ended.is_none_or(|ended| ended <= stretch.to) {
                    (ended, all.bytes) = (Some(stretch.to), stretch.bytes);
                }
                stretch.uses.iter().for_each(|(name, used)| uses.entry(*name).or_default().add(used));
            }
        }
        let is_past = self.hours.range(hours.end..).any(|(_, hour)| !hour.stretches.is_empty());
        let to = if is_past { hours.end * HOUR } else { ended.unwrap_or(hours.start * HOUR) };
        let from = (hours.start * HOUR).max(self.begun.unwrap_or(u64::MAX)).min(to);
        // A report only adds records up: one as long as all of them says the same.
        (all.from, all.to) = (0, recorded);
        all.adapters = uses.into_iter().map(|(name, used)| (self.names.name(name), used)).collect();
        let records = if ended.is_some() { vec![all] } else { vec![] };
        let answers = work.into_iter().map(|((name, standing), work)| (self.names.name(name), standing, work));
        Report::new(Period { from, to, devices: 1 }, device.clone(), &records, answers)
    }

    /// How fast first tokens came, by model.
    pub(crate) fn speeds(&self, hours: Range<u64>) -> BTreeMap<String, Speeds> {
        let mut speeds = BTreeMap::<u32, Speeds>::new();
        for ((model, _), part) in self.hours.range(hours).flat_map(|(_, hour)| &hour.answers.0) {
            speeds.entry(*model).or_default().merge(&part.first);
        }
        speeds.into_iter().map(|(model, speeds)| (self.names.name(model), speeds)).collect()
    }
}

/// The same records, those of one run and hour without a gap between them as one.
pub(crate) fn joined(records: Vec<Record>) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for record in records {
        let hour = |record: &Record| record.to.saturating_sub(1) / HOUR;
        match joined.last_mut().filter(|last| last.run == record.run && last.to == record.from) {
            Some(last) if hour(last) == hour(&record) && last.model == record.model => merge(last, &record),
            _ => joined.push(record),
        }
    }
    joined
}

fn merge(known: &mut Record, more: &Record) {
    known.to = more.to;
    known.time.add(&more.time);
    known.drafts_accepted += more.drafts_accepted;
    known.drafts_rejected += more.drafts_rejected;
    known.adapters_loaded += more.adapters_loaded;
    known.preemptions += more.preemptions;
    known.bytes = more.bytes;
    known.base.add(&more.base);
    for (name, used) in &more.adapters {
        known.adapters.entry(name.clone()).or_default().add(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_joined_and_what_they_come_to_stays() {
        let record = |run, from, to| {
            let time = Time { decode: (to - from) * 1000, ..Time::default() };
            let used = Use { time, ..Use::default() };
            let adapters = [("sql".to_owned(), used)].into();
            Record { run, from, to, time, model: "base".to_owned(), base: used, adapters, ..Record::default() }
        };
        let start = 500_000 * HOUR;
        let records = vec![
            record(1, start, start + 10),
            record(1, start + 10, start + 20),
            record(2, start + 50, start + 60),
            record(2, start + HOUR - 10, start + HOUR),
            record(2, start + HOUR, start + HOUR + 10),
        ];
        assert_eq!(joined(records.clone()).len(), 4);
        for given in [records.clone(), joined(records.clone())] {
            let mut hours = Hours::default();
            given.iter().for_each(|record| hours.add_record(record));
            assert_eq!(hours.hours[&500_000].stretches.len(), 3);
            let report = hours.report(&Device::default(), 500_000..500_002);
            let period = Period { from: start, to: start + HOUR + 10, devices: 1 };
            assert_eq!(report, Report::new(period, Device::default(), &records, []));
            let first = hours.report(&Device::default(), 500_000..500_001);
            let period = Period { from: start, to: start + HOUR, devices: 1 };
            assert_eq!(first, Report::new(period, Device::default(), &records[..4], []));
        }
    }

    #[test]
    fn speeds_are_told_to_the_next_power_of_two() {
        let mut speeds = Speeds::default();
        assert_eq!(speeds.within(50), None);
        (0..95).for_each(|_| speeds.add(100));
        (0..5).for_each(|_| speeds.add(3000));
        assert_eq!((speeds.within(50), speeds.within(95), speeds.within(99)), (Some(128), Some(128), Some(4096)));
    }

    #[test]
    fn names_beyond_the_most_are_one() {
        let mut names = Names::default();
        for number in 0..NAMES_MAX + 10 {
            names.number(&number.to_string());
        }
        assert_eq!((names.names.len(), names.number("another")), (NAMES_MAX + 1, NAMES_MAX as u32));
    }
}
