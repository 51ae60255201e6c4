//! The bytes whose hash is a digest, read back: what a model or an adapter consists of, with the root of every tensor, for
//! whoever does not hold the weights (docs/digests.md).

use crate::merkle::Hash;
use crate::{Mlp, Rotary, Shape};
use exact::Activations;
use std::collections::BTreeMap;

/// Why bytes are not a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes end too early, go on too long, or are of another kind.
    #[error("this is not a manifest: {0}")]
    Malformed(&'static str),
    /// Of another version of the arithmetic.
    #[error("the manifest is for version {0} of the arithmetic, this program computes version {known}", known = exact::VERSION)]
    Arithmetic(u64),
}

/// One tensor of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorEntry {
    /// `i8`, `i16`, `bf16`, `f16` or `f32`.
    pub element: String,
    /// Rows.
    pub rows: usize,
    /// Numbers in each.
    pub columns: usize,
    /// Root of the tree over the rows.
    pub root: Hash,
}

/// What a model's exact digest is the hash of.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Dimensions.
    pub shape: Shape,
    /// Activation mode.
    pub activations: Activations,
    /// By name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// The exact digest.
    pub digest: Hash,
}

/// What an adapter's digest is the hash of.
#[derive(Clone, PartialEq, Debug)]
pub struct AdapterManifest {
    /// Gain by name of the linear map.
    pub gains: BTreeMap<String, f32>,
    /// By name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// The digest.
    pub digest: Hash,
}

/// The largest dimension that is believed.
const DIMENSION_MAX: usize = 1 << 24;

impl Manifest {
    /// Reads the bytes [`crate::digest::manifest`] gave. Takes memory in proportion to `bytes`, whatever they say.
    pub fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let mut reader = Reader(bytes);
        reader.heading("lockstep exact digest 1")?;
        let activations = reader.text()?.parse().map_err(|_| ManifestError::Malformed("its activation mode"))?;
        let shape = reader.shape()?;
        let tensors = reader.tensors()?;
        Ok(Manifest { shape, activations, tensors, digest: *blake3::hash(bytes).as_bytes() })
    }
}

impl AdapterManifest {
    /// Reads the bytes [`crate::digest::adapter_manifest`] gave.
    pub fn read(bytes: &[u8]) -> Result<AdapterManifest, ManifestError> {
        let mut reader = Reader(bytes);
        reader.heading("lockstep adapter digest 1")?;
        let mut gains = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let name = reader.text()?.to_owned();
            let bits = u32::try_from(reader.bits()?).map_err(|_| ManifestError::Malformed("a gain"))?;
            gains.insert(name, f32::from_bits(bits));
        }
        let tensors = reader.tensors()?;
        Ok(AdapterManifest { gains, tensors, digest: *blake3::hash(bytes).as_bytes() })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ManifestError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn bits(&mut self) -> Result<u64, ManifestError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn number(&mut self) -> Result<usize, ManifestError> {
        let number = self.bits()?;
        usize::try_from(number).ok().filter(|n| *n <= DIMENSION_MAX).ok_or(ManifestError::Malformed("a number"))
    }

    fn flag(&mut self) -> Result<bool, ManifestError> {
        match self.bits()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ManifestError::Malformed("a flag")),
        }
    }

    /// The number of items that follow, each of at least so many bytes.
    fn count(&mut self, bytes_each: usize) -> Result<usize, ManifestError> {
        let count = self.number()?;
        if count > self.0.len() / bytes_each { Err(ManifestError::Malformed("it ends too early")) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<&'a str, ManifestError> {
        let length = self.number()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| ManifestError::Malformed("a text"))
    }

    fn heading(&mut self, text: &str) -> Result<(), ManifestError> {
        if self.text()? != text {
            return Err(ManifestError::Malformed("its heading"));
        }
        let version = self.bits()?;
        if version == u64::from(exact::VERSION) { Ok(()) } else { Err(ManifestError::Arithmetic(version)) }
    }

    fn shape(&mut self) -> Result<Shape, ManifestError> {
        let hidden = self.number()?;
        let layers = self.count(0x28)?;
        let (heads, key_heads, head_dim) = (self.number()?, self.number()?, self.number()?);
        let mlps = (0..layers).map(|_| self.mlp()).collect::<Result<_, _>>()?;
        let (vocabulary, context) = (self.number()?, self.bits()?);
        let eps = u32::try_from(self.bits()?).map_err(|_| ManifestError::Malformed("eps"))?;
        let pairs = self.count(8)?;
        let inverse_frequencies = (0..pairs).map(|_| self.bits().map(f64::from_bits)).collect::<Result<_, _>>()?;
        let window = self.bits()?;
        let shape = Shape {
            hidden,
            layers,
            heads,
            key_heads,
            head_dim,
            mlps,
            vocabulary,
            context: usize::try_from(context).map_err(|_| ManifestError::Malformed("a number"))?,
            norm_eps: f32::from_bits(eps),
            rotary: Rotary { inverse_frequencies },
            window: usize::try_from(window).ok().filter(|window| *window > 0),
            head_norms: self.flag()?,
            tied: self.flag()?,
            spread: self.flag()?,
        };
        let heads_fit = key_heads > 0 && heads.is_multiple_of(key_heads) && heads <= 4096;
        let dims_fit = (1..=exact::attention::HEAD_DIM_MAX).contains(&head_dim) && 2 * pairs <= head_dim;
        let sizes_fit = (1..=exact::INPUTS_MAX).contains(&hidden) && vocabulary > 0 && heads > 0;
        if heads_fit && dims_fit && sizes_fit { Ok(shape) } else { Err(ManifestError::Malformed("its dimensions")) }
    }

    fn mlp(&mut self) -> Result<Mlp, ManifestError> {
        let wrong = Err(ManifestError::Malformed("a layer"));
        let experts_here = self.flag()?;
        let (width, experts, chosen) = (self.number()?, self.number()?, self.number()?);
        let renormalise = self.flag()?;
        if !(1..=exact::INPUTS_MAX).contains(&width) {
            return wrong;
        }
        match experts_here {
            true if (1..=experts).contains(&chosen) && experts <= 4096 => {
                Ok(Mlp::Experts { experts, chosen, width, renormalise })
            }
            false if experts == 0 && chosen == 0 && !renormalise => Ok(Mlp::Gated { width }),
            _ => wrong,
        }
    }

    /// The list of tensors, which is the end.
    fn tensors(&mut self) -> Result<BTreeMap<String, TensorEntry>, ManifestError> {
        let mut tensors = BTreeMap::new();
        for _ in 0..self.count(64)? {
            let name = self.text()?.to_owned();
            let element = self.text()?.to_owned();
            let (rows, columns) = (self.number()?, self.number()?);
            let mut root = [0; 32];
            root.copy_from_slice(self.take(32)?);
            if tensors.insert(name, TensorEntry { element, rows, columns, root }).is_some() {
                return Err(ManifestError::Malformed("a tensor is there twice"));
            }
        }
        if self.0.is_empty() { Ok(tensors) } else { Err(ManifestError::Malformed("bytes follow its end")) }
    }
}
