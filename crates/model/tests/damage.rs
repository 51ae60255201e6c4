//! Damaged files give errors that name them, and never a panic.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use model::{Model, Tensors};
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use support::{Checkpoint, load, options, safetensors, shard_name};

/// A safetensors file of a header and some bytes.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

fn open(folder: &Path, bytes: &[u8]) -> Result<Tensors, String> {
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Tensors::open_file(&path).map_err(|error| error.to_string())
}

#[test]
fn headers_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let line = |name: &str, shape: &str, range: &str| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}"#)
    };
    let good = format!("{{{},{}}}   ", line("a", "[2]", "[0,8]"), line("b", "[0]", "[8,8]"));
    let tensors = open(folder.path(), &file(&good, 8)).unwrap();
    assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b"]);
    let cases = [
        (file("", 0), "{"),
        (file(" {}", 0), "{"),
        (file("{", 0), "header"),
        (file("[]", 0), "{"),
        (file(&good, 7), "truncated"),
        (file(&good, 9), "no tensor"),
        (file(&format!("{{{}}}", line("a", "[2]", "[8,0]")), 8), "ends before"),
        (file(&format!("{{{}}}", line("a", "[3]", "[0,8]")), 8), "cannot take"),
        (file(&format!("{{{}}}", line("a", "[4294967296,4294967296]", "[0,8]")), 8), "cannot take"),
        (file(&format!("{{{}}}", line("a", "[1]", "[4,8]")), 8), "hole"),
        (file(&format!("{{{},{}}}", line("a", "[2]", "[0,8]"), line("b", "[2]", "[4,12]")), 12), "overlaps"),
        (file(&format!("{{{},{}}}", line("a", "[1]", "[0,4]"), line("a", "[1]", "[4,8]")), 8), "twice"),
        (file(&format!("{{{}}}", line("a", "[2]", "[0,8]").replace("F32", "Q9")), 8), "Q9"),
        (file(&format!("{{{}}}", line("a", "[-2]", "[0,8]")), 8), "header"),
        (u64::MAX.to_le_bytes().to_vec(), "at most"),
        (100_000_001u64.to_le_bytes().to_vec(), "at most"),
        (1_000u64.to_le_bytes().to_vec(), "truncated"),
        (vec![0; 3], "too few"),
    ];
    for (bytes, word) in cases {
        let error = open(folder.path(), &bytes).unwrap_err();
        assert!(error.contains(word) && error.contains("model.safetensors"), "{word}: {error}");
    }
}

#[test]
fn a_checkpoint_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::new("llama");
    checkpoint.write(folder.path());
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for cut in (0..header + 8).chain((header..whole.len()).step_by(997)) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = Tensors::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{cut}: {error}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(load(folder.path()).err().unwrap().contains("truncated"));
}

#[test]
fn any_byte_of_a_small_file_may_be_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = support::Tensors::new();
    tensors.insert("a".into(), support::random("a", &[2, 3]));
    tensors.insert("b".into(), support::random("b", &[4]));
    let whole = safetensors(&tensors);
    for at in 0..whole.len() {
        for flip in [1u8, 0x10, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            // Either an error or a readable file: both are answers.
            let _ = open(folder.path(), &damaged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_header_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0u64..400) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = length.to_le_bytes().to_vec();
        file.push(b'{');
        file.extend(bytes);
        let _ = open(folder.path(), &file);
    }

    #[test]
    fn no_numbers_in_a_header_make_it_panic(
        lines in proptest::collection::vec((any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u64>(), 0..4)), 0..4),
        small in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let cut = |x: u64| if small { x % 32 } else { x };
        let table: serde_json::Map<_, _> = lines.iter().enumerate().map(|(i, (start, end, shape))| {
            let shape: Vec<u64> = shape.iter().map(|x| cut(*x)).collect();
            (i.to_string(), json!({"dtype": "I8", "shape": shape, "data_offsets": [cut(*start), cut(*end)]}))
        }).collect();
        let _ = open(folder.path(), &file(&serde_json::to_string(&table).unwrap(), 16));
    }

    #[test]
    fn no_config_makes_it_panic(key in 0usize..12, value in any::<i64>(), kind in 0u8..5) {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::new("qwen3_moe");
        let keys: Vec<String> = checkpoint.config.as_object().unwrap().keys().cloned().collect();
        let value = match kind {
            0 => json!(value),
            1 => json!(value as f64 * 1e-3),
            2 => json!([value, value]),
            3 => json!({"rope_theta": value, "rope_type": "llama3", "factor": value}),
            _ => json!(value.to_string()),
        };
        checkpoint.set(&keys[key % keys.len()].clone(), value);
        checkpoint.write(folder.path());
        let _ = Model::load(folder.path(), &options());
    }
}

#[test]
fn shards_stay_in_their_folder() {
    for name in
        ["../model.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..\\x.safetensors", "x.bin", ".."]
    {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new("llama");
        checkpoint.write_sharded(folder.path(), 1);
        let index = json!({"weight_map": {"lm_head.weight": name}});
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = load(folder.path()).err().unwrap();
        assert!(error.contains("lm_head.weight") && error.contains("plain name"), "{error}");
    }
}

#[test]
fn shards_must_be_what_the_index_says() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::new("llama");
    checkpoint.write_sharded(folder.path(), 2);
    let second = folder.path().join(shard_name(1, 2));
    let kept = std::fs::read(&second).unwrap();
    std::fs::remove_file(&second).unwrap();
    assert!(load(folder.path()).err().unwrap().contains(&shard_name(1, 2)));
    std::fs::copy(folder.path().join(shard_name(0, 2)), &second).unwrap();
    assert!(load(folder.path()).err().unwrap().contains("also in"), "the same tensors twice");
    std::fs::write(&second, safetensors(&support::Tensors::new())).unwrap();
    assert!(load(folder.path()).err().unwrap().contains("index"));
    std::fs::write(&second, kept).unwrap();
    assert!(load(folder.path()).is_ok());
    for text in ["", "{", "{\"weight_map\": {}}", "{\"weight_map\": 3}", "[]"] {
        std::fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        assert!(load(folder.path()).err().unwrap().contains("index.json"), "{text}");
    }
}

#[test]
fn pickles_are_refused_by_name() {
    for name in ["pytorch_model.bin", "model.pt", "consolidated.00.pth"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), Checkpoint::new("llama").config.to_string()).unwrap();
        std::fs::write(folder.path().join(name), "x").unwrap();
        let error = load(folder.path()).err().unwrap();
        assert!(error.contains(name) && error.contains("safetensors"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(load(folder.path()).err().unwrap().contains("config.json"));
    std::fs::write(folder.path().join("config.json"), Checkpoint::new("llama").config.to_string()).unwrap();
    assert!(load(folder.path()).err().unwrap().contains("no model.safetensors"));
}
