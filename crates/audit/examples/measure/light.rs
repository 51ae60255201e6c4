//! Light checks: altered sums, and time and memory beside a replay at 1.24 billion parameters.

use crate::support::{Case, answer, prompt};
use crate::{Numbers, computed_seconds, isa_of, large, long_settings, most_mb, two_threads};
use audit::light::{Frame, Key, LightConfig, LightOpening, LightVerdict, OpeningFile, check, prove};
use audit::trace::Run;
use audit::{ReplayConfig, Verdict, replay};
use exact::Isa;
use exact::elements::{Elements, STRETCH};
use exact::field::{Levels, P, Projection, Vector};
use exact::packed::{Floats, Packed};
use receipt::Bundle;
use std::path::Path;
use std::time::Instant;

pub(crate) fn products(count: u64) {
    // Sums of random rows, each altered in one to three places at random, or in two where the inner elements are the same and what
    // is added to one is taken from the other.
    let (outputs, inputs, isa, started) = (STRETCH + 96, 64usize, Isa::best(), Instant::now());
    let mut numbers = Numbers(3);
    let rows: Vec<Vec<i8>> =
        (0..outputs).map(|_| (0..inputs).map(|_| (numbers.below(255) as i16 - 127) as i8).collect()).collect();
    let r =
        Elements::new(&(0..STRETCH + Elements::stretches_of(outputs)).map(|_| numbers.below(P)).collect::<Vec<u64>>());
    let mut projection = Projection::new(inputs);
    rows.iter().enumerate().for_each(|(at, row)| projection.add(isa, r.get(0, at), row));
    let r_w = Vector::new(&projection.finish());
    let (mut rejected, mut altered) = (0u64, 0u64);
    while altered < count {
        let x: Vec<i8> = (0..inputs).map(|_| (numbers.below(255) as i16 - 127) as i8).collect();
        let product = |row: &Vec<i8>| row.iter().zip(&x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
        let honest: Vec<i32> = rows.iter().map(product).collect();
        let right = r_w.dot_levels(isa, Levels::Whole(&x));
        // As the light check reads them: packed, with their floats beside.
        let claimed = |sums: &[i32]| {
            let (bits, mut bytes) = (Packed::bits_of(sums), vec![]);
            Packed::write(sums, bits, &mut bytes);
            let packed = Packed::read(&bytes, sums.len(), bits).unwrap();
            r.dot_floats(isa, 0, packed, Floats::High, &mut vec![0.0; sums.len()])
        };
        assert_eq!(claimed(&honest), right, "a true product is rejected");
        for _ in 0..100 {
            let mut sums = honest.clone();
            let by = [1, -1, 256, 1 << numbers.below(30)][numbers.below(4) as usize];
            if numbers.below(4) == 0 {
                let at = numbers.below((outputs - STRETCH) as u64) as usize;
                sums[at] = sums[at].wrapping_add(by);
                sums[at + STRETCH] = sums[at + STRETCH].wrapping_sub(by);
            } else {
                for _ in 0..=numbers.below(3) {
                    let at = numbers.below(outputs as u64) as usize;
                    sums[at] = sums[at].wrapping_add(by);
                }
            }
            if sums != honest {
                altered += 1;
                rejected += u64::from(claimed(&sums) != right);
            }
        }
    }
    assert_eq!(rejected, altered);
    println!("{altered} altered products, {rejected} rejected, {:.1} s", started.elapsed().as_secs_f64());
}

pub(crate) fn light(prompt_tokens: u32, answer_tokens: u64, isa_name: &str) {
    let (model, isa, threads) = (large(), isa_of(isa_name), 2);
    let settings = long_settings(answer_tokens);
    let prompt = prompt(prompt_tokens);
    let answered = answer(&model, None, &prompt, &settings, two_threads());
    let bundle = Case::new(&model, None, &prompt, &settings, &answered).sign();
    let positions = bundle.opening.leaves.len();
    let started = Instant::now();
    let (key, frame) = Key::secret(&model, [9; 32], isa, threads).unwrap();
    let weights = model.weights.bytes() as f64;
    let (key_bytes, frame_bytes) = (key.to_bytes().len() as f64, frame.to_bytes().len() as f64);
    println!("key made in {:.1} s", started.elapsed().as_secs_f64());
    println!(
        "weights {:.0} MB, key {:.2} MB = {:.3} %, frame {:.2} MB = {:.3} %",
        weights / 1e6,
        key_bytes / 1e6,
        100.0 * key_bytes / weights,
        frame_bytes / 1e6,
        100.0 * frame_bytes / weights
    );
    let started = Instant::now();
    let run = Run { model: model.clone(), adapter: None, isa, threads };
    let opening = prove(&run, &bundle, 0..positions).unwrap();
    let (sums, _) = opening.weight_bytes();
    println!(
        "opened {positions} positions in {:.1} s, {:.2} MB each",
        started.elapsed().as_secs_f64(),
        sums as f64 / positions as f64 / 1e6
    );
    // The verifier is a process of its own, which has never seen a weight. It reads the opening from a file as it goes, or has it in
    // memory, as the replay has the weights.
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("bundle", bundle.to_bytes());
    write("opening", opening.to_bytes());
    write("key", key.to_bytes());
    write("frame", frame.to_bytes());
    drop((opening, key, frame));
    let mut ratios = [("file", vec![]), ("memory", vec![])];
    for _ in 0..5 {
        let before = computed_seconds();
        let verdict = replay(&bundle, model.clone(), None, ReplayConfig::new(isa, threads)).unwrap();
        let replaying = computed_seconds() - before;
        let Verdict::Equal { seconds: replayed, .. } = verdict else { panic!("{verdict}") };
        for (place, ratios) in &mut ratios {
            let mut this = std::process::Command::new(std::env::current_exe().unwrap());
            let child = this.arg("light-check").arg(folder.path()).args([isa_name, place]).output().unwrap();
            let told = String::from_utf8(child.stdout).unwrap();
            let numbers: Vec<f64> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [checked, checking, memory] = numbers[..] else { panic!("{told}") };
            let each = |seconds: f64| 1e3 * seconds / positions as f64;
            println!(
                "replay {:.2} ms a token, light check of an opening in {place} {:.2}: 1/{:.1}; of processors {:.2} and \
                 {:.2}: 1/{:.1}; its memory at most {memory:.0} MB = {:.1} % of the weights",
                each(replayed),
                each(checked),
                replayed / checked,
                each(replaying),
                each(checking),
                replaying / checking,
                100e6 * memory / weights
            );
            ratios.push(replayed / checked);
        }
    }
    for (place, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        println!("{place}: median 1/{:.1}", ratios[ratios.len() / 2]);
    }
}

/// The verifier's process: prints the seconds a check took and the most memory it ever had.
pub(crate) fn light_check(folder: &Path, isa_name: &str, place: &str) {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let bundle = Bundle::from_bytes(&read("bundle")).unwrap();
    let (key, frame) = (Key::from_bytes(&read("key")).unwrap(), Frame::from_bytes(&read("frame")).unwrap());
    let config = LightConfig { isa: isa_of(isa_name), threads: 2, text: None };
    let checked = |opening: &dyn Fn() -> LightVerdict| {
        let before = computed_seconds();
        let LightVerdict::Holds { seconds, .. } = opening() else { panic!("it does not hold") };
        println!("{seconds} {} {}", computed_seconds() - before, most_mb());
    };
    if place == "memory" {
        let opening = LightOpening::from_bytes(&read("opening")).unwrap();
        checked(&|| check(&bundle, &opening, &key, &frame, None, config).unwrap());
    } else {
        let opening = OpeningFile::open(&folder.join("opening")).unwrap();
        checked(&|| check(&bundle, &opening, &key, &frame, None, config).unwrap());
    }
}
