//! Many adapters, few places.

use super::*;
use crate::AdapterError;
use crate::adapters::{Disk, Roots, Whereabouts};
use crate::{Engine, Refusal};
use model::AdapterCache;
use std::fs;

fn request(handle: &Arc<AdapterHandle>, seed: u64) -> Request {
    Request { adapter: Some(handle.clone()), ..drawn(tokens(seed, 70), 20, seed) }
}

/// Room for so many adapters beside a few pages.
fn slots(slots: u64, host: u64) -> Config {
    let each = adapter(0).bytes() as u64;
    Config { memory: 16 * page_bytes() + slots * each, context: 16 * 64, host_memory: host * each, ..config(16) }
}

#[test]
fn sixteen_times_as_many_adapters_as_places_are_all_served_with_the_same_bits() {
    for host in [0, 8, 100] {
        let mut rig = Rig::new(slots(2, host));
        let handles: Vec<_> = (0..32).map(|i| rig.on_disk(&i.to_string())).collect();
        let mut dice = Dice(9);
        let requests: Vec<Request> = (0..64).map(|i| request(&handles[dice.below(32)], i)).collect();
        let mut receivers: Vec<_> = requests.iter().map(|r| rig.submit(r.clone())).collect();
        for _ in 0..20_000 {
            rig.step();
            rig.deliver();
            let load = rig.core.load();
            assert!(load.adapters_resident_bytes <= 2 * adapter(0).bytes() as u64);
            // Beyond the budget only what is waited for, and of that no more than is loaded ahead.
            assert!(load.adapters_host_bytes <= (host + 8 + 2) * adapter(0).bytes() as u64);
            if rig.core.is_idle() {
                break;
            }
        }
        for (request, receiver) in requests.iter().zip(&mut receivers) {
            assert_eq!(bits(done(receiver)), quiet(request));
        }
        let loaded = rig.core.counters().adapters_loaded;
        assert!(if host == 100 { loaded <= 32 } else { loaded >= 20 }, "{loaded} loads with {host} in host memory");
    }
}

#[test]
fn adapters_nobody_asks_for_take_no_memory() {
    let mut rig = Rig::new(slots(2, 8));
    for i in 0..1000 {
        rig.on_disk(&i.to_string());
    }
    let mut receiver = rig.submit(drawn(tokens(1, 70), 20, 1));
    rig.finish();
    done(&mut receiver);
    let load = rig.core.load();
    assert_eq!((load.adapters_resident, load.adapters_resident_bytes, load.adapters_host_bytes), (0, 0, 0));
    assert_eq!(rig.core.counters().adapters_loaded, 0);
}

#[test]
fn pages_and_adapters_take_from_each_other_what_is_idle() {
    let each = adapter(0).bytes() as u64;
    let pages = 12;
    let config = Config { memory: pages * page_bytes() + each, context: 128, ..config(pages as usize) };
    let mut rig = Rig::new(config);
    // First pages fill everything that may be pages, then adapters push kept pages out, then pages adapters.
    for round in 0..3 {
        for seed in 0..12 {
            let mut receiver = rig.submit(drawn(tokens(100 * round + seed, 100), 20, seed));
            rig.finish();
            done(&mut receiver);
        }
        let before = rig.core.load();
        let handles: Vec<_> = (0..6).map(|i| rig.on_disk(&(10 * round + i).to_string())).collect();
        for handle in &handles {
            let mut receiver = rig.submit(request(handle, 1));
            rig.finish();
            assert_eq!(bits(done(&mut receiver)), quiet(&request(handle, 1)));
        }
        let after = rig.core.load();
        assert!(after.adapters_resident > 0 && before.pages_cached > 0);
        for load in [before, after] {
            let pages = load.pages_cached as u64 * page_bytes();
            assert!(pages + load.adapters_resident_bytes <= config.memory, "{load:?}");
        }
    }
}

#[test]
fn an_adapter_that_cannot_be_loaded_fails_its_requests_and_no_others() {
    let mut rig = Rig::new(slots(2, 8));
    let broken = rig.on_disk("1");
    let mut failing: Vec<_> = (0..3).map(|i| rig.submit(request(&broken, i))).collect();
    let mut fine = rig.submit(drawn(tokens(1, 70), 20, 1));
    rig.step();
    for handle in rig.core.take_jobs() {
        rig.core.loaded(Loaded { handle, result: Err("half of it is missing".into()), seconds: 0.0 });
    }
    for receiver in &mut failing {
        let failure = outcome(receiver).unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "half of it is missing");
    }
    rig.finish();
    done(&mut fine);
    // The next request tries again.
    let mut again = rig.submit(request(&broken, 1));
    rig.finish();
    done(&mut again);
}

#[test]
fn an_adapter_too_large_for_the_memory_is_refused_in_words() {
    let mut rig = Rig::new(slots(0, 0));
    assert!(matches!(rig.adapters.insert("a", adapter(1)), Err(AdapterError::TooLarge { .. })));
    let handle = rig.on_disk("1");
    let mut receiver = rig.submit(request(&handle, 1));
    rig.finish();
    assert!(outcome(&mut receiver).unwrap().unwrap_err().to_string().contains("--memory"));
}

/// The demo served with a folder of its adapters that may change.
fn demo() -> (tempfile::TempDir, Engine) {
    let base = demo_folder().join("base");
    let folder = tempfile::tempdir().unwrap();
    for name in ["sql", "reply"] {
        copy(&demo_folder().join("adapters").join(name), &folder.path().join(name));
    }
    let model = Model::load(&base, &model::LoadOptions::new(Activations::A8)).unwrap();
    let config = Config::for_memory(&model.shape, 64 << 20, 1, Isa::best());
    let engine = Engine::start(Arc::new(model), text(), config).unwrap();
    assert!(engine.adapters().allow(Roots::new(&[folder.path().to_owned()]).unwrap()));
    (folder, engine)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn answer(engine: &Engine, name: &str) -> Result<Completion, Failure> {
    let adapter = Some(engine.adapters().find(name).unwrap());
    let prompt = engine.text().encode("How many orders were placed in Graz?", true).unwrap();
    let mut receiver = engine.submit(Request { adapter, ..Request::new(prompt, 8) }).unwrap();
    loop {
        match receiver.blocking_recv().unwrap() {
            Event::Text(..) => {}
            Event::Done(completion) => return Ok(completion),
            Event::Failed(failure) => return Err(failure),
            Event::Token(..) => {}
        }
    }
}

#[test]
fn adapters_are_loaded_replaced_and_unloaded_while_the_engine_runs() {
    let (folder, engine) = demo();
    let sql = engine.load_adapter("mine", "sql", false).unwrap();
    assert_eq!(answer(&engine, "mine").unwrap().adapter, sql.digest());
    assert!(matches!(engine.load_adapter("mine", "reply", false), Err(AdapterError::Taken(_))));
    let reply = engine.load_adapter("mine", "reply", true).unwrap();
    assert_eq!(answer(&engine, "mine").unwrap().adapter, reply.digest());
    assert_ne!(sql.digest(), reply.digest());
    engine.unload_adapter("mine").unwrap();
    assert!(matches!(engine.unload_adapter("mine"), Err(AdapterError::Unknown(_))));
    assert!(engine.adapters().find("mine").is_none());
    // By content: the folder's name is the digest, and lies are noticed.
    let hex: String = sql.digest().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    copy(&folder.path().join("sql"), &folder.path().join(&hex));
    engine.load_adapter("named", &format!("digest:{hex}"), false).unwrap();
    copy(&folder.path().join("reply"), &folder.path().join(&hex));
    let error = engine.load_adapter("other", &format!("digest:{hex}"), false).unwrap_err();
    assert!(matches!(error, AdapterError::OtherDigest));
}

#[test]
fn half_written_folders_and_pickles_are_refused_and_harm_nobody() {
    let (folder, engine) = demo();
    engine.load_adapter("good", "sql", false).unwrap();
    let half = folder.path().join("half");
    copy(&folder.path().join("reply"), &half);
    let tensors = half.join("adapter_model.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    for length in [0, 7, 300, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&tensors, &bytes[..length]).unwrap();
        let error = engine.load_adapter("half", "half", false).unwrap_err();
        assert!(matches!(error, AdapterError::Unusable(_)), "{length}: {error}");
    }
    fs::remove_file(&tensors).unwrap();
    fs::write(half.join("adapter_model.bin"), "pickle").unwrap();
    assert!(engine.load_adapter("half", "half", false).is_err());
    fs::remove_file(half.join("adapter_config.json")).unwrap();
    assert!(engine.load_adapter("half", "half", false).is_err());
    for path in ["../sql", "/etc", "", "missing"] {
        assert!(matches!(engine.load_adapter("x", path, false), Err(AdapterError::Outside)), "{path}");
    }
    for name in ["", "a b", "a\n", &"x".repeat(201)] {
        assert!(matches!(engine.load_adapter(name, "sql", false), Err(AdapterError::Name)), "{name}");
    }
    assert!(engine.adapters().find("half").is_none());
    answer(&engine, "good").unwrap();
    // The configuration is there and the weights are not yet; then they are.
    for name in ["adapter_model.bin", "adapter_config.json"] {
        let _ = fs::remove_file(half.join(name));
    }
    fs::copy(folder.path().join("reply/adapter_config.json"), half.join("adapter_config.json")).unwrap();
    engine.adapters().register("early", &half).unwrap();
    let failure = answer(&engine, "early").unwrap_err().to_string();
    assert!(failure.contains("adapter_model.safetensors"), "{failure}");
    assert!(matches!(engine.load_adapter("half", "half", false), Err(AdapterError::Unusable(_))));
    fs::write(half.join("new"), &bytes).unwrap();
    fs::rename(half.join("new"), &tensors).unwrap();
    let whole = engine.load_adapter("half", "half", false).unwrap();
    assert_eq!(answer(&engine, "early").unwrap().adapter, whole.digest());
}

#[test]
fn files_that_change_under_a_name_are_noticed_not_served() {
    let (folder, engine) = demo();
    let handle = engine.adapters().register("lazy", &folder.path().join("sql")).unwrap();
    assert_eq!(handle.digest(), None);
    let first = answer(&engine, "lazy").unwrap();
    assert_eq!(first.adapter, handle.digest());
    // The same handle, loaded again from other files.
    copy(&folder.path().join("reply"), &folder.path().join("sql"));
    let loaded = Disk::new(engine.model().clone(), Isa::best()).load(handle.clone());
    assert!(loaded.result.err().unwrap().contains("changed"));
    assert_eq!(answer(&engine, "lazy").unwrap().adapter, first.adapter);
}

#[test]
fn adapters_loaded_again_come_from_their_kept_forms_with_the_same_bits() {
    let (folder, engine) = demo();
    let forms = folder.path().join("forms");
    assert!(engine.adapters().keep_forms(AdapterCache::new(&forms, 64 << 20)));
    assert!(!engine.adapters().keep_forms(AdapterCache::new(&forms, 64 << 20)));
    let register = |name: &str| engine.adapters().register(name, &folder.path().join("sql")).unwrap();
    let mut answers = vec![];
    for round in 0..4 {
        if let Some(form) = fs::read_dir(&forms).ok().and_then(|mut found| found.next()).filter(|_| round == 2) {
            fs::write(form.unwrap().path(), "damage").unwrap();
        }
        // A new name is loaded anew.
        register(&format!("name{round}"));
        answers.push(bits(answer(&engine, &format!("name{round}")).unwrap()));
        assert_eq!(fs::read_dir(&forms).unwrap().count(), 1);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(engine.counters().adapters_loaded, 4);
}

#[test]
fn a_pinned_adapter_is_resident_before_anybody_asks() {
    let (folder, engine) = demo();
    engine.add_adapter("pinned", &folder.path().join("sql"), true).unwrap();
    assert!(engine.drain(std::time::Duration::from_secs(5)));
    assert_eq!(engine.load().adapters_resident, 1);
    assert_eq!(engine.submit(Request::new(vec![1], 1)).err(), Some(Refusal::ShuttingDown));
}

/// An adapter that was asked for once, and is idle now.
fn used(rig: &mut Rig, handle: &Arc<AdapterHandle>, seed: u64) {
    let mut receiver = rig.submit(request(handle, seed));
    rig.finish();
    done(&mut receiver);
}

#[test]
fn what_is_pinned_while_others_compete_stays_until_it_is_unpinned() {
    let mut rig = Rig::new(slots(2, 0));
    let handles: Vec<_> = (0..5).map(|i| rig.on_disk(&i.to_string())).collect();
    handles[0].pin(true);
    rig.core.pin(&handles[0], true);
    rig.step();
    rig.deliver();
    assert_eq!(handles[0].whereabouts(), Whereabouts::Resident, "nobody has asked for it");
    for round in 0..2 {
        for (seed, handle) in (0..).zip(&handles[1..]) {
            used(&mut rig, handle, 10 * round + seed);
            assert_eq!(handles[0].whereabouts(), Whereabouts::Resident);
        }
    }
    // Used while it is pinned and unpinned, it is reckoned with once.
    let mut receiver = rig.submit(request(&handles[0], 99));
    rig.step();
    handles[0].pin(false);
    rig.core.pin(&handles[0], false);
    rig.finish();
    done(&mut receiver);
    for (seed, handle) in (100..).zip(&handles[1..]) {
        used(&mut rig, handle, seed);
    }
    assert_eq!(handles[0].whereabouts(), Whereabouts::Disk);
    assert_eq!(rig.core.load().adapters_resident, 2);
}

#[test]
fn a_pin_without_room_waits_for_it() {
    let mut rig = Rig::new(slots(1, 0));
    let (busy, pinned) = (rig.on_disk("1"), rig.on_disk("2"));
    let mut receiver = rig.submit(request(&busy, 1));
    while busy.whereabouts() != Whereabouts::Resident {
        rig.step();
        rig.deliver();
    }
    pinned.pin(true);
    rig.core.pin(&pinned, true);
    rig.step();
    rig.deliver();
    assert_eq!(pinned.whereabouts(), Whereabouts::Host, "the only place is taken");
    rig.finish();
    done(&mut receiver);
    rig.step();
    assert_eq!((pinned.whereabouts(), busy.whereabouts()), (Whereabouts::Resident, Whereabouts::Disk));
}

#[test]
fn pins_leave_half_of_the_room_and_pass_to_what_takes_their_place() {
    let (folder, engine) = demo();
    engine.adapters().register("sql", &folder.path().join("sql")).unwrap();
    let pinned = engine.pin_adapter("sql", true).unwrap();
    assert!(engine.drain(std::time::Duration::from_secs(5)));
    assert!(pinned.is_pinned() && pinned.whereabouts() == Whereabouts::Resident);
    let after = engine.load_adapter("sql", &folder.path().join("sql").to_string_lossy(), true).unwrap();
    assert!(engine.drain(std::time::Duration::from_secs(5)));
    assert!(after.is_pinned() && after.whereabouts() == Whereabouts::Resident);
    assert_eq!(pinned.whereabouts(), Whereabouts::Disk);
    assert!(matches!(engine.pin_adapter("nobody", true), Err(AdapterError::Unknown(_))));
    let each = after.bytes().unwrap();
    let mut refused = 0;
    for copy in 0..2000 {
        let name = format!("copy{copy}");
        engine.adapters().register(&name, &folder.path().join("sql")).unwrap();
        if let Err(error) = engine.pin_adapter(&name, true) {
            assert!(
                matches!(error, AdapterError::TooManyPinned { bytes, room } if 2 * bytes > room && 2 * (bytes - each) <= room)
            );
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1);
}
