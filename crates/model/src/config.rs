//! `config.json` of a checkpoint becomes a [`Shape`] and what else decides how its tensors are read.

use crate::keys::{Keys, read_json};
use crate::{Mlp, ModelError, Quantization, Shape, quantization, rope};
use std::path::Path;

/// A family of checkpoints: `model_type` in config.json.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// `llama`
    Llama,
    /// `mistral`
    Mistral,
    /// `qwen2`: biases on q, k and v.
    Qwen2,
    /// `qwen3`: each query and key head is normed.
    Qwen3,
    /// `qwen3_moe`: the same, with experts.
    Qwen3Moe,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 5] =
        [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3, Architecture::Qwen3Moe];

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Qwen3Moe => "qwen3_moe",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
            Architecture::Qwen3Moe => "Qwen3MoeForCausalLM",
        }
    }

    /// From the `architectures` list or, without one, `model_type`.
    fn read(keys: Keys<'_>) -> Result<Architecture, ModelError> {
        let class = keys.list("architectures")?.and_then(|list| list.first()).and_then(|class| class.as_str());
        let model_type = keys.text("model_type")?;
        let found = match (class, model_type) {
            (Some(class), _) => Architecture::ALL.into_iter().find(|known| known.class() == class),
            (None, Some(name)) => Architecture::ALL.into_iter().find(|known| known.name() == name),
            (None, None) => return Err(keys.error("model_type", "it is missing")),
        };
        found.filter(|found| model_type.is_none_or(|name| name == found.name())).ok_or_else(|| {
            let known: Vec<_> = Architecture::ALL.iter().map(|known| known.class()).collect();
            let name = class.or(model_type).unwrap_or_default();
            let feature = format!("architecture {name} (model_type {})", model_type.unwrap_or("absent"));
            ModelError::unsupported(keys.path, feature, format!("use one of {}", known.join(", ")))
        })
    }
}

/// Which linear maps config.json says have a bias. Others may have one too: a bias in the checkpoint is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Biases {
    /// q, k and v.
    pub inputs: bool,
    /// o.
    pub output: bool,
    /// gate, up and down.
    pub mlp: bool,
}

impl Biases {
    /// Whether this linear map must have a bias.
    pub(crate) fn asked_for(&self, site: &str) -> bool {
        let is = |names: &[&str]| names.iter().any(|name| site.ends_with(name));
        self.inputs && is(&[".q_proj", ".k_proj", ".v_proj"])
            || self.output && is(&[".o_proj"])
            || self.mlp && is(&[".gate_proj", ".up_proj", ".down_proj"])
    }
}

/// What config.json says.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// The dimensions.
    pub shape: Shape,
    /// The biases that must be there.
    pub biases: Biases,
    /// How the checkpoint's linear maps are stored.
    pub quantization: Quantization,
}

const LAYERS_MAX: usize = 512;
const HEADS_MAX: usize = 4096;
const HEAD_DIM_MAX: usize = 512;
const VOCABULARY_MAX: usize = 1 << 22;
const CONTEXT_MAX: usize = 1 << 26;
const EXPERTS_MAX: usize = 1024;
/// The window of a Mistral that names none; one of null has none.
const MISTRAL_WINDOW: usize = 4096;

impl Config {
    /// Reads `config.json` in a checkpoint's folder.
    ///
    /// # Errors
    /// The file is missing or damaged, a number is absent, absurd or at odds with another, or the checkpoint needs
    /// something this engine does not do, which is named.
    pub fn read(folder: &Path) -> Result<Config, ModelError> {
        let path = folder.join("config.json");
        let value = read_json(&path)?;
        let keys = Keys::new(&path, &value)?;
        let architecture = Architecture::read(keys)?;
        if let Some(act) = keys.text("hidden_act")?.filter(|act| *act != "silu") {
            return Err(ModelError::unsupported(&path, format!("hidden_act {act}"), "only silu is"));
        }
        let quantization = quantization::read(keys)?;
        let spread = quantization == Quantization::Floats;
        let shape = Shape { spread, ..read_shape(keys, architecture)? };
        let bias = keys.flag("attention_bias")?;
        let biases = match architecture {
            Architecture::Llama => Biases { inputs: bias, output: bias, mlp: keys.flag("mlp_bias")? },
            Architecture::Mistral => Biases::default(),
            Architecture::Qwen2 => Biases { inputs: true, output: false, mlp: false },
            Architecture::Qwen3 | Architecture::Qwen3Moe => Biases { inputs: bias, output: bias, mlp: false },
        };
        Ok(Config { architecture, shape, biases, quantization })
    }
}

fn read_shape(keys: Keys<'_>, architecture: Architecture) -> Result<Shape, ModelError> {
    let hidden = keys.integer("hidden_size", 1..=exact::INPUTS_MAX)?;
    let layers = keys.integer("num_hidden_layers", 1..=LAYERS_MAX)?;
    let heads = keys.integer("num_attention_heads", 1..=HEADS_MAX)?;
    let key_heads = keys.integer_if_there("num_key_value_heads", 1..=HEADS_MAX)?.unwrap_or(heads);
    if heads % key_heads != 0 {
        return Err(keys.error("num_key_value_heads", format!("{key_heads} does not divide {heads} heads")));
    }
    let head_dim = match keys.integer_if_there("head_dim", 1..=HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden % heads == 0 && hidden / heads <= HEAD_DIM_MAX => hidden / heads,
        None => {
            let what = format!("{heads} heads of up to {HEAD_DIM_MAX} do not make up hidden_size {hidden}");
            return Err(keys.error("num_attention_heads", what));
        }
    };
    if heads * head_dim > exact::INPUTS_MAX {
        let what = format!("{heads} heads of {head_dim} exceed {} inputs of o_proj", exact::INPUTS_MAX);
        return Err(keys.error("num_attention_heads", what));
    }
    let norm_eps = keys.float_if_there("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-6) as f32;
    Ok(Shape {
        hidden,
        layers,
        heads,
        key_heads,
        head_dim,
        mlps: read_mlps(keys, architecture, layers)?,
        vocabulary: keys.integer("vocab_size", 1..=VOCABULARY_MAX)?,
        context: keys.integer("max_position_embeddings", 1..=CONTEXT_MAX)?,
        norm_eps,
        rotary: rope::read(keys, head_dim)?,
        window: read_window(keys, architecture, layers)?,
        head_norms: matches!(architecture, Architecture::Qwen3 | Architecture::Qwen3Moe),
        tied: keys.flag("tie_word_embeddings")?,
        spread: true,
    })
}

fn read_mlps(keys: Keys<'_>, architecture: Architecture, layers: usize) -> Result<Vec<Mlp>, ModelError> {
    let gated = || keys.integer("intermediate_size", 1..=exact::INPUTS_MAX).map(|width| Mlp::Gated { width });
    if architecture != Architecture::Qwen3Moe {
        return Ok(vec![gated()?; layers]);
    }
    let experts = match keys.integer_if_there("num_experts", 1..=EXPERTS_MAX)? {
        Some(experts) => experts,
        None => keys.integer("num_local_experts", 1..=EXPERTS_MAX)?,
    };
    let sparse = Mlp::Experts {
        experts,
        chosen: keys.integer("num_experts_per_tok", 1..=experts)?,
        width: keys.integer("moe_intermediate_size", 1..=exact::INPUTS_MAX)?,
        renormalise: keys.flag("norm_topk_prob")?,
    };
    let step = keys.integer_if_there("decoder_sparse_step", 1..=LAYERS_MAX)?.unwrap_or(1);
    let dense_layers = keys.list("mlp_only_layers")?.unwrap_or(&[]);
    let mut dense = vec![false; layers];
    for layer in dense_layers {
        match layer.as_u64().and_then(|layer| dense.get_mut(usize::try_from(layer).ok()?)) {
            Some(dense) => *dense = true,
            None => return Err(keys.error("mlp_only_layers", format!("{layer} is not one of {layers} layers"))),
        }
    }
    (0..layers).map(|layer| if dense[layer] || (layer + 1) % step != 0 { gated() } else { Ok(sparse) }).collect()
}

/// One window for all layers, as the architecture's code in transformers decides it.
fn read_window(keys: Keys<'_>, architecture: Architecture, layers: usize) -> Result<Option<usize>, ModelError> {
    let asked = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        _ => keys.flag("use_sliding_window")?,
    };
    let window = match asked {
        true if architecture == Architecture::Mistral && !keys.mentions("sliding_window") => Some(MISTRAL_WINDOW),
        true => keys.integer_if_there("sliding_window", 1..=CONTEXT_MAX)?,
        false => None,
    };
    let mixed = || {
        let advice = "all layers must have full attention or the same sliding window";
        Err(ModelError::unsupported(keys.path, "mixing layer_types", advice))
    };
    if let Some(types) = keys.list("layer_types")? {
        if types.len() != layers {
            return Err(keys.error("layer_types", format!("{} entries for {layers} layers", types.len())));
        }
        let names: Vec<_> = types.iter().map(|name| name.as_str().unwrap_or_default()).collect();
        if let Some(name) = names.iter().find(|name| !["full_attention", "sliding_attention"].contains(name)) {
            let advice = "full_attention and sliding_attention are";
            return Err(ModelError::unsupported(keys.path, format!("layer type {name:?}"), advice));
        }
        let sliding = names.iter().filter(|name| **name == "sliding_attention").count();
        return match (sliding, window) {
            (0, _) if architecture != Architecture::Mistral => Ok(None),
            (0, None) => Ok(None),
            (count, Some(window)) if count == layers => Ok(Some(window)),
            (count, None) if count == layers => {
                Err(keys.error("sliding_window", "layer_types asks for a window, but none is in use"))
            }
            _ => mixed(),
        };
    }
    if window.is_some() && matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3) {
        let first = keys.integer_if_there("max_window_layers", 0..=usize::MAX)?.unwrap_or(28);
        return match first {
            0 => Ok(window),
            first if first >= layers => Ok(None),
            _ => mixed(),
        };
    }
    Ok(window)
}
