//! Digests are what docs/digests.md says, and trees open row by row.

mod support;

use model::digest::{row_leaf, tensor_leaves};
use model::merkle::{self, Hash};
use model::{Model, file_digest};
use proptest::prelude::*;
use serde_json::json;
use support::Checkpoint;

/// RFC 6962, by its recursive definition.
fn tree(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => *blake3::hash(b"").as_bytes(),
        [one] => *one,
        many => {
            let mut left = 1;
            while left * 2 < many.len() {
                left *= 2;
            }
            let both = [&[1u8][..], &tree(&many[..left]), &tree(&many[left..])].concat();
            *blake3::hash(&both).as_bytes()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn trees_have_the_shape_of_rfc_6962_and_open_at_every_leaf(count in 0usize..70) {
        let leaves: Vec<Hash> = (0..count).map(|i| merkle::leaf(&i.to_le_bytes())).collect();
        let root = merkle::root(&leaves);
        prop_assert_eq!(root, tree(&leaves));
        prop_assert_eq!(merkle::proof(&leaves, count), None);
        for index in 0..count {
            let path = merkle::proof(&leaves, index).unwrap();
            prop_assert!(merkle::verify(&root, count, index, &leaves[index], &path));
            prop_assert!(!merkle::verify(&root, count, (index + 1) % count, &leaves[index], &path) || count == 1);
            prop_assert!(!merkle::verify(&root, count, index + count, &leaves[index], &path));
            prop_assert!(!merkle::verify(&root, count, index, &merkle::leaf(b"x"), &path));
            let mut longer = path.clone();
            longer.push([0; 32]);
            prop_assert!(!merkle::verify(&root, count, index, &leaves[index], &longer));
            if !path.is_empty() {
                prop_assert!(!merkle::verify(&root, count, index, &leaves[index], &path[1..]));
            }
        }
    }
}

/// Writes what docs/digests.md defines, read anew.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).0.extend(text.as_bytes());
        self
    }

    fn tensor(&mut self, name: &str, element: &str, columns: usize, rows: &[Vec<u8>]) {
        let leaf = |row: &Vec<u8>| *blake3::hash(&[&[0u8][..], row].concat()).as_bytes();
        let leaves: Vec<Hash> = rows.iter().map(leaf).collect();
        self.text(name).text(element).number(rows.len() as u64).number(columns as u64).0.extend(tree(&leaves));
    }
}

#[test]
fn the_exact_digest_is_what_its_definition_says() {
    let model = Checkpoint::new("qwen2").load().unwrap();
    let (shape, weights) = (&model.shape, &model.weights);
    let mut bytes = Bytes::default();
    bytes.text("lockstep exact digest 1").number(u64::from(exact::VERSION)).text("a8");
    for number in [32, 2, 4, 2, 8] {
        bytes.number(number);
    }
    for number in [0, 48, 0, 0, 0, 0, 48, 0, 0, 0] {
        bytes.number(number);
    }
    bytes.number(40).number(256).number(u64::from(1e-6f32.to_bits())).number(4);
    for omega in &shape.rotary.inverse_frequencies {
        bytes.number(omega.to_bits());
    }
    bytes.number(0).number(0).number(0).number(1);
    let biases = weights.linears.iter().filter(|linear| linear.bias.is_some()).count();
    let folded = weights.folded.iter().filter(|norm| !norm.is_empty()).count();
    bytes.number((1 + weights.norms.len() + weights.linears.len() + biases + folded) as u64);
    let rows = weights.embedding.bits.chunks(32).map(|row| row.iter().flat_map(|x| x.to_le_bytes()).collect());
    bytes.tensor("model.embed_tokens.weight", "bf16", 32, &rows.collect::<Vec<_>>());
    let floats = |values: &[f32]| vec![values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()];
    for (name, norm) in model.plan.norms.iter().zip(&weights.norms) {
        bytes.tensor(&format!("{name}.weight"), "f32", norm.len(), &floats(norm));
    }
    for (site, linear) in model.plan.sites.iter().zip(&weights.linears) {
        let row = |n: usize| {
            let mut levels = vec![0i8; site.inputs];
            linear.matrix.row(n, &mut levels);
            let scale = linear.matrix.scales()[n].to_le_bytes();
            scale.into_iter().chain(levels.iter().map(|level| *level as u8)).collect::<Vec<u8>>()
        };
        let rows: Vec<_> = (0..site.outputs).map(row).collect();
        bytes.tensor(&format!("{}.weight", site.name), "i8", site.inputs, &rows);
        if let Some(bias) = &linear.bias {
            bytes.tensor(&format!("{}.bias", site.name), "f32", bias.len(), &floats(bias));
        }
    }
    for (name, norm) in model.plan.norms.iter().zip(&weights.folded).filter(|(_, norm)| !norm.is_empty()) {
        bytes.tensor(&format!("{name}.folded"), "f32", norm.len(), &floats(norm));
    }
    assert_eq!(model.digest, *blake3::hash(&bytes.0).as_bytes());
}

#[test]
fn a_row_of_weights_opens_against_its_tensors_root() {
    let model = Checkpoint::new("qwen3_moe").load().unwrap();
    let leaves = |name: &str| tensor_leaves(&model.shape, &model.plan, &model.weights, name, 2);
    let name = "model.layers.1.mlp.experts.2.down_proj.weight";
    let hashes = leaves(name).unwrap();
    let root = merkle::root(&hashes);
    let matrix = &model.weights.mixtures[1].experts[2].down;
    let mut levels = vec![0i8; 16];
    matrix.row(9, &mut levels);
    let leaf = row_leaf(&levels, matrix.scales()[9]);
    let path = merkle::proof(&hashes, 9).unwrap();
    assert!(merkle::verify(&root, 32, 9, &leaf, &path));
    levels[3] ^= 1;
    assert!(!merkle::verify(&root, 32, 9, &row_leaf(&levels, matrix.scales()[9]), &path));
    assert!(leaves("model.layers.1.mlp.gate.weight").is_some() && leaves("nothing").is_none());
}

/// Rows are hashed several at a time, whatever their number.
#[test]
fn every_row_has_the_leaf_it_has_alone() {
    for rows in [1, 15, 16, 17, 33, 100] {
        let mut checkpoint = Checkpoint::new("llama");
        checkpoint.set("vocab_size", json!(rows));
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            checkpoint.add(name, &[rows, 32]);
        }
        let model = checkpoint.load().unwrap();
        let head = &model.weights.linears[model.plan.head].matrix;
        let mut levels = vec![0i8; 32];
        let alone: Vec<_> = (0..rows)
            .map(|row| {
                head.row(row, &mut levels);
                row_leaf(&levels, head.scales()[row])
            })
            .collect();
        for threads in 1..=3 {
            let leaves = tensor_leaves(&model.shape, &model.plan, &model.weights, "lm_head.weight", threads).unwrap();
            assert_eq!(leaves, alone, "{rows} rows on {threads} threads");
        }
    }
}

#[test]
fn every_weight_and_setting_is_in_the_exact_digest() {
    let digest = |model: &Model| model::digest::exact(&model.shape, &model.plan, &model.weights, model.activations, 2);
    let fresh = || Checkpoint::new("qwen3_moe").load().unwrap();
    let first = digest(&fresh());
    assert_eq!(first, fresh().digest);
    let changes: [&dyn Fn(&mut Model); 10] = [
        &|m| m.weights.embedding.bits[1279] ^= 1,
        &|m| m.weights.norms[1][7] = 2.0,
        &|m| m.weights.folded[0][31] = 2.0,
        &|m| {
            let mut levels = vec![0i8; 32];
            let matrix = &mut m.weights.linears[3].matrix;
            matrix.row(31, &mut levels);
            levels[31] ^= 1;
            matrix.set_row(31, &levels, matrix.scales()[31]);
        },
        &|m| m.weights.linears[0].bias = Some(vec![0.0; 32]),
        &|m| {
            let (levels, scale) = m.weights.mixtures[0].router.row(3);
            let levels = levels.to_vec();
            m.weights.mixtures[0].router.set_row(3, &levels, scale * 2.0);
        },
        &|m| m.shape.norm_eps *= 2.0,
        &|m| m.shape.rotary.inverse_frequencies[3] *= 1.0 + f64::EPSILON,
        &|m| m.shape.window = Some(5),
        &|m| m.activations = exact::Activations::A16,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut model = fresh();
        change(&mut model);
        assert_ne!(digest(&model), first, "{number}");
    }
}

#[test]
fn the_file_digest_is_over_the_blake3_of_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::new("llama");
    // Long enough for several subtrees, the last of them partial.
    checkpoint.tensors.insert("unused".into(), support::f32s(&[5 << 20], (0..5 << 20).map(|i| i as f32)));
    checkpoint.write(folder.path());
    let mut bytes = Bytes::default();
    bytes.text("lockstep file digest 1").number(2);
    for name in ["config.json", "model.safetensors"] {
        let file = std::fs::read(folder.path().join(name)).unwrap();
        bytes.text(name).number(file.len() as u64).0.extend(blake3::hash(&file).as_bytes());
    }
    for threads in [1, 2, 5] {
        assert_eq!(file_digest(folder.path(), threads).unwrap(), *blake3::hash(&bytes.0).as_bytes());
    }
}
