//! The regenerated trace and the executor never drift apart: same leaves, same tokens, for every kind of model, adapter,
//! sampler, window and instruction set.

#![expect(clippy::unwrap_used, reason = "test support")]

mod support;

use audit::trace::{Draw, History, Outline, Run, regenerate};
use exact::{Activations, Isa};
use model::{Adapter, AdapterManifest, Manifest, Mlp, Model, Shape, digest};
use receipt::Settings;
use std::sync::Arc;
use support::{How, answer, prompt, sampling, settings, shape};

/// Regenerates `positions` of an answer and compares with what the executor left.
fn agree(model: &Arc<Model>, adapter: Option<&Adapter>, prompt: &[u32], settings: &Settings, positions: &[usize]) {
    let isa = Isa::best();
    let answer = answer(model, adapter, prompt, settings, How { isa, ..How::plain() });
    let mut tokens = [prompt, &answer.tokens].concat();
    tokens.pop();
    let run = Run { model: model.clone(), adapter, isa, threads: 1 };
    let history = run.history(&tokens).unwrap();
    for position in positions.iter().copied().filter(|position| *position < tokens.len()) {
        let drawing = (position + 1 >= prompt.len()).then(|| Draw::from(sampling(settings)));
        let found = regenerate(model, adapter, &history, position, tokens[position], drawing.clone(), None).unwrap();
        assert_eq!(found.leaf(), answer.leaves[position], "leaf of position {position}");
        let again = blake3::Hasher::new().update(&[0x11]).update(&found.leaf_data()).finalize();
        assert_eq!(*again.as_bytes(), found.leaf());
        for layer in 0..model.shape.layers {
            assert_eq!(found.layer_row(layer).unwrap(), history.row(position, layer).unwrap());
        }
        if drawing.is_some() {
            assert_eq!(found.drawn(), Some(answer.tokens[position + 1 - prompt.len()]), "token after {position}");
            let right = found.program.border.map(|border| found.value(border).to_vec());
            assert!(right.is_none_or(|right| right == [1, 0, 0, 0]), "borders of position {position}");
        }
    }
}

#[test]
fn every_kind_of_model_regenerates_what_the_executor_left() {
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 32, renormalise: true };
    let loose = Mlp::Experts { experts: 5, chosen: 3, width: 32, renormalise: false };
    let shapes = [
        shape(),
        Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], ..shape() },
        Shape { mlps: vec![loose, experts], ..shape() },
        Shape { head_norms: true, window: Some(48), ..shape() },
        Shape { spread: false, tied: false, ..shape() },
    ];
    for shape in shapes {
        for activations in [Activations::A8, Activations::A16] {
            let model = Arc::new(Model::random(shape.clone(), activations, 3));
            agree(&model, None, &prompt(60), &settings(), &[0, 1, 47, 48, 59, 63, 64, 65, 128]);
        }
    }
}

#[test]
fn wide_rows_long_contexts_and_adapters_regenerate_too() {
    // Rows of more than one chunk, sums of more than one segment, and contexts of more than one span.
    let wide = Shape { hidden: 1536, heads: 12, key_heads: 4, head_dim: 128, layers: 1, vocabulary: 2500, ..shape() };
    let wide = Shape { mlps: vec![Mlp::Gated { width: 9000 }], rotary: model::Rotary::plain(1e4, 128), ..wide };
    let model = Arc::new(Model::random(wide, Activations::A8, 4));
    let adapter = Adapter::random(&model.plan, 5, 8);
    let short = Settings { tokens_max: 3, ..settings() };
    agree(&model, Some(&adapter), &prompt(6), &short, &[0, 5, 6, 7]);
    let long = Shape { context: 4096, ..shape() };
    let model = Arc::new(Model::random(long, Activations::A8, 4));
    let adapter = Adapter::random(&model.plan, 8, 5);
    agree(&model, Some(&adapter), &prompt(2100), &short, &[1023, 1024, 2047, 2048, 2099, 2101]);
}

#[test]
fn every_way_of_drawing_regenerates() {
    let model = support::model();
    let ways = [
        Settings { temperature: 0.0, ..settings() },
        Settings { top_k: 5, ..settings() },
        Settings { top_k: 1, top_p: 0.5, ..settings() },
        Settings { top_p: 0.4, ..settings() },
        Settings { top_p: 0.0, ..settings() },
        Settings { min_p: 0.3, temperature: 1.5, ..settings() },
        Settings { top_k: 100, top_p: 0.9, min_p: 0.05, seed: u64::MAX, ..settings() },
    ];
    for settings in ways {
        agree(&model, None, &prompt(9), &settings, &[8, 9, 20, 40]);
    }
}

#[test]
fn an_outline_of_the_manifests_is_that_of_the_weights() {
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 32, renormalise: true };
    for shape in [shape(), Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], head_norms: true, ..shape() }] {
        let model = Model::random(shape, Activations::A16, 3);
        let adapter = Adapter::random(&model.plan, 4, 9);
        let bytes = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 1);
        let manifest = Manifest::read(&bytes).unwrap();
        assert_eq!(manifest.digest, model.digest);
        let of_adapter = AdapterManifest::read(&digest::adapter_manifest(&model.plan, &adapter.sites, 1)).unwrap();
        assert_eq!(of_adapter.digest, adapter.digest);
        assert_eq!(Outline::read(&manifest, Some(&of_adapter)).unwrap(), Outline::of(&model, Some(&adapter)));
        assert_eq!(Outline::read(&manifest, None).unwrap(), Outline::of(&model, None));
    }
    assert_eq!(History::default().positions(), 0);
}
