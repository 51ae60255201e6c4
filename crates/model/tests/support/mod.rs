//! Tiny checkpoints and adapters made in code.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part of this")]

use exact::{Activations, Isa};
use model::{LoadOptions, Model};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Type, shape and bytes of a tensor.
#[derive(Clone)]
pub struct Raw {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Raw>;

/// A float that looks random, from −1 to 1.
pub fn noise(seed: u64, i: usize) -> f32 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 29;
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

pub fn seed_of(name: &str) -> u64 {
    name.bytes().fold(7, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

pub fn f32s(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Raw {
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!(bytes.len(), shape.iter().product::<usize>() * 4);
    Raw { dtype: "F32", shape: shape.to_vec(), bytes }
}

pub fn bf16s(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Raw {
    let halves = values.into_iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes());
    Raw { dtype: "BF16", shape: shape.to_vec(), bytes: halves.collect() }
}

pub fn random(name: &str, shape: &[usize]) -> Raw {
    let count = shape.iter().product();
    bf16s(shape, (0..count).map(|i| noise(seed_of(name), i) * 0.2))
}

/// A safetensors file.
pub fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut table, mut data) = (serde_json::Map::new(), vec![]);
    table.insert("__metadata__".into(), json!({"format": "pt"}));
    for (name, raw) in tensors {
        let start = data.len();
        data.extend_from_slice(&raw.bytes);
        table
            .insert(name.clone(), json!({"dtype": raw.dtype, "shape": raw.shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::to_vec(&table).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// A checkpoint to be written to a folder.
#[derive(Clone)]
pub struct Checkpoint {
    pub config: Value,
    pub tensors: Tensors,
}

impl Checkpoint {
    /// Two layers, hidden 32, 4 heads, 2 key heads, MLP 48, 40 tokens.
    pub fn new(model_type: &str) -> Checkpoint {
        let class = match model_type {
            "llama" => "LlamaForCausalLM",
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "Qwen3MoeForCausalLM",
        };
        let mut config = json!({
            "architectures": [class], "model_type": model_type, "hidden_act": "silu", "hidden_size": 32,
            "intermediate_size": 48, "max_position_embeddings": 256, "num_attention_heads": 4, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": 40, "tie_word_embeddings": false,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "eos_token_id": 2,
            "sliding_window": null
        });
        if model_type == "qwen3_moe" {
            let experts = json!({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": []});
            config.as_object_mut().unwrap().extend(experts.as_object().unwrap().clone());
        }
        let mut checkpoint = Checkpoint { config, tensors: Tensors::new() };
        checkpoint.fill(model_type);
        checkpoint
    }

    fn fill(&mut self, model_type: &str) {
        self.add("model.embed_tokens.weight", &[40, 32]);
        self.add("lm_head.weight", &[40, 32]);
        self.add("model.norm.weight", &[32]);
        for layer in 0..2 {
            let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
            self.add(&at("input_layernorm"), &[32]);
            self.add(&at("post_attention_layernorm"), &[32]);
            self.add(&at("self_attn.q_proj"), &[32, 32]);
            self.add(&at("self_attn.k_proj"), &[16, 32]);
            self.add(&at("self_attn.v_proj"), &[16, 32]);
            self.add(&at("self_attn.o_proj"), &[32, 32]);
            if model_type == "qwen2" {
                for (name, width) in [("q", 32), ("k", 16), ("v", 16)] {
                    self.add(&format!("model.layers.{layer}.self_attn.{name}_proj.bias"), &[width]);
                }
            }
            if model_type.starts_with("qwen3") {
                self.add(&at("self_attn.q_norm"), &[8]);
                self.add(&at("self_attn.k_norm"), &[8]);
            }
            if model_type == "qwen3_moe" {
                self.add(&at("mlp.gate"), &[4, 32]);
                for expert in 0..4 {
                    self.add(&at(&format!("mlp.experts.{expert}.gate_proj")), &[16, 32]);
                    self.add(&at(&format!("mlp.experts.{expert}.up_proj")), &[16, 32]);
                    self.add(&at(&format!("mlp.experts.{expert}.down_proj")), &[32, 16]);
                }
            } else {
                self.add(&at("mlp.gate_proj"), &[48, 32]);
                self.add(&at("mlp.up_proj"), &[48, 32]);
                self.add(&at("mlp.down_proj"), &[32, 48]);
            }
        }
    }

    /// Adds a random tensor, or replaces one.
    pub fn add(&mut self, name: &str, shape: &[usize]) {
        self.tensors.insert(name.to_owned(), random(name, shape));
    }

    /// Sets a key of config.json.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.config.as_object_mut().unwrap().insert(key.to_owned(), value);
        self
    }

    /// Removes a key of config.json.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors)).unwrap();
    }

    /// Written as several files with an index.
    pub fn write_sharded(&self, folder: &Path, shards: usize) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let (mut files, mut map) = (vec![Tensors::new(); shards], BTreeMap::new());
        for (i, (name, raw)) in self.tensors.iter().enumerate() {
            map.insert(name.clone(), shard_name(i % shards, shards));
            files[i % shards].insert(name.clone(), raw.clone());
        }
        for (i, tensors) in files.iter().enumerate() {
            std::fs::write(folder.join(shard_name(i, shards)), safetensors(tensors)).unwrap();
        }
        let index = json!({"metadata": {}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    /// Written to a fresh folder and loaded.
    pub fn load(&self) -> Result<Model, String> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        load(folder.path())
    }

    /// The error that loading it gives.
    pub fn error(&self) -> String {
        self.load().err().unwrap()
    }
}

pub fn shard_name(i: usize, shards: usize) -> String {
    format!("model-{:05}-of-{shards:05}.safetensors", i + 1)
}

pub fn options() -> LoadOptions<'static> {
    LoadOptions { threads: 2, isa: Isa::SCALAR, ..LoadOptions::new(Activations::A8) }
}

pub fn load(folder: &Path) -> Result<Model, String> {
    Model::load(folder, &options()).map_err(|error| error.to_string())
}

/// An adapter's folder.
pub fn write_adapter(folder: &Path, config: &Value, tensors: &Tensors) {
    let mut whole = json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_dora": false, "use_rslora": false,
        "rank_pattern": {}, "alpha_pattern": {}, "fan_in_fan_out": false, "modules_to_save": null
    });
    whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    std::fs::write(folder.join("adapter_config.json"), whole.to_string()).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), safetensors(tensors)).unwrap();
}

/// Both halves for one module.
pub fn lora(tensors: &mut Tensors, module: &str, rank: usize, inputs: usize, outputs: usize) {
    let (a, b) =
        (format!("base_model.model.{module}.lora_A.weight"), format!("base_model.model.{module}.lora_B.weight"));
    tensors.insert(a.clone(), random(&a, &[rank, inputs]));
    tensors.insert(b.clone(), random(&b, &[outputs, rank]));
}
