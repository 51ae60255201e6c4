//! What an hour of a device costs.
//!
//! Whole numbers throughout: micro-dollars, milliwatts, nanoseconds. A device is either owned (a price that wears off, and
//! interest on what is tied up in it) or rented by the hour; both pay for energy and for their place unless the rent does.

use crate::error::ReturnsError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Hours of a year.
const YEAR_HOURS: i128 = 8766;
/// Nanoseconds of an hour.
const HOUR: i128 = 3_600_000_000_000;
/// Bytes a file may have.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// No single figure of a device is larger: sums over centuries then fit.
const FIGURE_MAX: u64 = 1_000_000_000_000_000;

/// What a device costs. Fields that are left out are 0.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// Where the figures come from, and of when they are.
    pub source: String,
    /// What it cost, its part of the machine around it included: micro-dollars.
    pub price: u64,
    /// Months until it is written off; 0 if it is not owned.
    pub life_months: u64,
    /// What it is then still worth, in parts per million of its price.
    pub residual_ppm: u64,
    /// Interest a year on what is tied up in it, in parts per million.
    pub capital_ppm: u64,
    /// What it draws while nobody waits, all around it included: milliwatts.
    pub idle_milliwatts: u64,
    /// What it draws while it computes: milliwatts.
    pub busy_milliwatts: u64,
    /// Micro-dollars for a kilowatt-hour.
    pub energy: u64,
    /// Micro-dollars an hour for its place, network and care.
    pub hosting: u64,
    /// Micro-dollars an hour of rent.
    pub rent: u64,
}

/// What a stretch of a device's time cost, in micro-dollars.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Cost {
    /// For energy.
    pub energy: i64,
    /// For its place, or its rent.
    pub hosting: i64,
    /// What it wore off.
    pub depreciation: i64,
    /// Interest on what is tied up in it.
    pub capital: i64,
}

impl Cost {
    /// What leaves the purse: energy and hosting.
    pub fn cash(&self) -> i64 {
        self.energy.saturating_add(self.hosting)
    }

    /// All of it.
    pub fn total(&self) -> i64 {
        self.cash().saturating_add(self.depreciation).saturating_add(self.capital)
    }
}

impl Device {
    /// Every device that is known by name.
    pub fn known() -> Vec<Device> {
        serde_json::from_str(include_str!("devices.json")).unwrap_or_default()
    }

    /// The device of this name, or of this file.
    ///
    /// # Errors
    /// There is none, or the file is not one (JSON, the fields of [`Device`]).
    pub fn find(name: &str) -> Result<Device, ReturnsError> {
        let known = Device::known();
        if let Some(device) = known.iter().find(|device| device.name == name) {
            return Ok(device.clone());
        }
        let path = Path::new(name);
        if !path.is_file() {
            let known = known.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ReturnsError::UnknownDevice { name: name.to_owned(), known });
        }
        let wrong = |what: String| ReturnsError::Device { path: path.to_owned(), what };
        if std::fs::metadata(path).map_err(ReturnsError::file(path))?.len() > FILE_BYTES_MAX {
            return Err(wrong("the file is too large to describe a device".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(ReturnsError::file(path))?;
        let device: Device = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        device.check().map_err(|what| wrong(what.to_owned()))?;
        Ok(device)
    }

    fn check(&self) -> Result<(), &'static str> {
        let figures = [self.price, self.life_months, self.idle_milliwatts, self.busy_milliwatts];
        if figures.into_iter().chain([self.energy, self.hosting, self.rent]).any(|figure| figure > FIGURE_MAX) {
            return Err("a figure is larger than any device's (amounts are in micro-dollars, power in milliwatts)");
        }
        if self.price > 0 && self.life_months == 0 {
            return Err("it has a price but no life_months: over how many months is it written off?");
        }
        if self.residual_ppm > 1_000_000 {
            return Err("residual_ppm is a part of the price: at most 1000000");
        }
        if self.capital_ppm > 10_000_000 {
            return Err("capital_ppm is interest a year in parts per million: 100000 is 10 %");
        }
        if self.busy_milliwatts < self.idle_milliwatts {
            return Err("busy_milliwatts is less than idle_milliwatts");
        }
        Ok(())
    }

    /// What `paid` nanoseconds cost, of which it was `busy` for so many. Each part is rounded to the nearest
    /// micro-dollar, once.
    pub fn cost(&self, paid: u64, busy: u64) -> Cost {
        let (paid, busy) = (i128::from(paid), i128::from(busy.min(paid)));
        let (idle_power, busy_power) = (i128::from(self.idle_milliwatts), i128::from(self.busy_milliwatts));
        // Milliwatts times nanoseconds: 10⁶ milliwatts for an hour are a kilowatt-hour.
        let work = idle_power * (paid - busy) + busy_power * busy;
        let (price, residual) = (i128::from(self.price), i128::from(self.residual_ppm));
        let life = i128::from(self.life_months) * YEAR_HOURS / 12;
        let worn = price * (1_000_000 - residual);
        // On average half of what wears off is tied up, and all of what stays.
        let tied = price * (1_000_000 + residual) / 2;
        Cost {
            energy: rounded(work * i128::from(self.energy), HOUR * 1_000_000),
            hosting: rounded(i128::from(self.hosting + self.rent) * paid, HOUR),
            depreciation: if life == 0 { 0 } else { rounded(worn / 1_000_000 * paid, life * HOUR) },
            capital: rounded(tied / 1_000_000 * i128::from(self.capital_ppm) * paid, YEAR_HOURS * HOUR * 1_000_000),
        }
    }
}

/// To the nearest, halves up.
fn rounded(amount: i128, divisor: i128) -> i64 {
    i64::try_from((2 * amount + divisor).div_euclid(2 * divisor)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: u64 = 3_600_000_000_000;

    #[test]
    fn an_owned_device_by_hand() {
        // 2,000 dollars over 4 years with nothing left, 10 % a year, 100 W idle and 500 W busy at 0.20 a kilowatt-hour.
        let device = Device {
            price: 2_000_000_000,
            life_months: 48,
            capital_ppm: 100_000,
            idle_milliwatts: 100_000,
            busy_milliwatts: 500_000,
            energy: 200_000,
            hosting: 10_000,
            ..Device::default()
        };
        device.check().unwrap();
        let cost = device.cost(10 * HOURS, 5 * HOURS);
        assert_eq!(cost.energy, (500 * 5 + 100 * 5) * 200);
        assert_eq!(cost.hosting, 100_000);
        assert_eq!(cost.depreciation, 570_386); // 2,000 / (4 · 8766 h) · 10 h
        assert_eq!(cost.capital, 114_077); // 1,000 · 10 % / 8766 h · 10 h
        assert_eq!(cost.total(), cost.cash() + cost.depreciation + cost.capital);
        let year = device.cost(8766 * HOURS, 0);
        assert_eq!((year.depreciation, year.capital), (500_000_000, 100_000_000));
    }

    #[test]
    fn known_devices_are_sound_and_say_where_they_are_from() {
        let known = Device::known();
        assert!(known.len() > 5);
        for device in known {
            device.check().unwrap();
            assert!(!device.source.is_empty() && device.cost(HOURS, HOURS).total() > 0, "{}", device.name);
            assert_eq!(Device::find(&device.name).unwrap(), device);
        }
    }

    #[test]
    fn files_that_make_no_sense_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.json");
        let find = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Device::find(path.to_str().unwrap())
        };
        assert_eq!(find(r#"{"name": "mine", "rent": 5}"#).unwrap().rent, 5);
        for text in [
            "",
            "[[]]",
            r#"{"price": -1}"#,
            r#"{"price": 1}"#,
            r#"{"rent": 1.5}"#,
            r#"{"watts": 3}"#,
            r#"{"rent": 99999999999999999999}"#,
            r#"{"rent": 9999999999999999}"#,
            r#"{"residual_ppm": 1000001}"#,
            r#"{"idle_milliwatts": 2, "busy_milliwatts": 1}"#,
        ] {
            assert!(matches!(find(text), Err(ReturnsError::Device { .. })), "{text}");
        }
        assert!(matches!(Device::find("no such thing"), Err(ReturnsError::UnknownDevice { .. })));
    }

    #[test]
    fn the_largest_figures_do_not_overflow() {
        let most = FIGURE_MAX;
        let device = Device {
            price: most,
            life_months: 1,
            capital_ppm: 10_000_000,
            idle_milliwatts: most,
            busy_milliwatts: most,
            energy: most,
            hosting: most,
            rent: most,
            ..Device::default()
        };
        device.check().unwrap();
        assert!(device.cost(u64::MAX, u64::MAX).total() > 0);
    }
}
