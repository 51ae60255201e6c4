//! **Rule.** Cheating must not pay: what a cheat stands to lose, times the chance to be caught, must exceed what it gains,
//! times the chance not to be: `q · S > (1 − q) · g`, where q is the chance that one cheated receipt is caught (the rate of
//! checks, times the chance that a check finds it, times the chance that its auditor is not bought), S the stake that is lost
//! and g the gain of one cheated receipt. Money is in millionths of a unit.

use crate::policy::selection::Rate;

/// What decides whether cheating pays.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Deterrence {
    /// Share of receipts that are checked.
    pub rate: Rate,
    /// Chance that a check finds a cheated receipt: 1 for a replay or a light check of the whole answer; for a light check
    /// of a span, the share of positions it covers.
    pub finds: f64,
    /// Chance that the auditor is bought and says nothing.
    pub bought: f64,
}

impl Deterrence {
    /// Chance that one cheated receipt is caught.
    pub fn caught(&self) -> f64 {
        self.rate.fraction() * self.finds.clamp(0.0, 1.0) * (1.0 - self.bought.clamp(0.0, 1.0))
    }

    /// Chance that at least one of so many is.
    pub fn caught_of(&self, receipts: u32) -> f64 {
        1.0 - (1.0 - self.caught()).powi(i32::try_from(receipts).unwrap_or(i32::MAX))
    }

    /// The smallest stake at which cheating does not pay; none if nothing is ever caught.
    pub fn stake_min(&self, gain_micros: u64) -> Option<u64> {
        let q = self.caught();
        // Strictly more than the bound.
        (q > 0.0).then(|| ((1.0 - q) / q * gain_micros as f64).floor() as u64 + 1)
    }

    /// The smallest rate at which cheating does not pay with this stake; none if no rate is enough.
    pub fn rate_min(&self, stake_micros: u64, gain_micros: u64) -> Option<Rate> {
        let enough = |millionths: &u32| {
            let rate = Rate::millionths(*millionths);
            Deterrence { rate, ..*self }.deters(stake_micros, gain_micros)
        };
        let all = 1_000_000;
        if !enough(&all) {
            return None;
        }
        let (mut low, mut high) = (0, all);
        while low < high {
            let middle = (low + high) / 2;
            (low, high) = if enough(&middle) { (low, middle) } else { (middle + 1, high) };
        }
        Some(Rate::millionths(low))
    }

    /// Whether a stake is enough.
    pub fn deters(&self, stake_micros: u64, gain_micros: u64) -> bool {
        let q = self.caught();
        q * stake_micros as f64 > (1.0 - q) * gain_micros as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stake_and_rate_are_the_smallest_that_deter() {
        let policy = Deterrence { rate: Rate::millionths(20_000), finds: 1.0, bought: 0.1 };
        let gain = 400;
        let stake = policy.stake_min(gain).unwrap();
        assert!(policy.deters(stake, gain) && !policy.deters(stake - 1, gain), "{stake}");
        let rate = policy.rate_min(50_000, gain).unwrap();
        let at = |millionths| Deterrence { rate: Rate::millionths(millionths), ..policy }.deters(50_000, gain);
        assert!(at(rate.get()) && !at(rate.get() - 1), "{rate:?}");
        assert_eq!(Deterrence { bought: 1.0, ..policy }.stake_min(gain), None);
        assert_eq!(Deterrence { bought: 1.0, ..policy }.rate_min(50_000, gain), None);
    }

    #[test]
    fn many_cheats_are_caught_sooner_or_later() {
        let policy = Deterrence { rate: Rate::millionths(20_000), finds: 1.0, bought: 0.0 };
        assert!((policy.caught_of(100) - 0.867).abs() < 1e-3);
        assert!(policy.caught_of(1000) > 0.999_999);
    }
}
