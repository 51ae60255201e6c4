//! Every layout of checkpoint that is read, and what comes out of it.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use exact::{Activations, Isa};
use model::{Half, LoadOptions, Mlp, Model, Origin, Rotary};
use serde_json::json;
use support::{Checkpoint, f32s, load, noise, options, seed_of};

#[test]
fn every_architecture_loads_into_its_shape() {
    for name in ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe"] {
        let model = Checkpoint::new(name).load().unwrap();
        let shape = &model.shape;
        assert_eq!((shape.hidden, shape.layers, shape.heads, shape.key_heads, shape.head_dim), (32, 2, 4, 2, 8));
        assert_eq!((shape.vocabulary, shape.context, shape.window, shape.tied), (40, 256, None, false));
        assert_eq!(shape.head_norms, name.starts_with("qwen3"));
        assert_eq!(shape.rotary, Rotary::plain(10_000.0, 8));
        assert!(shape.spread && shape.norm_eps == 1e-6);
        let experts = Mlp::Experts { experts: 4, chosen: 2, width: 16, renormalise: true };
        let wanted = if name == "qwen3_moe" { experts } else { Mlp::Gated { width: 48 } };
        assert_eq!(shape.mlps, [wanted; 2]);
        let biased = model.weights.linears.iter().filter(|linear| linear.bias.is_some()).count();
        assert_eq!(biased, if name == "qwen2" { 6 } else { 0 });
        assert_eq!(model.weights.embedding.half, Half::Brain);
        for (linear, site) in model.weights.linears.iter().zip(&model.plan.sites) {
            assert_eq!((linear.matrix.outputs(), linear.matrix.inputs()), (site.outputs, site.inputs));
        }
    }
}

/// A row of a map by itself: what an independent reading of the specification makes of it.
fn prepared_row(name: &str, row: usize, norm: Option<&str>, spread: bool) -> (Vec<i8>, f32) {
    let brain = |x: f32| f32::from_bits(x.to_bits() >> 16 << 16);
    let value = |name: &str, i: usize| brain(noise(seed_of(name), i) * 0.2);
    let mut w: Vec<f32> = (0..32).map(|k| value(name, row * 32 + k)).collect();
    if let Some(norm) = norm {
        (0..32).for_each(|k| w[k] *= value(norm, k));
    }
    let mut divisor = 1.0;
    if spread {
        // The Walsh–Hadamard transform by its definition: every sum at once, exact enough to compare levels.
        let exact: Vec<f64> = w.iter().map(|x| f64::from(*x)).collect();
        let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        w = (0..32).map(|i| (0..32).map(|j| sign(i, j) * exact[j]).sum::<f64>() as f32).collect();
        divisor = 32.0;
    }
    let mut levels = vec![0i8; 32];
    let scale = exact::quantise::quantise_weights(Isa::SCALAR, &w, &mut levels).unwrap();
    (levels, scale / divisor)
}

#[test]
fn float_weights_are_folded_spread_and_quantised_by_rows() {
    let model = Checkpoint::new("llama").load().unwrap();
    let cases = [
        ("model.layers.1.self_attn.k_proj", Some("model.layers.1.input_layernorm.weight")),
        ("model.layers.0.mlp.up_proj", Some("model.layers.0.post_attention_layernorm.weight")),
        ("model.layers.0.self_attn.o_proj", None),
        ("lm_head", Some("model.norm.weight")),
    ];
    for (name, norm) in cases {
        let site = model.plan.sites.iter().position(|site| site.name == name).unwrap();
        let matrix = &model.weights.linears[site].matrix;
        for row in 0..matrix.outputs() {
            let (wanted, scale) = prepared_row(&format!("{name}.weight"), row, norm, true);
            let mut levels = vec![0i8; 32];
            matrix.row(row, &mut levels);
            let far = levels.iter().zip(&wanted).any(|(a, b)| (i32::from(*a) - i32::from(*b)).abs() > 1);
            assert!(!far && (matrix.scales()[row] / scale - 1.0).abs() < 1e-5, "{name} {row}");
        }
    }
    assert!(model.weights.norms.iter().flatten().all(|weight| *weight == 1.0));
    assert_eq!(model.weights.folded.len(), model.weights.norms.len());
    assert!(model.weights.folded.iter().flatten().any(|weight| *weight != 1.0));
}

#[test]
fn norms_of_heads_are_not_folded() {
    let model = Checkpoint::new("qwen3").load().unwrap();
    for (number, name) in model.plan.norms.iter().enumerate() {
        let head = name.contains("self_attn");
        assert_eq!(model.weights.folded[number].is_empty(), head, "{name}");
        assert_eq!(model.weights.norms[number].iter().all(|weight| *weight == 1.0), !head, "{name}");
    }
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::new("qwen3_moe").write(folder.path());
    let digests: Vec<_> = Isa::available()
        .into_iter()
        .flat_map(|isa| [1, 3].map(|threads| LoadOptions { isa, threads, ..options() }))
        .map(|options| Model::load(folder.path(), &options).unwrap().digest)
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let a16 = LoadOptions { activations: Activations::A16, ..options() };
    assert_ne!(Model::load(folder.path(), &a16).unwrap().digest, digests[0]);
}

#[test]
fn sharded_and_single_files_are_the_same_model() {
    let (single, sharded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::new("mistral").write(single.path());
    Checkpoint::new("mistral").write_sharded(sharded.path(), 3);
    let (a, b) = (load(single.path()).unwrap(), load(sharded.path()).unwrap());
    assert_eq!(a.digest, b.digest);
    assert_ne!(a.origin, b.origin, "the files differ");
    assert!(matches!(a.origin, Origin::Checkpoint { cache_complaint: None, .. }));
}

#[test]
fn a_tied_head_is_the_embedding() {
    let mut tied = Checkpoint::new("llama");
    tied.set("tie_word_embeddings", json!(true)).tensors.remove("lm_head.weight");
    let mut untied = Checkpoint::new("llama");
    let embedding = untied.tensors["model.embed_tokens.weight"].clone();
    untied.tensors.insert("lm_head.weight".into(), embedding);
    let (tied, untied) = (tied.load().unwrap(), untied.load().unwrap());
    let head = |model: &Model| model.weights.linears[model.plan.head].matrix.packed().to_vec();
    assert_eq!(head(&tied), head(&untied));
    assert_ne!(tied.digest, untied.digest);
}

#[test]
fn binary32_embeddings_are_rounded_to_even_and_halves_kept() {
    let mut checkpoint = Checkpoint::new("llama");
    let bits = [0x3f80_8000u32, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x8000_0001];
    let values = (0..40 * 32).map(|i| f32::from_bits(bits[i % 5]));
    checkpoint.tensors.insert("model.embed_tokens.weight".into(), f32s(&[40, 32], values));
    let embedding = checkpoint.load().unwrap().weights.embedding;
    assert_eq!(embedding.bits[..5], [0x3f80, 0x3f82, 0x3f80, 0x3f81, 0x8000]);
    let mut halves = checkpoint.tensors["model.embed_tokens.weight"].clone();
    (halves.dtype, halves.bytes) = ("F16", [0x00, 0x3c, 0x01, 0x80].repeat(40 * 16));
    checkpoint.tensors.insert("model.embed_tokens.weight".into(), halves);
    let embedding = checkpoint.load().unwrap().weights.embedding;
    assert_eq!((embedding.half, &embedding.bits[..2]), (Half::Ieee, &[0x3c00, 0x8001][..]));
    let mut row = vec![0.0; 32];
    embedding.row(39, &mut row);
    assert_eq!(row[..2], [1.0, -5.960_464_5e-8]);
}

#[test]
fn rope_is_read_from_new_and_old_keys_alike() {
    let rotary = |set: serde_json::Value| {
        let mut checkpoint = Checkpoint::new("llama");
        checkpoint.unset("rope_parameters");
        set.as_object().unwrap().iter().for_each(|(key, value)| {
            checkpoint.set(key, value.clone());
        });
        checkpoint.load().unwrap().shape.rotary.inverse_frequencies
    };
    let plain = Rotary::plain(500_000.0, 8).inverse_frequencies;
    assert_eq!(rotary(json!({})), Rotary::plain(10_000.0, 8).inverse_frequencies);
    assert_eq!(rotary(json!({"rope_theta": 500_000.0, "rope_scaling": null})), plain);
    assert_eq!(rotary(json!({"rope_parameters": {"rope_theta": 500_000, "rope_type": "default"}})), plain);
    let halved: Vec<f64> = plain.iter().map(|omega| omega / 2.0).collect();
    assert_eq!(rotary(json!({"rope_theta": 500_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}})), halved);
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512});
    let mut new = llama3.clone();
    new["rope_theta"] = json!(500_000.0);
    let scaled = rotary(json!({"rope_theta": 500_000.0, "rope_scaling": llama3}));
    assert_eq!(scaled, rotary(json!({"rope_parameters": new})));
    assert_eq!(scaled[0], 1.0, "short waves stay");
    assert_eq!(scaled[3], plain[3] / 8.0, "long waves are stretched");
    assert!(scaled[1] < plain[1] && scaled[1] > plain[1] / 8.0, "between, both are mixed");
    assert_eq!(rotary(json!({"partial_rotary_factor": 1.0})), Rotary::plain(10_000.0, 8).inverse_frequencies);
}

#[test]
fn windows_follow_each_architecture() {
    let window = |name: &str, set: serde_json::Value| {
        let mut checkpoint = Checkpoint::new(name);
        set.as_object().unwrap().iter().for_each(|(key, value)| {
            checkpoint.set(key, value.clone());
        });
        checkpoint.load().map(|model| model.shape.window)
    };
    let sliding = json!(["sliding_attention", "sliding_attention"]);
    assert_eq!(window("mistral", json!({"sliding_window": 64})), Ok(Some(64)));
    assert_eq!(window("mistral", json!({"sliding_window": null})), Ok(None));
    let mut silent = Checkpoint::new("mistral");
    assert_eq!(silent.unset("sliding_window").load().unwrap().shape.window, Some(4096));
    assert_eq!(window("llama", json!({"sliding_window": 64})), Ok(None));
    assert_eq!(window("qwen2", json!({"sliding_window": 64, "use_sliding_window": false})), Ok(None));
    assert_eq!(window("qwen2", json!({"sliding_window": 64, "use_sliding_window": true})), Ok(None));
    let early = json!({"sliding_window": 64, "use_sliding_window": true, "max_window_layers": 0});
    assert_eq!(window("qwen2", early), Ok(Some(64)));
    let typed = json!({"sliding_window": 64, "use_sliding_window": true, "layer_types": sliding});
    assert_eq!(window("qwen3", typed), Ok(Some(64)));
    let mixed = json!({"sliding_window": 64, "use_sliding_window": true,
        "layer_types": ["full_attention", "sliding_attention"]});
    assert!(window("qwen3", mixed).unwrap_err().contains("layer_types"));
    let late = json!({"sliding_window": 64, "use_sliding_window": true, "max_window_layers": 1});
    assert!(window("qwen2", late).unwrap_err().contains("layer_types"));
    assert_eq!(window("qwen3_moe", json!({"sliding_window": 64, "use_sliding_window": true})), Ok(Some(64)));
}

#[test]
fn any_linear_map_may_have_a_bias() {
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.add("model.layers.0.mlp.down_proj.bias", &[32]);
    checkpoint.add("lm_head.bias", &[40]);
    let model = checkpoint.load().unwrap();
    assert_eq!(model.weights.linears.iter().filter(|linear| linear.bias.is_some()).count(), 2);
    assert_ne!(model.digest, Checkpoint::new("llama").load().unwrap().digest);
}

#[test]
fn dense_layers_stand_among_experts() {
    let mut checkpoint = Checkpoint::new("qwen3_moe");
    checkpoint.set("mlp_only_layers", json!([1]));
    for (name, shape) in [("gate_proj", [48, 32]), ("up_proj", [48, 32]), ("down_proj", [32, 48])] {
        checkpoint.add(&format!("model.layers.1.mlp.{name}.weight"), &shape);
    }
    let model = checkpoint.load().unwrap();
    assert!(matches!(model.shape.mlps[..], [Mlp::Experts { .. }, Mlp::Gated { width: 48 }]));
    assert_eq!((model.weights.mixtures.len(), model.weights.mixtures[0].experts.len()), (1, 4));
}

#[test]
fn head_dim_may_differ_from_hidden_over_heads() {
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.set("head_dim", json!(16));
    for layer in 0..2 {
        for (name, shape) in [("q", [64, 32]), ("k", [32, 32]), ("v", [32, 32]), ("o", [32, 64])] {
            checkpoint.add(&format!("model.layers.{layer}.self_attn.{name}_proj.weight"), &shape);
        }
    }
    assert_eq!(checkpoint.load().unwrap().shape.head_dim, 16);
}
