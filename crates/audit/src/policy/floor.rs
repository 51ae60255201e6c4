//! **Rule.** A new node is checked at the first rate. Each run of clean checks halves its rate, but never below the floor,
//! whatever its reputation: a node that has nothing to fear any more is the one to fear. One answer that was not true puts
//! it back to the first rate, and its record starts anew.

use crate::policy::selection::Rate;

/// How often a node is checked, by its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    /// Of a new node.
    pub first: Rate,
    /// Never below.
    pub floor: Rate,
    /// Clean checks that halve it.
    pub clean_checks: u64,
}

impl Floor {
    /// The rate of a node after so many clean checks since its last that was not.
    pub fn rate(&self, clean: u64) -> Rate {
        let halvings = clean.checked_div(self.clean_checks).unwrap_or(0).min(31) as u32;
        self.floor.max(Rate::millionths(self.first.get() >> halvings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_stays_above_the_floor_and_starts_anew() {
        let floor = Floor { first: Rate::millionths(200_000), floor: Rate::millionths(20_000), clean_checks: 100 };
        let rates: Vec<u32> = [0, 99, 100, 250, 300, 400, 1_000_000, u64::MAX].map(|n| floor.rate(n).get()).into();
        assert_eq!(rates, [200_000, 200_000, 100_000, 50_000, 25_000, 20_000, 20_000, 20_000]);
        assert_eq!(Floor { clean_checks: 0, ..floor }.rate(7).get(), 200_000);
    }
}
