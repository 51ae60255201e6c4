//! Numbers as people read them: with units, and no more digits than they mean.

use ledger::Micros;

/// Dollars, with as many decimals as there are, two at least.
pub(crate) fn dollars(micros: i64) -> String {
    let text = Micros(micros).to_string();
    let trimmed = text.trim_end_matches('0');
    let decimals = trimmed.len() - trimmed.find('.').map_or(trimmed.len(), |point| point + 1);
    let kept = text.len() - 6 + decimals.max(2);
    let (sign, amount) = match text[..kept].strip_prefix('-') {
        Some(amount) => ("−", amount),
        None => ("", &text[..kept]),
    };
    let (whole, decimals) = amount.split_once('.').unwrap_or((amount, "00"));
    format!("{sign}${}.{decimals}", grouped(whole))
}

/// A whole number with its digits in groups: `1 234 567`, with spaces that do not break.
pub(crate) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that keeps them above one.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let bytes_f = bytes as f64;
    match units.into_iter().find(|(size, _)| bytes_f >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes_f / size),
        None => format!("{bytes} B"),
    }
}

/// A stretch of time, given in nanoseconds.
pub(crate) fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    match seconds {
        0.0 => "0 s".to_owned(),
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Parts per million as per cent.
pub(crate) fn share(ppm: u64) -> String {
    format!("{:.1} %", ppm as f64 / 1e4)
}

/// A moment, given in microseconds since 1970: date and time of the calendar (UTC).
pub(crate) fn moment(microseconds: i64) -> String {
    returns::civil::words(u64::try_from(microseconds).unwrap_or(0))
}

/// Long digests and ids, by their beginning.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(12) {
        Some((end, _)) if text.chars().count() > 16 => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Names and ids, whole if they are not very long.
pub(crate) fn name(text: &str) -> String {
    match text.char_indices().nth(26) {
        Some((end, _)) if text.chars().count() > 30 => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Parts per million that `part` is of `whole`.
pub(crate) fn ppm(part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole)).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_words() {
        for (micros, words) in [
            (0, "$0.00"),
            (1, "$0.000001"),
            (-1_500_000, "−$1.50"),
            (12_345_678_900_000, "$12\u{202f}345\u{202f}678.90"),
        ] {
            assert_eq!(dollars(micros), words);
        }
        for (number, words) in [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (1_234_567, "1\u{202f}234\u{202f}567")]
        {
            assert_eq!(count(number), words);
        }
        assert_eq!([bytes(12), bytes(5_500_000)], ["12 B", "5.5 MB"]);
        assert_eq!([duration(0), duration(1_500_000), duration(90_000_000_000)], ["0 s", "2 ms", "90.0 s"]);
        assert_eq!(short("0123456789abcdef0"), "0123456789ab…");
        assert_eq!(name("customer:anonymous"), "customer:anonymous");
        assert_eq!(name(&"é".repeat(31)), format!("{}…", "é".repeat(26)));
    }
}
