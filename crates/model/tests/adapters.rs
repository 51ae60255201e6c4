//! PEFT adapters: every form that is run, and every one that is refused by name.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use exact::Isa;
use model::{Adapter, Model};
use serde_json::{Value, json};
use std::path::Path;
use support::{Checkpoint, Raw, Tensors, f32s, lora, random, write_adapter};

fn load(folder: &Path, base: &Model) -> Result<Adapter, String> {
    Adapter::load(folder, base, Isa::best()).map_err(|error| error.to_string())
}

fn adapter(base: &Model, config: &Value, tensors: &Tensors) -> Result<Adapter, String> {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), config, tensors);
    load(folder.path(), base)
}

fn gain(base: &Model, adapter: &Adapter, site: &str) -> f32 {
    let number = base.plan.sites.iter().position(|known| known.name == site).unwrap();
    adapter.sites[number].as_ref().unwrap().gain
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";

#[test]
fn any_rank_fits_any_subset_of_the_maps() {
    let base = Checkpoint::new("llama").load().unwrap();
    for rank in [1, 3, 40, 256] {
        let mut tensors = Tensors::new();
        lora(&mut tensors, Q, rank, 32, 32);
        lora(&mut tensors, DOWN, rank, 48, 32);
        lora(&mut tensors, "lm_head", rank, 32, 40);
        let adapter = adapter(&base, &json!({"r": rank, "lora_alpha": 16}), &tensors).unwrap();
        assert_eq!((adapter.rank(), adapter.sites.iter().flatten().count()), (rank, 3));
        assert!(adapter.sites.last().unwrap().is_some(), "the head is the last site");
        assert_eq!(gain(&base, &adapter, Q), (16.0 / rank as f64) as f32);
    }
}

#[test]
fn a_is_prepared_as_its_map_is_and_b_is_not() {
    let checkpoint = Checkpoint::new("llama");
    let base = checkpoint.load().unwrap();
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 32, 32, 32);
    // The map's own weights as A come out as the map's own integers.
    let a = format!("base_model.model.{Q}.lora_A.weight");
    tensors.insert(a, checkpoint.tensors[&format!("{Q}.weight")].clone());
    let adapter = adapter(&base, &json!({"r": 32}), &tensors).unwrap();
    let (site, map) = (adapter.sites[0].as_ref().unwrap(), &base.weights.linears[0].matrix);
    let mut levels = vec![0i8; 32];
    for row in 0..32 {
        map.row(row, &mut levels);
        assert_eq!((site.a.row(row), site.a.scales()[row]), (&levels[..], map.scales()[row]));
    }
    assert!(site.b.scales().iter().all(|scale| *scale > 0.2 / 127.5 * 0.5), "B is not spread");
}

#[test]
fn rank_and_alpha_patterns_match_as_peft_matches() {
    let base = Checkpoint::new("llama").load().unwrap();
    let k = "model.layers.1.self_attn.k_proj";
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 2, 32, 32);
    lora(&mut tensors, k, 6, 32, 16);
    lora(&mut tensors, DOWN, 4, 48, 32);
    let config = json!({
        "rank_pattern": {"self_attn.q_proj": 2, r"layers\.1\.self_attn\..*": 6, "proj": 9},
        "alpha_pattern": {"model.layers.1.mlp.down_proj": 3.5, "self_attn.(q|k)_proj": 10}
    });
    let loaded = adapter(&base, &config, &tensors).unwrap();
    assert_eq!(gain(&base, &loaded, Q), 10.0 / 2.0);
    assert_eq!(gain(&base, &loaded, k), (10.0 / 6.0) as f32);
    assert_eq!(gain(&base, &loaded, DOWN), 3.5 / 4.0);
    let mut square = config.clone();
    square["use_rslora"] = json!(true);
    let loaded = adapter(&base, &square, &tensors).unwrap();
    assert_eq!(gain(&base, &loaded, k), (10.0 / 6f64.sqrt()) as f32);
    // The first pattern that matches counts, in the order of the file.
    let order = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = Tensors::new();
        lora(&mut tensors, Q, 2, 32, 32);
        write_adapter(folder.path(), &json!({"r": 2}), &tensors);
        let path = folder.path().join("adapter_config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("\"alpha_pattern\":{}", &format!("\"alpha_pattern\":{text}"))).unwrap();
        gain(&base, &load(folder.path(), &base).unwrap(), Q)
    };
    assert_eq!(order(r#"{"q_proj": 2, ".*q_proj": 4}"#), 1.0);
    assert_eq!(order(r#"{".*q_proj": 4, "q_proj": 2}"#), 2.0);
    assert_eq!(order(r#"{"proj": 4, "_proj": 6}"#), 4.0, "a pattern starts at a dot and ends at the end");
    let wrong = json!({"r": 2, "rank_pattern": {"(": 2}});
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 2, 32, 32);
    assert!(adapter(&base, &wrong, &tensors).err().unwrap().contains("rank_pattern"));
    let bomb = json!({"r": 2, "rank_pattern": {"(a{1000}){1000}": 2}});
    assert!(adapter(&base, &bomb, &tensors).err().unwrap().contains("rank_pattern"));
}

#[test]
fn names_with_the_adapters_name_are_read_too() {
    let base = Checkpoint::new("llama").load().unwrap();
    let mut plain = Tensors::new();
    lora(&mut plain, Q, 4, 32, 32);
    let named: Tensors =
        plain.iter().map(|(name, raw)| (name.replace(".weight", ".default.weight"), raw.clone())).collect();
    let (a, b) = (adapter(&base, &json!({}), &plain).unwrap(), adapter(&base, &json!({}), &named).unwrap());
    assert_eq!(a.digest, b.digest);
    let both: Tensors = plain.into_iter().chain(named).collect();
    assert!(adapter(&base, &json!({}), &both).err().unwrap().contains("another name"));
}

#[test]
fn the_digest_covers_every_integer_scale_and_gain() {
    let base = Checkpoint::new("llama").load().unwrap();
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 4, 32, 32);
    let digest = |config: Value, tensors: &Tensors| adapter(&base, &config, tensors).unwrap().digest;
    let first = digest(json!({}), &tensors);
    assert_eq!(first, digest(json!({"lora_dropout": 0.1}), &tensors));
    assert_ne!(first, digest(json!({"lora_alpha": 9}), &tensors));
    for half in ["A", "B"] {
        let mut changed = tensors.clone();
        changed.get_mut(&format!("base_model.model.{Q}.lora_{half}.weight")).unwrap().bytes[1] ^= 0x80;
        assert_ne!(first, digest(json!({}), &changed), "{half}");
    }
    let mut elsewhere = Tensors::new();
    lora(&mut elsewhere, &Q.replace("layers.0", "layers.1"), 4, 32, 32);
    assert_ne!(first, digest(json!({}), &elsewhere));
}

#[test]
fn kinds_that_are_not_plain_lora_are_refused_by_name() {
    let base = Checkpoint::new("llama").load().unwrap();
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 4, 32, 32);
    for (key, value) in [
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
        ("trainable_token_indices", json!([1, 2])),
        ("alora_invocation_tokens", json!([1])),
        ("layer_replication", json!([[0, 1]])),
        ("peft_type", json!("LOHA")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("use_something_new", json!(true)),
    ] {
        let error = adapter(&base, &json!({ key: value }), &tensors).err().unwrap();
        assert!(error.contains(key) && error.contains("not supported"), "{key}: {error}");
    }
    for (key, value) in
        [("init_lora_weights", json!("gaussian")), ("use_new", json!(false)), ("eva_config", json!(null))]
    {
        assert!(adapter(&base, &json!({ key: value }), &tensors).is_ok(), "{key}");
    }
    for (name, word) in [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "lora_bias"),
        ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight", "base inside"),
        ("base_model.model.model.norm.weight", "modules_to_save"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight", "lora_A"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model."),
    ] {
        let mut more = tensors.clone();
        more.insert(name.to_owned(), random(name, &[4, 32]));
        let error = adapter(&base, &json!({}), &more).err().unwrap();
        assert!(error.contains(name) && error.contains(word), "{error}");
    }
}

#[test]
fn copies_of_the_bases_vocabulary_are_passed_over_if_they_are_the_bases() {
    for (dtype, tied) in [("BF16", false), ("BF16", true), ("F16", false), ("F32", true)] {
        let mut checkpoint = Checkpoint::new("llama");
        checkpoint.set("tie_word_embeddings", json!(tied));
        if tied {
            checkpoint.tensors.remove("lm_head.weight");
        }
        for tensor in checkpoint.tensors.values_mut() {
            *tensor = stored_as(dtype, tensor);
        }
        let base = checkpoint.load().unwrap();
        let embedding = &checkpoint.tensors["model.embed_tokens.weight"];
        let head = checkpoint.tensors.get("lm_head.weight").unwrap_or(embedding);
        let mut tensors = Tensors::new();
        lora(&mut tensors, "lm_head", 4, 32, 40);
        let plain = adapter(&base, &json!({}), &tensors).unwrap();
        for (name, own) in [
            ("base_model.model.lm_head.base_layer.weight", head),
            ("base_model.model.lm_head.weight", head),
            ("base_model.model.model.embed_tokens.weight", embedding),
            ("base_model.model.model.embed_tokens.base_layer.weight", embedding),
        ] {
            let with = |raw: Raw| {
                let mut more = tensors.clone();
                more.insert(name.to_owned(), raw);
                adapter(&base, &json!({}), &more)
            };
            assert_eq!(with(own.clone()).unwrap().digest, plain.digest, "{name} {dtype}");
            assert_eq!(with(widened(own)).unwrap().digest, plain.digest, "{name} of {dtype} as binary32");
            let mut other = own.clone();
            // The largest bits of one value of row 17.
            let last = other.bytes.len() / 40 * 18 - 1;
            other.bytes[last] ^= 0x02;
            let error = with(other).err().unwrap();
            assert!(error.contains(name) && error.contains("row 17") && error.contains("not supported"), "{error}");
            let error = with(random(name, &[41, 32])).err().unwrap();
            assert!(error.contains(name) && error.contains("resized"), "{error}");
            let mut broken = widened(own);
            broken.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            assert!(with(broken).err().unwrap().contains(name));
        }
    }
}

/// bfloat16 values in another type, in which they are exact.
fn stored_as(dtype: &'static str, raw: &Raw) -> Raw {
    let values = values(raw);
    match dtype {
        "F16" => {
            let bytes = values.iter().flat_map(|value| narrowed(*value).to_le_bytes()).collect();
            Raw { dtype, shape: raw.shape.clone(), bytes }
        }
        "F32" => f32s(&raw.shape, values),
        _ => raw.clone(),
    }
}

/// As binary16, exact for bfloat16 values that are normal in it; zero for smaller ones.
fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, exponent) = ((bits >> 16 & 0x8000) as u16, (bits >> 23 & 0xff) as u16);
    if exponent <= 112 { sign } else { sign | (exponent - 112) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

fn widened(raw: &Raw) -> Raw {
    f32s(&raw.shape, values(raw))
}

fn values(raw: &Raw) -> Vec<f32> {
    let halves = || raw.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match raw.dtype {
        "F32" => {
            raw.bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
        }
        "F16" => halves().map(model::widen_half).collect(),
        _ => halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
    }
}

#[test]
fn adapters_for_another_base_or_broken_ones_say_so() {
    let base = Checkpoint::new("llama").load().unwrap();
    let error = |module: &str, inputs, outputs, change: &dyn Fn(&mut Tensors)| {
        let mut tensors = Tensors::new();
        lora(&mut tensors, module, 4, inputs, outputs);
        change(&mut tensors);
        adapter(&base, &json!({}), &tensors).err().unwrap()
    };
    let (a, b) = (format!("base_model.model.{Q}.lora_A.weight"), format!("base_model.model.{Q}.lora_B.weight"));
    let e = error(Q, 64, 32, &|_| {});
    assert!(e.contains(&format!("adapter is for another base: site {Q} has 64 inputs")), "{e}");
    let e = error("model.layers.7.self_attn.q_proj", 32, 32, &|_| {});
    assert!(e.contains("another base") && e.contains("layers.7"), "{e}");
    assert!(error(Q, 32, 32, &|t| drop(t.remove(&a))).contains(&a));
    assert!(error(Q, 32, 32, &|t| drop(t.remove(&b))).contains(&b));
    let e = error(Q, 32, 32, &|t| drop(t.insert(b.clone(), random(&b, &[32, 5]))));
    assert!(e.contains("rank 4") && e.contains("rank 5"), "{e}");
    assert!(error(Q, 32, 32, &|t| drop(t.insert(a.clone(), random(&a, &[128])))).contains("not matrices"));
    for half in [&a, &b] {
        let nan = |t: &mut Tensors| t.get_mut(half).unwrap().bytes[1] = 0x7f;
        let e = error(Q, 32, 32, &|t| {
            nan(t);
            t.get_mut(half).unwrap().bytes[0] = 0xc0;
        });
        assert!(e.contains(half.as_str()) && e.contains("row 0"), "{e}");
    }
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 8, 32, 32);
    assert!(adapter(&base, &json!({"r": 4}), &tensors).err().unwrap().contains("gives 4"));
    assert!(adapter(&base, &json!({}), &Tensors::new()).err().unwrap().contains("no lora_A"));
    for r in [json!(0), json!(-1), json!(null), json!(1u64 << 40)] {
        assert!(adapter(&base, &json!({"r": r}), &tensors).err().unwrap().contains("r: "));
    }
}

#[test]
fn adapters_on_experts_are_refused_and_on_attention_beside_them_run() {
    let base = Checkpoint::new("qwen3_moe").load().unwrap();
    for module in ["model.layers.0.mlp.experts.3.up_proj", "model.layers.0.mlp.gate", "model.layers.0.mlp.experts"] {
        let mut tensors = Tensors::new();
        lora(&mut tensors, module, 4, 32, 16);
        let error = adapter(&base, &json!({}), &tensors).err().unwrap();
        assert!(error.contains(module) && error.contains("not supported"), "{error}");
    }
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 4, 32, 32);
    assert!(adapter(&base, &json!({}), &tensors).is_ok());
}

#[test]
fn pickled_adapters_are_refused_and_missing_files_named() {
    let base = Checkpoint::new("llama").load().unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert!(load(folder.path(), &base).err().unwrap().contains("adapter_config.json"));
    write_adapter(folder.path(), &json!({}), &Tensors::new());
    std::fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    assert!(load(folder.path(), &base).err().unwrap().contains("adapter_model.safetensors"));
    std::fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
    let error = load(folder.path(), &base).err().unwrap();
    assert!(error.contains("adapter_model.bin") && error.contains("convert"), "{error}");
    for text in ["", "[]", "{\"peft_type\": 3}"] {
        std::fs::write(folder.path().join("adapter_config.json"), text).unwrap();
        assert!(load(folder.path(), &base).err().unwrap().contains("adapter_config.json"));
    }
}
