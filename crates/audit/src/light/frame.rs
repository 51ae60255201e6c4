//! What a verifier needs of a model besides the levels of its linear maps and its embeddings: manifest, norms, scales,
//! biases, routers. A few megabytes that anyone may hand out: their hash is in the verifier's key.

use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};
use exact::Activations;
use exact::mixture::Router;
use model::pieces::Piece;
use model::{Half, Manifest, Mlp, Plan, Shape};

/// The small parts of a model.
#[derive(Clone)]
pub struct Frame {
    /// Bytes whose hash is the exact digest.
    pub manifest: Vec<u8>,
    /// The same, read.
    pub base: Manifest,
    /// The forward pass.
    pub plan: Plan,
    /// What the embedding is kept in.
    pub half: Half,
    pub(crate) parts: FrameMaker,
    hash: Hash,
}

/// Collects the small parts.
#[derive(Clone, Default)]
pub struct FrameMaker {
    pub(crate) norms: Vec<Vec<f32>>,
    /// By site.
    pub(crate) scales: Vec<Vec<f32>>,
    pub(crate) biases: Vec<Option<Vec<f32>>>,
    /// By mixture.
    pub(crate) routers: Vec<Router>,
    /// By mixture, expert and map.
    pub(crate) experts: Vec<Vec<[Vec<f32>; 3]>>,
}

impl FrameMaker {
    /// Takes what is needed of a piece, in the order of pieces.
    pub fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Embedding(_) => {}
            Piece::Norm(_, norm) => self.norms.push(norm.to_vec()),
            Piece::Linear(_, linear) => {
                self.scales.push(linear.matrix.scales().to_vec());
                self.biases.push(linear.bias.clone());
            }
            Piece::Router(_, router) => {
                self.routers.push(router.clone());
                self.experts.push(vec![]);
            }
            Piece::Expert(_, expert, part, matrix) => {
                if let Some(experts) = self.experts.last_mut() {
                    if experts.len() == expert {
                        experts.push(Default::default());
                    }
                    if let Some(scales) = experts.get_mut(expert) {
                        scales[part] = matrix.scales().to_vec();
                    }
                }
            }
        }
    }

    /// The frame, with the bytes of the manifest.
    pub fn finish(self, manifest: Vec<u8>) -> Result<Frame, Malformed> {
        let mut frame = self.assemble(manifest, [0; 32])?;
        frame.hash = *blake3::hash(&frame.to_bytes()).as_bytes();
        Ok(frame)
    }

    fn assemble(self, manifest: Vec<u8>, hash: Hash) -> Result<Frame, Malformed> {
        let base = Manifest::read(&manifest).map_err(|_| Malformed("the manifest"))?;
        let half = match base.tensors.get("model.embed_tokens.weight").map(|entry| entry.element.as_str()) {
            Some("bf16") => Half::Brain,
            Some("f16") => Half::Ieee,
            _ => return Err(Malformed("the embedding's element")),
        };
        let plan = Plan::new(&base.shape);
        let frame = Frame { manifest, plan, half, parts: self, base, hash };
        if frame.fits() { Ok(frame) } else { Err(Malformed("the parts do not fit the manifest")) }
    }
}

impl Frame {
    /// Dimensions.
    pub fn shape(&self) -> &Shape {
        &self.base.shape
    }

    /// How inputs of linear maps are quantised.
    pub fn activations(&self) -> Activations {
        self.base.activations
    }

    /// Whether every part has the size the manifest's dimensions ask for.
    fn fits(&self) -> bool {
        let (shape, parts) = (&self.base.shape, &self.parts);
        let norm = |(name, norm): (&String, &Vec<f32>)| {
            norm.len() == if name.contains(".self_attn.") { shape.head_dim } else { shape.hidden }
        };
        let sites = &self.plan.sites;
        let linear = |((site, scales), bias): ((&model::Site, &Vec<f32>), &Option<Vec<f32>>)| {
            scales.len() == site.outputs && bias.as_ref().is_none_or(|bias| bias.len() == site.outputs)
        };
        let mixtures = shape.mlps.iter().filter_map(|mlp| match *mlp {
            Mlp::Experts { experts, width, .. } => Some((experts, width)),
            Mlp::Gated { .. } => None,
        });
        let expert = |width: usize, scales: &[Vec<f32>; 3]| {
            [width, width, shape.hidden].iter().zip(scales).all(|(size, scales)| scales.len() == *size)
        };
        parts.norms.len() == self.plan.norms.len()
            && self.plan.norms.iter().zip(&parts.norms).all(norm)
            && parts.scales.len() == sites.len()
            && parts.biases.len() == sites.len()
            && sites.iter().zip(&parts.scales).zip(&parts.biases).all(linear)
            && parts.routers.len() == self.plan.mixtures.len()
            && parts.experts.len() == self.plan.mixtures.len()
            && mixtures.zip(&parts.routers).zip(&parts.experts).all(|(((experts, width), router), all)| {
                router.experts() == experts
                    && router.inputs() == shape.hidden
                    && all.len() == experts
                    && all.iter().all(|scales| expert(width, scales))
            })
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let parts = &self.parts;
        let floats = |writer: &mut Writer, values: &[f32]| {
            writer.number(values.len());
            values.iter().for_each(|value| writer.0.extend(value.to_le_bytes()));
        };
        writer.bytes(b"lockstep frame 1").bytes(&self.manifest);
        parts.norms.iter().for_each(|norm| floats(&mut writer, norm));
        for (scales, bias) in parts.scales.iter().zip(&parts.biases) {
            floats(&mut writer, scales);
            floats(&mut writer, bias.as_deref().unwrap_or(&[]));
        }
        for (router, experts) in parts.routers.iter().zip(&parts.experts) {
            for expert in 0..router.experts() {
                let (levels, scale) = router.row(expert);
                floats(&mut writer, &[scale]);
                levels.iter().for_each(|level| writer.0.extend(level.to_le_bytes()));
            }
            experts.iter().flatten().for_each(|scales| floats(&mut writer, scales));
        }
        writer.0
    }

    /// Hash of its bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Reads a frame. Takes memory in proportion to `bytes`, whatever they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Frame, Malformed> {
        let mut reader = Reader(bytes);
        if reader.bytes()? != b"lockstep frame 1" {
            return Err(Malformed("their heading"));
        }
        let manifest = reader.bytes()?.to_vec();
        let base = Manifest::read(&manifest).map_err(|_| Malformed("the manifest"))?;
        let (shape, plan) = (&base.shape, Plan::new(&base.shape));
        let mut parts = FrameMaker::default();
        for _ in &plan.norms {
            parts.norms.push(floats(&mut reader)?);
        }
        for _ in &plan.sites {
            parts.scales.push(floats(&mut reader)?);
            let bias = floats(&mut reader)?;
            parts.biases.push(Some(bias).filter(|bias| !bias.is_empty()));
        }
        for mlp in &shape.mlps {
            let Mlp::Experts { experts, .. } = *mlp else { continue };
            // Each takes more than this; so does what is allocated for it.
            if experts > reader.0.len() / (2 * shape.hidden) {
                return Err(Malformed("they end too early"));
            }
            let mut router = Router::zeroed(experts, shape.hidden);
            for expert in 0..experts {
                let [scale] = floats(&mut reader)?[..] else { return Err(Malformed("a scale")) };
                let levels = reader.take(2 * shape.hidden)?.as_chunks::<2>().0;
                let levels: Vec<i16> = levels.iter().map(|level| i16::from_le_bytes(*level)).collect();
                router.set_row(expert, &levels, scale);
            }
            parts.routers.push(router);
            let mut all = vec![];
            for _ in 0..experts {
                all.push([floats(&mut reader)?, floats(&mut reader)?, floats(&mut reader)?]);
            }
            parts.experts.push(all);
        }
        reader.finish()?;
        // There is one encoding, so this is the hash of what `to_bytes` gives.
        parts.assemble(manifest, *blake3::hash(bytes).as_bytes())
    }
}

fn floats(reader: &mut Reader<'_>) -> Result<Vec<f32>, Malformed> {
    let count = reader.count(4)?;
    Ok(crate::trace::floats(reader.take(4 * count)?))
}
