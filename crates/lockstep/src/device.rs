//! Where a command computes: on this machine's processor, or on a CUDA device if NVIDIA's driver is there.

use crate::failure::Failure;
use clap::Args;
use cuda::check::{self, Dice};
use cuda::{DeviceError, Driver, Executor, Launcher, Single};
use model::Model;
use std::str::FromStr;
use std::sync::Mutex;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// A CUDA device if one can be used, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Choice::Auto),
            ("cpu", _) => Ok(Choice::Cpu),
            ("cuda", _) => Ok(Choice::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Choice::Cuda(number)),
            _ => Err("it is auto, cpu, cuda or cuda:N, the device's number from 0 on; what a device costs is said with --costs".to_owned()),
        }
    }
}

impl Choice {
    /// The number of the CUDA device to check or measure; none for the processor.
    pub(crate) fn cuda(self) -> Option<usize> {
        match self {
            Choice::Cpu => None,
            Choice::Auto => Driver::is_present().then_some(0),
            Choice::Cuda(number) => Some(number),
        }
    }
}

/// Where to compute. Nothing here changes a bit of any result.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// Where to compute. auto: on a CUDA device if NVIDIA's driver is there, else on the processor.
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda|cuda:N")]
    pub(crate) device: Choice,
}

/// What computes.
pub(crate) enum Place {
    /// The processor, and if that was not asked for, why.
    Processor(Option<String>),
    /// A CUDA device that has the model's weights, and its name.
    Cuda(Box<Executor<Driver>>, String),
}

/// The CUDA device of this number, its kernels compiled.
pub(crate) fn driver(number: usize) -> Result<Driver, Failure> {
    Driver::open(number).map_err(|error| match error {
        DeviceError::Absent(_) => Failure(format!("{error}; --device cpu does without")),
        other => Failure(other.to_string()),
    })
}

impl DeviceArgs {
    /// Opens what was asked for and copies the model's weights there. With auto, what keeps a device from being used is a
    /// reason to compute on the processor, and no error.
    pub(crate) fn open(&self, model: &Model, config: cuda::Config) -> Result<Place, Failure> {
        let number = match self.device {
            Choice::Cpu => return Ok(Place::Processor(None)),
            Choice::Auto => 0,
            Choice::Cuda(number) => number,
        };
        match (place(number, model, config), self.device) {
            (Ok((executor, name)), _) => Ok(Place::Cuda(Box::new(executor), name)),
            (Err(why), Choice::Auto) => Ok(Place::Processor(Some(why))),
            (Err(why), _) => Err(Failure(format!("{why}; --device cpu does without"))),
        }
    }

    /// For replays and scores: something that computes in place of the processor; none if that shall.
    pub(crate) fn forward(&self, model: &Model, trace: bool) -> Result<Option<Mutex<Single<Driver>>>, Failure> {
        let pages = Some(model.shape.context.div_ceil(cpu::PAGE));
        let config = cuda::Config { trace, pages, ..cuda::Config::default() };
        match self.open(model, config)? {
            Place::Cuda(executor, name) => {
                eprintln!("computing on {name}");
                Ok(Some(Mutex::new(Single::new(*executor))))
            }
            Place::Processor(why) => {
                // A machine without a driver is no news; one whose device cannot be used is.
                if let Some(why) = why.filter(|_| Driver::is_present()) {
                    eprintln!("computing on the processor: {why}");
                }
                Ok(None)
            }
        }
    }
}

/// An executor on a device whose bits are right, or why there is none.
fn place(number: usize, model: &Model, config: cuda::Config) -> Result<(Executor<Driver>, String), String> {
    let mut driver = Driver::open(number).map_err(|error| error.to_string())?;
    let name = driver.name();
    // A second at most, on shapes of every kernel: a device that computes other bits must not serve.
    let tally = check::quick(&mut driver, &mut Dice::new(1)).map_err(|error| format!("{name}: {error}"))?;
    if tally.differing > 0 {
        return Err(format!(
            "{name} gives other bits than this processor ({} of {} results): `lockstep selftest --device cuda` says where",
            tally.differing, tally.vectors
        ));
    }
    let executor = Executor::new(driver, model, config).map_err(|error| format!("{name}: {error}"))?;
    Ok((executor, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_kind_and_number() {
        for (text, want) in
            [("auto", Choice::Auto), ("cpu", Choice::Cpu), ("cuda", Choice::Cuda(0)), ("cuda:3", Choice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(want));
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "rtx-4090"] {
            assert!(wrong.parse::<Choice>().unwrap_err().contains("--costs"), "{wrong}");
        }
    }
}
