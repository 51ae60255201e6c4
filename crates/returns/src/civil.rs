//! Days and times of the calendar (UTC), from microseconds since 1970 and back.

const DAY_MICROSECONDS: u64 = 24 * 3600 * 1_000_000;

/// The day that a time lies in, counted from 1970, and its name: `2026-11-20`.
pub fn day_of(microseconds: u64) -> (u64, String) {
    let day = microseconds / DAY_MICROSECONDS;
    let (year, month, day_of_month) = date(day);
    (day, format!("{year:04}-{month:02}-{day_of_month:02}"))
}

/// A time in words: `2026-11-20 18:30:05Z`.
pub fn words(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000 % (24 * 3600);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{} {hour:02}:{minute:02}:{second:02}Z", day_of(microseconds).1)
}

/// Reads `2026-11-20`, `2026-11-20T18:30`, or the same with seconds and a `Z`; everything is UTC.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = ((day_number(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000)
}

fn number(digits: &str, count: usize) -> Option<u64> {
    (digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before a year, from 1970 on.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn day_number(year: u64, month: u64, day: u64) -> u64 {
    days_before(year) + (1..month).map(|month| days_in(year, month)).sum::<u64>() + day - 1
}

fn date(day: u64) -> (u64, u64, u64) {
    let mut year = 1970 + day / 366;
    while days_before(year + 1) <= day {
        year += 1;
    }
    let mut left = day - days_before(year);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(words(0), "1970-01-01 00:00:00Z");
        assert_eq!(words(1_000_000_000_999_999), "2001-09-09 01:46:40Z");
        assert_eq!(words(1_709_210_096_000_000), "2024-02-29 12:34:56Z");
        assert_eq!(parse("2024-02-29T12:34:56Z"), Some(1_709_210_096_000_000));
        for wrong in
            ["", "2026", "2026-13-01", "2026-02-29", "2026-1-01", "2026-01-01T24:00", "1969-12-31", "+026-01-01"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_day_is_read_back_for_two_centuries() {
        for day in 0..73_000 {
            let time = day * DAY_MICROSECONDS;
            assert_eq!(parse(&day_of(time).1), Some(time));
        }
    }
}
