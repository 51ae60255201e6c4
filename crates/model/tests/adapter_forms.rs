//! Adapters' quantised forms on disk: the same adapter, never a stale one, and never too many.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod support;

use exact::Isa;
use model::{Adapter, AdapterCache, Kept, Model, digest};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use support::{Checkpoint, Tensors, lora, write_adapter};

const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";
const ROOM: u64 = 1 << 20;

fn base() -> Model {
    Checkpoint::new("llama").load().unwrap()
}

/// An adapter's folder; adapters of different numbers differ.
fn plant(folder: &Path, number: u16) {
    let mut tensors = Tensors::new();
    lora(&mut tensors, Q, 3, 32, 32);
    lora(&mut tensors, DOWN, 3, 48, 32);
    let a = tensors.get_mut(&format!("base_model.model.{Q}.lora_A.weight")).unwrap();
    a.bytes[..2].copy_from_slice(&(0x3c00 + number).to_le_bytes());
    fs::create_dir_all(folder).unwrap();
    write_adapter(folder, &json!({"r": 3}), &tensors);
}

fn load(cache: &AdapterCache, folder: &Path, base: &Model) -> (Adapter, Kept) {
    cache.load(folder, base, Isa::best(), 1).unwrap()
}

fn forms(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.extension().is_some_and(|end| end == "lora")).collect()
}

/// Both are the same, and each is what its digest says.
fn same(base: &Model, a: &Adapter, b: &Adapter) {
    assert_eq!(a.digest, b.digest);
    for adapter in [a, b] {
        let manifest = digest::adapter_manifest(&base.plan, &adapter.sites, 1);
        assert_eq!(*blake3::hash(&manifest).as_bytes(), adapter.digest);
    }
    for (a, b) in a.sites.iter().zip(&b.sites) {
        assert_eq!(a.is_some(), b.is_some());
        let (Some(a), Some(b)) = (a, b) else { continue };
        assert_eq!((a.a.packed(), a.a.scales(), a.gain), (b.a.packed(), b.a.scales(), b.gain));
        assert_eq!((a.b.packed(), a.b.scales()), (b.b.packed(), b.b.scales()));
    }
}

#[test]
fn a_second_load_comes_from_the_form_and_is_the_same() {
    let (base, adapter, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(adapter.path(), 1);
    let cache = AdapterCache::new(kept.path(), ROOM);
    let (first, made) = load(&cache, adapter.path(), &base);
    let (second, found) = load(&cache, adapter.path(), &base);
    assert_eq!((made, found), (Kept::Made, Kept::Found));
    same(&base, &first, &second);
    same(&base, &Adapter::load(adapter.path(), &base, Isa::best()).unwrap(), &second);
    // Another process finds it too.
    assert_eq!(load(&AdapterCache::new(kept.path(), ROOM), adapter.path(), &base).1, Kept::Found);
}

#[test]
fn any_change_of_the_folder_or_the_base_is_another_adapter() {
    let (base, adapter, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(adapter.path(), 1);
    let cache = AdapterCache::new(kept.path(), ROOM);
    let (first, _) = load(&cache, adapter.path(), &base);
    // One bit, and the file looks as it did.
    let tensors = adapter.path().join("adapter_model.safetensors");
    let before = fs::metadata(&tensors).unwrap().modified().unwrap();
    let mut bytes = fs::read(&tensors).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    fs::write(&tensors, &bytes).unwrap();
    File::options().write(true).open(&tensors).unwrap().set_modified(before).unwrap();
    let (second, made) = load(&cache, adapter.path(), &base);
    assert_eq!(made, Kept::Made);
    assert_ne!(first.digest, second.digest);
    let config = adapter.path().join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"lora_alpha\":8", "\"lora_alpha\":9");
    fs::write(&config, text).unwrap();
    let (third, made) = load(&cache, adapter.path(), &base);
    assert_eq!(made, Kept::Made);
    assert_ne!(second.digest, third.digest);
    // Norms are folded into A: another base makes another form of the same files.
    let mut checkpoint = Checkpoint::new("llama");
    checkpoint.tensors.get_mut("model.layers.0.input_layernorm.weight").unwrap().bytes[0] ^= 0x20;
    let other = checkpoint.load().unwrap();
    assert_eq!(load(&cache, adapter.path(), &other).1, Kept::Made);
    assert_eq!(load(&cache, adapter.path(), &base).1, Kept::Found);
}

#[test]
fn any_damage_to_a_form_is_found_and_repaired() {
    let (base, adapter, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(adapter.path(), 1);
    let cache = AdapterCache::new(kept.path(), ROOM);
    let (whole, _) = load(&cache, adapter.path(), &base);
    let path = forms(kept.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> =
        [0, 10, 55, 60, bytes.len() / 2, bytes.len() - 1].map(|n| bytes[..n].to_vec()).into();
    damaged.push([&bytes[..], b"x"].concat());
    damaged.push(vec![b'x'; ROOM as usize + 1]);
    for at in (0..bytes.len()).step_by(41) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        damaged.push(flipped);
    }
    for wrong in damaged {
        fs::write(&path, &wrong).unwrap();
        let (again, complaint) = load(&cache, adapter.path(), &base);
        assert!(matches!(&complaint, Kept::Complaint(what) if what.contains("made again")), "{complaint:?}");
        same(&base, &whole, &again);
        assert_eq!(fs::read(&path).unwrap(), bytes, "repaired");
    }
    // A whole form under another's name.
    plant(adapter.path(), 2);
    load(&cache, adapter.path(), &base);
    let other = forms(kept.path()).into_iter().find(|form| *form != path).unwrap();
    fs::copy(&path, &other).unwrap();
    let (second, complaint) = load(&cache, adapter.path(), &base);
    assert!(matches!(&complaint, Kept::Complaint(what) if what.contains("another adapter")), "{complaint:?}");
    assert_ne!(second.digest, whole.digest);
}

#[test]
fn forms_take_no_more_of_the_disk_than_they_may_and_old_ones_go_first() {
    let (base, adapters, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = |number: u16| adapters.path().join(number.to_string());
    (0..40).for_each(|number| plant(&folder(number), number));
    load(&AdapterCache::new(kept.path(), ROOM), &folder(0), &base);
    let first = forms(kept.path()).remove(0);
    let each = fs::metadata(&first).unwrap().len();
    let age = |path: &Path, seconds| {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::open(path).unwrap().set_modified(then).unwrap();
    };
    let left_behind = kept.path().join(".x.tmp");
    fs::write(&left_behind, "half").unwrap();
    age(&left_behind, 7200);
    let cache = AdapterCache::new(kept.path(), 16 * each + 8);
    for number in 0..40 {
        age(&first, 5000);
        // Being used makes it young again; what lay untouched meanwhile is older.
        assert_eq!(load(&cache, &folder(0), &base).1, Kept::Found, "{number}");
        load(&cache, &folder(number), &base);
        let now = forms(kept.path());
        assert!(now.len() <= 16, "{number}: {}", now.len());
        now.iter().filter(|path| **path != first).for_each(|path| age(path, 3000 + 10 * u64::from(40 - number)));
    }
    assert!(!left_behind.exists());
    assert!(forms(kept.path()).len() >= 13);
    // One that is larger than all the room is not kept, and loads.
    let tiny = tempfile::tempdir().unwrap();
    load(&AdapterCache::new(tiny.path(), each - 1), &folder(1), &base);
    assert!(forms(tiny.path()).is_empty());
}

#[test]
fn a_disk_that_takes_nothing_harms_nothing() {
    let (base, adapter) = (base(), tempfile::tempdir().unwrap());
    plant(adapter.path(), 1);
    let cache = AdapterCache::new(&adapter.path().join("adapter_config.json"), ROOM);
    let (first, complaint) = load(&cache, adapter.path(), &base);
    assert!(matches!(&complaint, Kept::Complaint(what) if what.contains("not kept")), "{complaint:?}");
    same(&base, &first, &Adapter::load(adapter.path(), &base, Isa::best()).unwrap());
    // A disk stays full for a while: it is not tried again at once, nor complained of again.
    assert_eq!(load(&cache, adapter.path(), &base).1, Kept::Made);
}

#[test]
fn what_cannot_be_loaded_is_refused_in_the_same_words_and_not_kept() {
    let (base, adapter, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cache = AdapterCache::new(kept.path(), ROOM);
    let check = || {
        let plain = Adapter::load_on(adapter.path(), &base, Isa::best(), 1).err().unwrap().to_string();
        assert_eq!(cache.load(adapter.path(), &base, Isa::best(), 1).err().unwrap().to_string(), plain);
        assert!(forms(kept.path()).is_empty());
    };
    check();
    plant(adapter.path(), 1);
    let tensors = adapter.path().join("adapter_model.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    for length in [0, 8, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&tensors, &bytes[..length]).unwrap();
        check();
    }
    fs::remove_file(&tensors).unwrap();
    fs::create_dir(&tensors).unwrap();
    check();
}

#[test]
fn loads_at_the_same_time_do_not_disturb_each_other() {
    let (base, adapters, kept) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = |number: u16| adapters.path().join(number.to_string());
    (0..4).for_each(|number| plant(&folder(number), number));
    let cache = AdapterCache::new(kept.path(), ROOM);
    std::thread::scope(|scope| {
        for thread in 0..8u16 {
            let (cache, base, folder) = (&cache, &base, &folder);
            scope.spawn(move || (0..8).for_each(|round| drop(load(cache, &folder((thread + round) % 4), base))));
        }
    });
    assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 4, "nothing unfinished stays");
    (0..4).for_each(|number| assert_eq!(load(&cache, &folder(number), &base).1, Kept::Found));
}
