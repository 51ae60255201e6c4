//! Which instructions a kernel may use. An [`Isa`] exists only where this machine can run it, which is what makes
//! calling the kernels compiled for it sound.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set this machine has. All give the same bits; they differ in speed alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

/// Instruction sets in ascending order of speed; each implies those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    /// Plain Rust: the reference.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    Avx512,
    /// AMX int8 tiles for large products, AVX-512 for the rest.
    Amx,
}

/// Why an instruction set could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IsaError {
    /// Not one of the known names.
    #[error("unknown instruction set {0:?}: use scalar, avx2, avx512 or amx")]
    Unknown(String),
    /// Known, but this processor or operating system lacks it.
    #[error("this machine has no {0}: it has {1}")]
    Missing(&'static str, String),
}

impl Isa {
    /// The scalar reference, available everywhere.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// The fastest instruction set of this machine.
    pub fn best() -> Isa {
        Isa(best_level())
    }

    /// Every instruction set of this machine, slowest first.
    pub fn available() -> Vec<Isa> {
        [Level::Scalar, Level::Avx2, Level::Avx512, Level::Amx]
            .into_iter()
            .filter(|level| *level <= best_level())
            .map(Isa)
            .collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        let level = match name {
            "scalar" => Level::Scalar,
            "avx2" => Level::Avx2,
            "avx512" => Level::Avx512,
            "amx" => Level::Amx,
            _ => return Err(IsaError::Unknown(name.to_owned())),
        };
        if level <= best_level() {
            Ok(Isa(level))
        } else {
            let known: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
            Err(IsaError::Missing(Isa(level).name(), known.join(", ")))
        }
    }
}

fn best_level() -> Level {
    static BEST: OnceLock<Level> = OnceLock::new();
    *BEST.get_or_init(detect)
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Scalar
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Level::Scalar;
    }
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni");
    if !avx512 {
        return Level::Avx2;
    }
    if crate::kernels::amx_permitted() { Level::Amx } else { Level::Avx512 }
}

/// Whether this thread's floating-point unit is in the state the arithmetic is defined for: round to nearest even,
/// subnormals kept. Call it when a thread starts.
pub fn float_environment_is_standard() -> bool {
    use std::hint::black_box;
    let half_ulp = black_box(f32::EPSILON / 2.0);
    let subnormal = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    let rounds_to_even = black_box(1.0f32) + half_ulp == 1.0
        && black_box(1.0f32 + f32::EPSILON) + half_ulp == 1.0 + 2.0 * f32::EPSILON
        && black_box(-1.0f32) - half_ulp == -1.0;
    rounds_to_even && subnormal > 0.0 && black_box(subnormal) + black_box(subnormal) == f32::MIN_POSITIVE
}
