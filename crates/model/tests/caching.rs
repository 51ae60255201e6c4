//! The cache gives the same model, faster, or says why not.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use model::{LoadOptions, Model, Origin, Stage, Weights, file_digest};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use support::{Checkpoint, options};

fn cached(cache: &Path) -> LoadOptions<'static> {
    LoadOptions { cache: Some(cache.to_owned()), ..options() }
}

/// The one quantised model in a cache.
fn kept(cache: &Path) -> PathBuf {
    let found = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.extension().is_some_and(|e| e == "lockstep")).last().unwrap()
}

fn same(a: &Weights, b: &Weights) {
    assert_eq!((&a.embedding.bits, a.embedding.half), (&b.embedding.bits, b.embedding.half));
    assert_eq!((&a.norms, &a.folded), (&b.norms, &b.folded));
    for (a, b) in a.linears.iter().zip(&b.linears) {
        assert_eq!((a.matrix.packed(), a.matrix.scales(), &a.bias), (b.matrix.packed(), b.matrix.scales(), &b.bias));
    }
    for (a, b) in a.mixtures.iter().zip(&b.mixtures) {
        assert_eq!((a.chosen, a.renormalise, a.experts.len()), (b.chosen, b.renormalise, b.experts.len()));
        (0..a.router.experts()).for_each(|e| assert_eq!(a.router.row(e), b.router.row(e)));
        for (a, b) in a.experts.iter().zip(&b.experts) {
            assert_eq!((a.gate.packed(), a.gate.scales()), (b.gate.packed(), b.gate.scales()));
            assert_eq!((a.up.packed(), a.up.scales()), (b.up.packed(), b.up.scales()));
            assert_eq!((a.down.packed(), a.down.scales()), (b.down.packed(), b.down.scales()));
        }
    }
}

#[test]
fn a_second_load_comes_from_the_cache_and_is_the_same() {
    for name in ["llama", "qwen2", "qwen3_moe"] {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Checkpoint::new(name).write(folder.path());
        let first = Model::load(folder.path(), &cached(cache.path())).unwrap();
        let second = Model::load(folder.path(), &cached(cache.path())).unwrap();
        let digest = file_digest(folder.path(), 2).unwrap();
        assert_eq!(first.origin, Origin::Checkpoint { file_digest: digest, cache_complaint: None });
        assert_eq!(second.origin, Origin::Cache { file_digest: digest });
        assert_eq!((first.digest, &first.shape, &first.plan), (second.digest, &second.shape, &second.plan));
        same(&first.weights, &second.weights);
        let recomputed = model::digest::exact(&second.shape, &second.plan, &second.weights, second.activations, 2);
        assert_eq!(recomputed, second.digest);
    }
}

#[test]
fn any_damage_to_the_cache_is_found_and_repaired() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::new("qwen3").write(folder.path());
    let whole = Model::load(folder.path(), &cached(cache.path())).unwrap();
    let path = kept(cache.path());
    let bytes = std::fs::read(&path).unwrap();
    let header = 56 + u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    // Sections start at multiples of a page; what lies between is never read.
    let body = header.next_multiple_of(4096);
    let places = (0..header).step_by(61).chain((body..bytes.len()).step_by(4096)).chain([bytes.len() - 1]);
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        let model = Model::load(folder.path(), &cached(cache.path())).unwrap();
        let Origin::Checkpoint { cache_complaint: Some(complaint), .. } = &model.origin else {
            panic!("byte {at} was not looked at");
        };
        assert!(complaint.contains("quantised again"), "{complaint}");
        same(&model.weights, &whole.weights);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "repaired");
    }
    for length in [0, 10, header - 1, body + 1, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let model = Model::load(folder.path(), &cached(cache.path())).unwrap();
        assert!(matches!(model.origin, Origin::Checkpoint { cache_complaint: Some(_), .. }), "{length}");
    }
    let model = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(model.origin, Origin::Cache { .. }));
}

#[test]
fn changed_files_are_another_model() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.write(folder.path());
    let first = Model::load(folder.path(), &cached(cache.path())).unwrap();
    checkpoint.tensors.get_mut("lm_head.weight").unwrap().bytes[0] ^= 1;
    checkpoint.write(folder.path());
    let second = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(second.origin, Origin::Checkpoint { cache_complaint: None, .. }));
    assert_ne!(first.digest, second.digest);
    checkpoint.set("rms_norm_eps", serde_json::json!(1e-5)).write(folder.path());
    let third = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(third.origin, Origin::Checkpoint { .. }));
    assert_ne!(second.digest, third.digest);
}

#[test]
fn files_seen_before_are_known_without_reading_them_again() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::new("llama").write(folder.path());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let first = Model::load(folder.path(), &cached(cache.path())).unwrap();
    let index = cache.path().join("files.json");
    let text = std::fs::read_to_string(&index).unwrap();
    assert!(text.contains("model.safetensors") && text.contains("config.json"));
    let second = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(second.origin, Origin::Cache { .. }));
    // A damaged index is an empty one.
    let hash = serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let hash = hash["files"].as_object().unwrap().values().next().unwrap()["blake3"].as_str().unwrap().to_owned();
    let wrong = if hash.starts_with('0') { "1" } else { "0" };
    std::fs::write(&index, text.replace(&hash, &format!("{wrong}{}", &hash[1..]))).unwrap();
    let third = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(third.origin, Origin::Cache { .. }), "the files were hashed again");
    assert_eq!((first.digest, std::fs::read_to_string(&index).unwrap()), (third.digest, text));
}

#[test]
fn starts_at_the_same_time_do_not_disturb_each_other() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::new("llama").write(folder.path());
    let digests: Vec<_> = std::thread::scope(|scope| {
        let load = || Model::load(folder.path(), &cached(cache.path())).unwrap().digest;
        let all: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let names: Vec<_> = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{names:?}");
    let model = Model::load(folder.path(), &cached(cache.path())).unwrap();
    assert!(matches!(model.origin, Origin::Cache { .. }));
}

#[test]
fn a_cache_that_cannot_be_written_is_a_complaint_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::new("llama").write(folder.path());
    let file = folder.path().join("config.json");
    let model = Model::load(folder.path(), &cached(&file)).unwrap();
    let Origin::Checkpoint { cache_complaint: Some(complaint), .. } = &model.origin else { panic!() };
    assert!(complaint.contains("not kept"), "{complaint}");
}

#[test]
fn progress_is_told_to_the_end_of_each_stage() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::new("llama").write(folder.path());
    let seen = Mutex::new(vec![]);
    let progress = |progress| seen.lock().unwrap().push(progress);
    for stages in
        [&[Stage::Hash, Stage::Quantise, Stage::Digest, Stage::WriteCache][..], &[Stage::Hash, Stage::ReadCache]]
    {
        let options = LoadOptions { progress: Some(&progress), ..cached(cache.path()) };
        Model::load(folder.path(), &options).unwrap();
        for stage in stages {
            let of_stage = seen.lock().unwrap().iter().filter(|p| p.stage == *stage).copied().collect::<Vec<_>>();
            let largest = of_stage.iter().map(|p| p.done_bytes).max().unwrap();
            assert!(of_stage.iter().all(|p| p.total_bytes == largest), "{stage:?}");
        }
        seen.lock().unwrap().clear();
    }
}
