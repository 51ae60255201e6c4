//! A log on disk: nothing acknowledged is lost, nothing is taken back, and its folder is a log that others can read.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use support::{ORIGIN, SMALL, entries, entry, key, open, tree, verifier};
use tlog::{Folder, Head, Journal, Limits, Log, LogError, Reader, Tile, name_of, root, verify_consistency};

/// Appends entries up to `size` in groups of 1, 2, 3, …
fn fill(log: &Log, size: u64) {
    for group in 1.. {
        let first = log.size();
        if first == size {
            return;
        }
        log.append(&entries(first..size.min(first + group))).unwrap();
    }
}

/// Whether everything about the log is as for these entries.
fn check(log: &Log, size: u64) {
    let tree = tree(size);
    let (head, note) = log.head().unwrap();
    assert_eq!((head.size, head.root), (size, root(&tree, size).unwrap()));
    assert_eq!(Head::verify(note.to_string().as_bytes(), &verifier()).unwrap(), head);
    for index in (0..size).step_by(if size < 5000 { 37 } else { 1237 }).chain([0, size - 1]) {
        assert_eq!(log.entry(index).unwrap(), entry(index));
        assert_eq!(log.find(&name_of(&entry(index))).unwrap(), Some(index));
        assert_eq!(log.prove(index).unwrap().verify(&entry(index), &verifier()).unwrap(), head);
        let old = index + 1;
        let proof = log.prove_consistency(old, size).unwrap();
        assert!(verify_consistency(old, &root(&tree, old).unwrap(), size, &head.root, &proof));
    }
    assert!(log.entry(size).is_err() && log.prove(size).is_err() && log.prove_consistency(size, size + 1).is_err());
    assert_eq!(log.find(&[1; 16]).unwrap(), None);
}

#[test]
fn what_was_appended_is_there_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for size in [1, 5, 255, 256, 257, 511, 512, 700, 1025, 3000] {
        let log = open(folder.path());
        fill(&log, size);
        check(&log, size);
        drop(log);
        check(&open(folder.path()), size);
    }
    assert!(folder.path().join("tile/0/008").exists() && !folder.path().join("tile/1/000").exists());
}

#[test]
fn a_long_log_has_few_names_in_memory_and_finds_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Log::open(folder.path(), ORIGIN, key(), Limits::default()).unwrap();
    let log = open();
    for first in (0..70_000).step_by(5000) {
        log.append(&entries(first..first + 5000)).unwrap();
    }
    check(&log, 70_000);
    drop(log);
    assert!(folder.path().join("tile/1/000").exists());
    check(&open(), 70_000);
    // The names' file can be made again.
    fs::remove_file(folder.path().join("names/000000")).unwrap();
    check(&open(), 70_000);
    let path = folder.path().join("names/000000");
    assert_eq!(fs::metadata(path).unwrap().len(), 65_536 * 24 + 32);
}

#[test]
fn a_group_is_appended_where_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let appended = log.append(&entries(0..3)).unwrap();
    assert_eq!((appended.first, appended.size), (0, 3));
    assert_eq!(log.append(&[]).unwrap().first, 3);
    assert!(matches!(log.append(&[vec![0; 65_536]]), Err(LogError::TooLarge(65_536))));
    assert_eq!(log.append(&[vec![0; 65_535], vec![]]).unwrap().size, 5);
    assert_eq!(open(folder.path()).entry(4).unwrap(), b"");
}

/// The log's folder as a web server would serve it, after everything in it was written.
fn published(log: &Log, folder: &Path) {
    let (head, note) = log.head().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("checkpoint", note.to_string().as_bytes());
    for level in [None, Some(0), Some(1), Some(2)] {
        let there = head.size >> (8 * u32::from(level.unwrap_or(0)));
        for index in 0..there.div_ceil(256) {
            let tile = Tile { level, index, width: (there - 256 * index).min(256) as u16 };
            write(&tile.path(), &log.tile(&tile).unwrap().unwrap());
        }
    }
}

#[test]
fn the_log_can_be_read_from_its_resources_alone() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("log"));
    let mut heads = vec![];
    for size in [1, 255, 256, 300, 777, 1300] {
        fill(&log, size);
        let place = folder.path().join(size.to_string());
        published(&log, &place);
        let reader = Reader::open(Folder(place), &verifier()).unwrap();
        let mut count = 0;
        reader
            .entries(|index, bytes| {
                assert_eq!((index, bytes), (count, &entry(count)[..]));
                count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, size);
        assert_eq!(reader.entry(size - 1).unwrap(), entry(size - 1));
        heads.push(reader.head().clone());
        for old in &heads {
            reader.prove_consistency(old).unwrap();
        }
        let later = heads.last().unwrap().clone();
        let rolled_back = Reader::open(Folder(folder.path().join("1")), &verifier()).unwrap().prove_consistency(&later);
        assert_eq!(rolled_back.is_err(), size > 1);
    }
}

#[test]
fn a_folder_can_be_read_while_it_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    for size in [3, 256, 600, 1300] {
        fill(&log, size);
        log.head().unwrap();
        // More than the head tells of, and a tail that goes on.
        log.append(&entries(size..size + 2)).unwrap();
        let reader = Reader::open(Folder(folder.path().to_owned()), &verifier()).unwrap();
        assert_eq!(reader.head().size, size);
        let mut count = 0;
        reader
            .entries(|_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((count, reader.entry(size - 1).unwrap()), (size, entry(size - 1)));
        let first = Head { size: 1, root: root(&tree(1), 1).unwrap(), ..reader.head().clone() };
        reader.prove_consistency(&first).unwrap();
    }
}

#[test]
fn a_reader_believes_no_tile_that_the_head_does_not_vouch_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("log"));
    fill(&log, 600);
    let place = folder.path().join("copy");
    for (path, at) in [
        ("tile/0/000", 20),
        ("tile/0/002.p/88", 7),
        ("tile/1/000.p/2", 33),
        ("tile/entries/001", 5),
        ("checkpoint", 30),
    ] {
        published(&log, &place);
        let whole = fs::read(place.join(path)).unwrap();
        for change in [0, 1, 2] {
            let mut bytes = whole.clone();
            match change {
                0 => bytes[at] ^= 1,
                1 => bytes.truncate(at),
                _ => bytes.push(0),
            }
            fs::write(place.join(path), &bytes).unwrap();
            let read = Reader::open(Folder(place.clone()), &verifier()).and_then(|reader| {
                reader.entries(|_, _| Ok(()))?;
                [1, 300, 599].iter().try_for_each(|index| reader.entry(*index).map(|_| ()))
            });
            assert!(read.is_err(), "{path}, change {change}");
        }
        fs::write(place.join(path), whole).unwrap();
    }
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to);
        } else {
            fs::copy(item.path(), to).unwrap();
        }
    }
}

#[test]
fn a_log_that_was_rolled_back_or_replaced_does_not_open() {
    let place = tempfile::tempdir().unwrap();
    let (folder, old) = (place.path().join("log"), place.path().join("old"));
    let log = open(&folder);
    fill(&log, 300);
    drop(log);
    copy(&folder, &old);
    let log = open(&folder);
    fill(&log, 700);
    log.head().unwrap();
    drop(log);
    // An old backup under the newest published head.
    fs::copy(folder.join("checkpoint"), old.join("checkpoint")).unwrap();
    let open = |folder: &Path| Log::open(folder, ORIGIN, key(), SMALL);
    assert!(matches!(open(&old), Err(LogError::RolledBack { published: 700, .. })));
    // Another history of the same length.
    let other = place.path().join("other");
    let forked = open(&other).unwrap();
    forked.append(&(0..800).map(|index| vec![index as u8]).collect::<Vec<_>>()).unwrap();
    drop(forked);
    fs::copy(folder.join("checkpoint"), other.join("checkpoint")).unwrap();
    assert!(matches!(open(&other), Err(LogError::RolledBack { published: 700, .. })));
    check(&open(&folder).unwrap(), 700);
}

#[test]
fn damaged_tiles_under_the_tail_are_noticed() {
    let place = tempfile::tempdir().unwrap();
    let log = open(place.path());
    fill(&log, 600);
    drop(log);
    for tile in ["tile/0/000", "tile/0/001"] {
        let path = place.path().join(tile);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[50] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Log::open(place.path(), ORIGIN, key(), SMALL), Err(LogError::Damaged { .. })), "{tile}");
        fs::write(&path, whole).unwrap();
    }
    check(&open(place.path()), 600);
}

#[test]
fn a_crash_at_any_byte_of_the_tail_loses_no_finished_group() {
    let place = tempfile::tempdir().unwrap();
    let (folder, torn) = (place.path().join("log"), place.path().join("torn"));
    let log = open(&folder);
    let mut ends = vec![];
    for group in [0..1, 1..3, 3..6] {
        log.append(&entries(group)).unwrap();
        ends.push(fs::metadata(folder.join("tail")).unwrap().len());
    }
    drop(log);
    let whole = fs::read(folder.join("tail")).unwrap();
    for cut in 0..whole.len() {
        copy(&folder, &torn);
        fs::write(torn.join("tail"), &whole[..cut]).unwrap();
        let log = open(&torn);
        let groups = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(log.size(), [0, 1, 3, 6][groups], "cut at {cut}");
        log.append(&[entry(log.size())]).unwrap();
        check(&open(&torn), log.size());
    }
}

const KIND: &[u8; 16] = b"lockstep test 1\n";

/// A journal of three payloads, and where each group ends.
fn journal(path: &Path) -> Vec<u64> {
    let mut journal = Journal::open(path, KIND, |_, _| Ok(())).unwrap();
    [&b"first"[..], &[7; 100], b"third"]
        .map(|payload| {
            journal.append(&[payload]).unwrap();
            journal.bytes()
        })
        .to_vec()
}

fn payloads(path: &Path) -> Result<usize, LogError> {
    let mut count = 0;
    Journal::open(path, KIND, |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

#[test]
fn damage_before_a_sound_group_is_not_mistaken_for_a_crash() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal");
    let ends = journal(&path);
    let whole = fs::read(&path).unwrap();
    for at in [0, 16, 20, 30, 60, ends[0] as usize + 50, ends[1] as usize - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(payloads(&path), Err(LogError::Damaged { .. })), "byte {at}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing may be thrown away");
    }
    // The last group of full length, but with other bytes: a crash.
    let mut bytes = whole.clone();
    let length = bytes.len();
    bytes[length - 3..].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(payloads(&path).unwrap(), 2);
    assert!(place.path().join(format!("journal.unfinished-{}", ends[1])).exists());
}

#[test]
fn a_payload_that_makes_no_sense_is_damage() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal");
    journal(&path);
    let refused = Journal::open(&path, KIND, |_, _| Err("no".to_owned()));
    assert!(matches!(refused, Err(LogError::Damaged { .. })));
}
