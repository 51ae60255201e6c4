//! What is not supported is refused by its name, and what cannot be is refused by its key.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use serde_json::{Value, json};
use support::{Checkpoint, Raw, f32s};

/// Loads a llama with keys of config.json changed and gives the error.
fn refused(set: Value) -> String {
    let mut checkpoint = Checkpoint::new("llama");
    set.as_object().unwrap().iter().for_each(|(key, value)| {
        checkpoint.set(key, value.clone());
    });
    checkpoint.error()
}

#[test]
fn unknown_architectures_are_named_with_those_that_are_known() {
    for (class, model_type) in [("MixtralForCausalLM", "mixtral"), ("Gemma3ForCausalLM", "gemma3_text")] {
        let error = refused(json!({"architectures": [class], "model_type": model_type}));
        assert!(error.contains(class) && error.contains("LlamaForCausalLM") && error.contains("Qwen3Moe"), "{error}");
    }
    assert!(refused(json!({"model_type": "phi3"})).contains("phi3"));
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.unset("architectures").unset("model_type");
    assert!(checkpoint.error().contains("model_type"));
    let mut checkpoint = Checkpoint::new("llama");
    assert!(checkpoint.unset("architectures").load().is_ok(), "model_type is enough");
}

#[test]
fn other_rope_types_are_refused_by_name() {
    for kind in ["yarn", "dynamic", "longrope", "su", "mrope"] {
        for set in [
            json!({"rope_parameters": {"rope_type": kind, "factor": 4.0}}),
            json!({"rope_parameters": null, "rope_scaling": {"type": kind, "factor": 4.0}}),
        ] {
            let error = refused(set);
            assert!(error.contains(&format!("rope type {kind}")), "{error}");
        }
    }
    // Transformers rotates whole heads in these architectures, whatever is said, or fails.
    assert!(refused(json!({"partial_rotary_factor": 0.5})).contains("partial_rotary_factor 0.5 is not supported"));
    let half = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    assert!(refused(json!({"rope_parameters": half})).contains("partial_rotary_factor 0.5 is not supported"));
    let by_layer = json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4, "rope_type": "default"}}});
    assert!(refused(by_layer).contains("full_attention"));
    assert!(refused(json!({"rope_parameters": {"rope_type": "linear"}})).contains("rope_parameters.factor"));
}

#[test]
fn other_activations_and_layer_types_are_refused_by_name() {
    assert!(refused(json!({"hidden_act": "gelu"})).contains("hidden_act gelu"));
    assert!(refused(json!({"layer_types": ["full_attention", "linear_attention"]})).contains("linear_attention"));
    assert!(refused(json!({"layer_types": ["full_attention"]})).contains("layer_types"));
}

#[test]
fn numbers_that_cannot_be_are_refused_by_key() {
    let cases = [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-1)),
        ("hidden_size", json!(1.5)),
        ("hidden_size", json!("32")),
        ("hidden_size", json!(1u64 << 40)),
        ("hidden_size", json!(131_072)),
        ("intermediate_size", json!(200_000)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(6)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(8)),
        ("head_dim", json!(1024)),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(u64::MAX)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(-1.0)),
        ("rms_norm_eps", json!("small")),
        ("tie_word_embeddings", json!("yes")),
        ("rope_parameters", json!([1])),
        ("head_dim", json!(7)),
        ("partial_rotary_factor", json!(-1.0)),
        ("rope_parameters", json!({"rope_theta": -5.0})),
    ];
    for (key, value) in cases {
        let error = refused(json!({ key: value }));
        let named = if value.is_object() { "rope_theta" } else { key };
        assert!(error.contains(named) && error.contains("config.json"), "{key} {value}: {error}");
    }
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"] {
        let mut checkpoint = Checkpoint::new("llama");
        let error = checkpoint.unset(key).error();
        assert!(error.contains(key) && error.contains("missing"), "{error}");
    }
    let mut checkpoint = Checkpoint::new("qwen3_moe");
    checkpoint.set("num_experts_per_tok", json!(5));
    assert!(checkpoint.error().contains("num_experts_per_tok"));
    checkpoint.set("num_experts_per_tok", json!(2)).set("mlp_only_layers", json!([7]));
    assert!(checkpoint.error().contains("mlp_only_layers"));
}

/// `quantization_config` of a W8A8 checkpoint.
fn w8a8() -> Value {
    json!({
        "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
        "kv_cache_scheme": null, "quantization_status": "compressed", "sparsity_config": {},
        "config_groups": {"group_0": {
            "targets": ["Linear"], "output_activations": null,
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false,
                "group_size": null, "actorder": null},
            "input_activations": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token",
                "dynamic": true, "group_size": null}
        }}
    })
}

/// Turns the linear maps of the layers into int8 with a scale per row, or one for all.
fn quantised(per_row: bool) -> Checkpoint {
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.set("quantization_config", w8a8());
    let names: Vec<_> = checkpoint.tensors.keys().filter(|name| name.contains("_proj.weight")).cloned().collect();
    for name in names {
        let raw = &checkpoint.tensors[&name];
        let (shape, count) = (raw.shape.clone(), raw.shape.iter().product::<usize>());
        let bytes = (0..count).map(|i| (i * 37 % 256) as u8).collect();
        let rows = if per_row { shape[0] } else { 1 };
        let scale_shape = if per_row { vec![rows, 1] } else { vec![1] };
        checkpoint.tensors.insert(name.clone(), Raw { dtype: "I8", shape, bytes });
        let scales = f32s(&scale_shape, (0..rows).map(|i| 0.01 + i as f32 * 1e-4));
        checkpoint.tensors.insert(name.replace(".weight", ".weight_scale"), scales);
    }
    checkpoint
}

#[test]
fn int8_checkpoints_keep_their_integers_and_scales() {
    for per_row in [true, false] {
        let model = quantised(per_row).load().unwrap();
        assert!(!model.shape.spread);
        let matrix = &model.weights.linears[0].matrix;
        let mut levels = vec![0i8; 32];
        matrix.row(3, &mut levels);
        let wanted: Vec<i8> = (0..32).map(|i| ((3 * 32 + i) * 37 % 256) as u8 as i8).collect();
        assert_eq!(levels, wanted);
        assert!(
            levels.contains(&-128)
                || (0..32).any(|row| {
                    matrix.row(row, &mut levels);
                    levels.contains(&-128)
                })
        );
        assert_eq!(matrix.scales()[3], if per_row { 0.01 + 3.0 * 1e-4 } else { 0.01 });
        assert!(model.weights.folded.iter().all(Vec::is_empty));
        assert!(model.weights.norms.iter().flatten().any(|weight| *weight != 1.0), "norms keep their weights");
    }
}

#[test]
fn other_quantisations_are_refused_by_name() {
    for method in ["gptq", "awq", "bitsandbytes", "fp8", "mxfp4", "torchao"] {
        let error = refused(json!({"quantization_config": {"quant_method": method, "bits": 4}}));
        assert!(error.contains(method) && error.contains("W8A8"), "{error}");
    }
    let error = refused(json!({"quantization_config": w8a8()}));
    assert!(error.contains("none is"), "{error}");
    let change = |path: &str, value: Value| {
        let mut config = w8a8();
        *config.pointer_mut(path).unwrap() = value;
        let error = refused(json!({"quantization_config": config}));
        assert!(error.contains("not supported"), "{path}: {error}");
        error
    };
    assert!(change("/format", json!("pack-quantized")).contains("pack-quantized"));
    assert!(change("/format", json!("float-quantized")).contains("float-quantized"));
    assert!(change("/kv_cache_scheme", json!({"num_bits": 8})).contains("kv_cache_scheme"));
    assert!(change("/sparsity_config", json!({"format": "sparse-24-bitmask"})).contains("sparsity_config"));
    let group = "/config_groups/group_0";
    assert!(change(&format!("{group}/weights/num_bits"), json!(4)).contains("4 bits"));
    assert!(change(&format!("{group}/weights/type"), json!("float")).contains("float"));
    assert!(change(&format!("{group}/weights/symmetric"), json!(false)).contains("asymmetric"));
    assert!(change(&format!("{group}/weights/strategy"), json!("group")).contains("group"));
    assert!(change(&format!("{group}/weights/group_size"), json!(128)).contains("group_size"));
    assert!(change(&format!("{group}/input_activations/dynamic"), json!(false)).contains("static"));
    assert!(change(&format!("{group}/input_activations/strategy"), json!("tensor")).contains("tensor"));
    assert!(change(&format!("{group}/output_activations"), json!({})).contains("output_activations"));
}

#[test]
fn int8_tensors_must_fit_their_description() {
    let name = "model.layers.0.mlp.up_proj";
    let error = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = quantised(true);
        change(&mut checkpoint);
        checkpoint.error()
    };
    let e = error(&|c| drop(c.tensors.remove(&format!("{name}.weight_scale"))));
    assert!(e.contains(&format!("{name}.weight_scale")), "{e}");
    let e = error(&|c| drop(c.tensors.insert(format!("{name}.weight_scale"), f32s(&[3], [1.0; 3]))));
    assert!(e.contains("shape"), "{e}");
    for wrong in [f32::NAN, f32::INFINITY, -1.0] {
        let e = error(&|c| drop(c.tensors.insert(format!("{name}.weight_scale"), f32s(&[48], [wrong; 48]))));
        assert!(e.contains("weight_scale"), "{e}");
    }
    for foreign in ["weight_zero_point", "input_scale", "weight_packed", "weight_g_idx"] {
        let e = error(&|c| drop(c.tensors.insert(format!("{name}.{foreign}"), f32s(&[1], [1.0]))));
        assert!(e.contains(foreign) || e.contains("pack-quantized"), "{e}");
    }
    let e = error(&|c| {
        c.unset("quantization_config");
    });
    assert!(e.contains("I8"), "{e}");
}

#[test]
fn missing_misshapen_and_infinite_tensors_are_named() {
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.tensors.remove("model.layers.1.mlp.down_proj.weight");
    assert!(checkpoint.error().contains("model.layers.1.mlp.down_proj.weight"));
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.tensors.remove("lm_head.weight");
    assert!(checkpoint.error().contains("tie_word_embeddings"));
    let mut checkpoint = Checkpoint::new("qwen2");
    checkpoint.tensors.remove("model.layers.1.self_attn.k_proj.bias");
    assert!(checkpoint.error().contains("model.layers.1.self_attn.k_proj.bias"));
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.add("model.layers.0.self_attn.q_proj.weight", &[32, 31]);
    let error = checkpoint.error();
    assert!(error.contains("q_proj") && error.contains("[32, 31]") && error.contains("[32, 32]"), "{error}");
    let mut checkpoint = Checkpoint::new("llama");
    let raw = Raw { dtype: "F64", shape: vec![32], bytes: vec![0; 256] };
    checkpoint.tensors.insert("model.norm.weight".into(), raw);
    assert!(checkpoint.error().contains("F64"));
    for (name, wrong) in [
        ("model.layers.0.mlp.gate_proj.weight", f32::NAN),
        ("model.embed_tokens.weight", f32::INFINITY),
        ("model.norm.weight", f32::NEG_INFINITY),
        ("lm_head.weight", f32::NAN),
    ] {
        let mut checkpoint = Checkpoint::new("llama");
        let raw = checkpoint.tensors.get_mut(name).unwrap();
        let at = raw.bytes.len() / 2 / 2 * 2;
        raw.bytes[at..at + 2].copy_from_slice(&((wrong.to_bits() >> 16) as u16).to_le_bytes());
        let row = raw.bytes.len() / 4 / 32;
        let error = checkpoint.error();
        assert!(error.contains(name), "{error}");
        assert!(error.contains(&format!("row {row} ")) || name.contains("norm"), "{error}");
    }
}
