//! Which instructions a kernel may use. An [`Isa`] exists only where this machine can run it, which is what makes
//! calling the kernels compiled for it sound.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set this machine has. All give the same bits; they differ in speed alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

/// Instruction sets, those of one kind of processor in ascending order of speed; each implies those before it.
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
    /// NEON, which every 64-bit Arm processor has.
    Neon,
    /// NEON with dot products of bytes.
    Dotprod,
}

/// Every instruction set of this kind of processor, slowest first.
const LEVELS: &[Level] = if cfg!(target_arch = "x86_64") {
    &[Level::Scalar, Level::Avx2, Level::Avx512, Level::Amx]
} else if cfg!(target_arch = "aarch64") {
    &[Level::Scalar, Level::Neon, Level::Dotprod]
} else {
    &[Level::Scalar]
};

/// Why an instruction set could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IsaError {
    /// Not one of the known names.
    #[error("unknown instruction set {0:?}: use scalar, avx2, avx512 or amx; on Arm neon or dotprod")]
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
        LEVELS.iter().copied().filter(|level| *level <= best_level()).map(Isa).collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
            Level::Neon => "neon",
            Level::Dotprod => "dotprod",
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
        use Level::*;
        let all = [Scalar, Avx2, Avx512, Amx, Neon, Dotprod].map(Isa);
        let isa = all.into_iter().find(|isa| isa.name() == name).ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        let available = Isa::available();
        if available.contains(&isa) {
            Ok(isa)
        } else {
            let known: Vec<_> = available.into_iter().map(Isa::name).collect();
            Err(IsaError::Missing(isa.name(), known.join(", ")))
        }
    }
}

fn best_level() -> Level {
    static BEST: OnceLock<Level> = OnceLock::new();
    *BEST.get_or_init(detect)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Level {
    Level::Scalar
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Level {
    if std::arch::is_aarch64_feature_detected!("dotprod") { Level::Dotprod } else { Level::Neon }
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
