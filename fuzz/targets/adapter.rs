//! Configurations of adapters.
#![no_main]
mod folder;

use exact::{Activations, Isa};
use libfuzzer_sys::fuzz_target;
use model::{Adapter, Mlp, Model, Rotary, Shape};
use std::sync::OnceLock;

fn base() -> &'static Model {
    static BASE: OnceLock<Model> = OnceLock::new();
    BASE.get_or_init(|| {
        let shape = Shape {
            hidden: 32,
            layers: 1,
            heads: 2,
            key_heads: 1,
            head_dim: 16,
            mlps: vec![Mlp::Gated { width: 32 }],
            vocabulary: 40,
            context: 64,
            norm_eps: 1e-5,
            rotary: Rotary::plain(10_000.0, 16),
            window: None,
            head_norms: false,
            tied: true,
            spread: true,
        };
        Model::random(shape, Activations::A8, 1)
    })
}

/// One tensor pair of rank 2 for the query map of layer 0.
fn weights() -> Vec<u8> {
    let name = |part: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight");
    let header = format!(
        r#"{{"{}":{{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]}},"{}":{{"dtype":"F32","shape":[32,2],"data_offsets":[256,512]}}}}"#,
        name("A"),
        name("B")
    );
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 512]].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let files = [("adapter_config.json", bytes), ("adapter_model.safetensors", &weights())];
    let _ = Adapter::load(&folder::folder(&files), base(), Isa::best());
});
