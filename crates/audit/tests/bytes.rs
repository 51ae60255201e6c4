//! Any bytes as opening, key, frame, manifest, message or transcript: refused or read, never a panic, and read back as they
//! were written.

#![expect(clippy::unwrap_used, reason = "test support")]

mod support;

use audit::dispute::{Message, Transcript};
use audit::light::{Frame, Key, LightConfig, LightOpening, check, prove};
use audit::trace::Run;
use exact::{Activations, Isa};
use model::{Adapter, AdapterManifest, Manifest, Mlp, Model, Shape, digest};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use support::{Case, prompt, settings, shape};

struct Sample {
    model: Arc<Model>,
    bundle: receipt::Bundle,
    manifest: Vec<u8>,
    adapter_manifest: Vec<u8>,
    key: Key,
    frame: Frame,
    opening: Vec<u8>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let experts = Mlp::Experts { experts: 3, chosen: 2, width: 32, renormalise: true };
    let shape = Shape { mlps: vec![experts, Mlp::Gated { width: 64 }], vocabulary: 320, ..shape() };
    let model = Arc::new(Model::random(shape, Activations::A8, 1));
    let adapter = Adapter::random(&model.plan, 4, 7);
    let short = receipt::Settings { tokens_max: 5, ..settings() };
    let bundle = Case::honest(&model, None, &prompt(6), &short).sign();
    let run = Run { model: model.clone(), adapter: None, isa: Isa::best(), threads: 1 };
    let (key, frame) = Key::secret(&model, [5; 32], Isa::best(), 1).unwrap();
    Sample {
        manifest: digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 1),
        adapter_manifest: digest::adapter_manifest(&model.plan, &adapter.sites, 1),
        opening: prove(&run, &bundle, 4..8).unwrap().to_bytes(),
        model,
        bundle,
        key,
        frame,
    }
});

/// Flips bits, cuts, and repeats parts.
fn damaged(bytes: &[u8], damage: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, with) in damage {
        let length = bytes.len();
        bytes[at % length] ^= with;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

fn read_all(bytes: &[u8]) {
    if let Ok(message) = Message::from_bytes(bytes) {
        assert_eq!(message.to_bytes(), bytes);
    }
    if let Ok(transcript) = Transcript::from_bytes(bytes) {
        assert_eq!(transcript.to_bytes(), bytes);
    }
    if let Ok(opening) = LightOpening::from_bytes(bytes) {
        assert_eq!(opening.to_bytes(), bytes);
    }
    if let Ok(key) = Key::from_bytes(bytes) {
        assert_eq!(key.to_bytes(), bytes);
    }
    if let Ok(frame) = Frame::from_bytes(bytes) {
        assert_eq!(frame.to_bytes(), bytes);
    }
    let _ = Manifest::read(bytes);
    let _ = AdapterManifest::read(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..6) {
        read_all(&bytes);
        read_all(&[&[kind][..], &bytes].concat());
        for heading in ["lockstep dispute 1", "lockstep light opening 2", "lockstep light key 2", "lockstep frame 1"] {
            let length = (heading.len() as u64).to_le_bytes();
            read_all(&[&length[..], heading.as_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn damaged_manifests_keys_and_frames_are_refused_or_read(
        damage in proptest::collection::vec((any::<usize>(), 1u8..), 1..4), cut in 0usize..3
    ) {
        read_all(&damaged(&SAMPLE.manifest, &damage, cut));
        read_all(&damaged(&SAMPLE.adapter_manifest, &damage, cut));
        read_all(&damaged(&SAMPLE.key.to_bytes(), &damage, cut));
        read_all(&damaged(&SAMPLE.frame.to_bytes(), &damage, cut));
    }

    #[test]
    fn a_damaged_opening_never_holds(damage in proptest::collection::vec((any::<usize>(), 1u8..), 1..4)) {
        let sample = &*SAMPLE;
        let bytes = damaged(&sample.opening, &damage, 0);
        prop_assume!(bytes != sample.opening);
        if let Ok(opening) = LightOpening::from_bytes(&bytes) {
            let config = LightConfig { isa: Isa::best(), threads: 1, text: None };
            let verdict = check(&sample.bundle, &opening, &sample.key, &sample.frame, None, config);
            prop_assert!(!verdict.unwrap().holds());
        }
    }
}

#[test]
fn the_undamaged_ones_are_read() {
    let sample = &*SAMPLE;
    read_all(&sample.opening);
    assert_eq!(Manifest::read(&sample.manifest).unwrap().digest, sample.model.digest);
    assert!(AdapterManifest::read(&sample.adapter_manifest).is_ok());
    let config = LightConfig { isa: Isa::best(), threads: 1, text: None };
    let opening = LightOpening::from_bytes(&sample.opening).unwrap();
    assert!(check(&sample.bundle, &opening, &sample.key, &sample.frame, None, config).unwrap().holds());
}
