use super::*;

const DAY: u64 = 86_400;
const NOW: u64 = 1_790_000_000;
const KEEPING: Keeping = Keeping { window_seconds: 16 * DAY, segment_bytes: 4000 };

fn store(folder: &Path, now: u64) -> Openings {
    Openings::open(folder, [5; 32], KEEPING, now).unwrap()
}

fn entry(number: u8) -> Entry {
    ([number; 16], format!("what was asked and answered, number {number}").repeat(10).into_bytes())
}

fn segments(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_was_kept_is_there_after_a_restart_and_in_every_segment() {
    let place = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let openings = store(place.path(), NOW);
        openings.append(&[entry(2 * number), entry(2 * number + 1)], NOW).unwrap();
    }
    assert!(segments(place.path()) >= 8, "{} segments", segments(place.path()));
    let openings = store(place.path(), NOW);
    for number in 0..80 {
        assert_eq!(openings.find(&entry(number).0).unwrap(), Some(entry(number).1));
    }
    assert_eq!(openings.find(&[99; 16]).unwrap(), None);
    let in_memory: usize = openings.segments.read().unwrap().iter().map(|segment| segment.names.newest()).sum();
    assert!(in_memory <= 12, "{in_memory} names in memory");
}

#[test]
fn nothing_readable_is_on_disk_and_another_secret_opens_nothing() {
    let place = tempfile::tempdir().unwrap();
    store(place.path(), NOW).append(&[entry(1)], NOW).unwrap();
    let bytes = std::fs::read(place.path().join("00000000/openings")).unwrap();
    assert!(!bytes.windows(8).any(|eight| eight == b"answered"));
    let other = Openings::open(place.path(), [6; 32], KEEPING, NOW);
    assert!(matches!(other, Err(StartError::OtherOpeningsKey { .. })));
}

#[test]
fn a_changed_or_moved_ciphertext_is_not_opened() {
    let key = [1; 32];
    let sealed = seal(&key, &[2; 16], b"content").unwrap();
    assert_eq!(open(&key, &[2; 16], &sealed).unwrap(), b"content");
    assert_eq!(open(&key, &[3; 16], &sealed), None);
    assert_eq!(open(&[0; 32], &[2; 16], &sealed), None);
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(open(&key, &[2; 16], &changed), None);
    }
}

#[test]
fn openings_are_deleted_after_the_window_and_not_before() {
    let place = tempfile::tempdir().unwrap();
    let openings = store(place.path(), NOW);
    openings.append(&[entry(1)], NOW).unwrap();
    // A day and more later a new segment begins, whatever the size.
    openings.append(&[entry(2)], NOW + DAY + 1).unwrap();
    assert_eq!(segments(place.path()), 2);
    openings.sweep(NOW + 17 * DAY).unwrap();
    assert!(openings.find(&entry(1).0).unwrap().is_some());
    openings.sweep(NOW + 17 * DAY + 1).unwrap();
    assert_eq!((openings.find(&entry(1).0).unwrap(), segments(place.path())), (None, 1));
    assert!(openings.find(&entry(2).0).unwrap().is_some());
    drop(openings);
    // Also by a restart, and the last one too.
    let openings = store(place.path(), NOW + 60 * DAY);
    assert_eq!((openings.find(&entry(2).0).unwrap(), segments(place.path())), (None, 0));
    openings.append(&[entry(3)], NOW + 60 * DAY).unwrap();
    assert!(openings.find(&entry(3).0).unwrap().is_some());
}
