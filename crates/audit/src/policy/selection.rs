//! **Rule.** A receipt is checked if `H(beacon ‖ receipt) < rate`. The beacon is a public random value that appeared only
//! after the receipt was in a log head that witnesses had signed: nobody, the log's operator included, can make receipts
//! that will not be drawn, and everybody can see afterwards which had to be checked.

use receipt::Hash;

/// A share, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate(u32);

/// All of them.
const WHOLE: u32 = 1_000_000;

impl Rate {
    /// At most a million millionths.
    pub fn millionths(millionths: u32) -> Rate {
        Rate(millionths.min(WHOLE))
    }

    /// In millionths.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The same as a fraction.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

/// Whether a receipt of this hash is to be checked, at a rate, by the beacon that followed it.
pub fn selected(beacon: &[u8], receipt: &Hash, rate: Rate) -> bool {
    let drawn = blake3::Hasher::new().update(b"lockstep selection 1").update(receipt).update(beacon).finalize();
    let word = drawn.as_bytes().first_chunk().map_or(u64::MAX, |word| u64::from_be_bytes(*word));
    // word / 2⁶⁴ < rate / 10⁶, in whole numbers.
    u128::from(word) * u128::from(WHOLE) < u128::from(rate.0) << 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(count: u32) -> impl Iterator<Item = Hash> {
        (0..count).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes())
    }

    #[test]
    fn about_the_rate_is_selected_and_another_beacon_selects_others() {
        let rate = Rate::millionths(50_000);
        let chosen = |beacon: &[u8]| receipts(20_000).map(|r| selected(beacon, &r, rate)).collect::<Vec<_>>();
        let (one, two) = (chosen(b"one"), chosen(b"two"));
        let count = one.iter().filter(|chosen| **chosen).count();
        assert!((850..1150).contains(&count), "{count} of 20,000 at 5 %");
        let both = one.iter().zip(&two).filter(|(a, b)| **a && **b).count();
        assert!(both < 100, "{both} chosen by both");
    }

    #[test]
    fn none_and_all_are_exact() {
        assert!(receipts(1000).all(|r| !selected(b"b", &r, Rate::millionths(0))));
        assert!(receipts(1000).all(|r| selected(b"b", &r, Rate::millionths(2_000_000))));
    }
}
