//! Attention in packed blocks against plain arrays (specification, sections 7 and 8).
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod reference {
    pub(crate) mod attention;
    pub(crate) mod difference;
    pub(crate) mod exp2;
    pub(crate) mod quantise;
    pub(crate) mod random;
}

use exact::attention::{BlockLayout, HEAD_DIM_MAX, POSITIONS, ROWS, Workspace, attend, score_constant};
use exact::memory::AlignedBytes;
use exact::quantise::Quantised;
use exact::shared::Shared;
use exact::{Activations, Isa};
use reference::attention::attention;
use reference::difference::difference;
use reference::random::Random;

const HEAD_DIMS: [usize; 10] = [16, 32, 64, 80, 128, 20, 96, 256, 18, 512];
const WINDOWS: [Option<usize>; 7] = [None, Some(1), Some(63), Some(64), Some(65), Some(1000), Some(1 << 40)];

/// Quantised keys and values of one head: levels and scale by position.
struct Keys {
    k: Vec<(Vec<i8>, f32)>,
    v: Vec<(Vec<i8>, f32)>,
}

impl Keys {
    /// `spread` is about how far scores lie apart: at 1e-2 all weights count, at 1e2 most vanish.
    fn random(d: usize, positions: usize, spread: f32, random: &mut Random) -> Self {
        let unit = spread / (score_constant(d) * 5000.0 * (d as f32).sqrt());
        let mut head = |unit: f32| {
            let extreme = random.below(4) == 0;
            let level = |word: u64| if extreme { [127, -127][word as usize % 2] } else { (word % 255) as i8 };
            let levels = (0..d).map(|_| level(random.word()).max(-127)).collect();
            let scale = if random.below(16) == 0 { 0.0 } else { unit * (0.3 + random.float().abs()) };
            (levels, scale)
        };
        let k = (0..positions).map(|_| head(unit)).collect();
        Keys { k, v: (0..positions).map(|_| head(0.01)).collect() }
    }

    /// The blocks that hold positions 0..`positions`, every other byte of them random.
    fn blocks(&self, d: usize, positions: usize, random: &mut Random) -> Vec<AlignedBytes> {
        let layout = BlockLayout::new(d);
        let block = |b: usize| {
            let mut bytes = AlignedBytes::zeroed(layout.bytes());
            bytes.as_bytes_mut().fill_with(|| random.word() as u8);
            for slot in 0..POSITIONS.min(positions - b * POSITIONS) {
                let (k, v) = (&self.k[b * POSITIONS + slot], &self.v[b * POSITIONS + slot]);
                layout.write_key(Shared::new(bytes.as_bytes_mut()), 0, slot, &k.0, k.1);
                layout.write_value(Shared::new(bytes.as_bytes_mut()), 0, slot, &v.0, v.1);
            }
            bytes
        };
        (0..positions.div_ceil(POSITIONS)).map(block).collect()
    }
}

/// The text for one query; nothing if it fails.
fn naive(q: &[f32], keys: &Keys, p: usize, window: Option<usize>) -> Option<Vec<f32>> {
    attention(q, &keys.k, &keys.v, p, window)
}

fn query(d: usize, random: &mut Random) -> Vec<f32> {
    (0..d).map(|_| random.float()).collect()
}

/// `attend` with row 0 at row `at` of the quantised queries. Asking for a block that no row sees fails the test.
fn attended(
    isa: Isa,
    queries: &[Vec<f32>],
    at: usize,
    positions: &[usize],
    window: Option<usize>,
    blocks: &[AlignedBytes],
    ws: &mut Workspace,
) -> Result<Vec<f32>, usize> {
    let d = queries[0].len();
    let mut q = Quantised::new(Activations::A16);
    q.reshape(at + queries.len(), d, Activations::A16);
    for (i, query) in queries.iter().enumerate() {
        q.write_row(isa, at + i, query).unwrap();
    }
    let first = window.map_or(0, |w| (positions[0] + 1).saturating_sub(w)) / POSITIONS;
    let block = |b: usize| {
        assert!(b >= first, "block {b} is visible to no row");
        blocks[b].as_bytes()
    };
    let mut out = vec![f32::NAN; queries.len() * d];
    let rows = at..at + queries.len();
    attend(isa, BlockLayout::new(d), &q, rows, |i| positions[i], window, block, &mut out, ws).map(|()| out)
}

/// Ascending positions below `end`: a chunk of a prompt, heads that share a key head, or any.
fn positions(rows: usize, end: usize, random: &mut Random) -> Vec<usize> {
    let heads = [1, 1, 2, 4, 8, rows][random.below(6)];
    if random.below(3) == 0 {
        let mut any: Vec<usize> = (0..rows).map(|_| random.below(end)).collect();
        any.sort_unstable();
        return any;
    }
    let start = random.below(end.saturating_sub(rows.div_ceil(heads)) + 1);
    (0..rows).map(|i| (start + i / heads).min(end - 1)).collect()
}

#[test]
fn attention_is_the_written_one_for_every_head_dimension_window_and_grouping_whatever_lies_in_unwritten_slots() {
    let mut random = Random::new(1);
    let mut ws = Workspace::default();
    for d in HEAD_DIMS {
        for (n, spread) in [0.01, 3.0, 100.0, 1e4].into_iter().enumerate() {
            let end = [2500, 64, 1200, 700][n];
            let keys = Keys::random(d, end, spread, &mut random);
            for window in WINDOWS {
                let rows = 1 + random.below(ROWS);
                let places = positions(rows, end, &mut random);
                let queries: Vec<_> = (0..rows).map(|_| query(d, &mut random)).collect();
                let row = |i: usize| naive(&queries[i], &keys, places[i], window).unwrap();
                let want: Vec<f32> = (0..rows).flat_map(row).collect();
                let blocks = keys.blocks(d, places[rows - 1] + 1, &mut random);
                for isa in Isa::available() {
                    let at = 16 * random.below(3);
                    let got = attended(isa, &queries, at, &places, window, &blocks, &mut ws).unwrap();
                    assert_eq!(difference(&got, &want), None, "{isa}, d = {d}, {window:?}, {places:?}");
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_as_among_others() {
    let mut random = Random::new(2);
    let mut ws = Workspace::default();
    for d in [64, 128] {
        for window in [None, Some(100)] {
            let keys = Keys::random(d, 1100, 3.0, &mut random);
            let places: Vec<usize> = (0..ROWS).map(|i| 1010 + i).collect();
            let queries: Vec<_> = (0..ROWS).map(|_| query(d, &mut random)).collect();
            let blocks = keys.blocks(d, 1100, &mut random);
            for isa in Isa::available() {
                let all = attended(isa, &queries, 0, &places, window, &blocks, &mut ws).unwrap();
                for size in [1, 3, 15, 16, 17] {
                    for from in (0..ROWS).step_by(size) {
                        let to = ROWS.min(from + size);
                        let part = attended(isa, &queries[from..to], 16, &places[from..to], window, &blocks, &mut ws);
                        assert_eq!(
                            difference(&part.unwrap(), &all[from * d..to * d]),
                            None,
                            "{isa}, rows {from}..{to}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn keys_and_values_past_a_query_change_nothing_even_where_they_are_not_finite() {
    let mut random = Random::new(3);
    for d in [16, 20, 128] {
        for p in [0, 1, 62, 63, 64, 1000, 1023, 1024, 1030] {
            let keys = Keys::random(d, p + 1, 3.0, &mut random);
            let queries = [query(d, &mut random)];
            let want = naive(&queries[0], &keys, p, None).unwrap();
            let mut blocks = keys.blocks(d, p + 1, &mut random);
            let layout = BlockLayout::new(d);
            for scale in [f32::NAN, f32::INFINITY, -f32::NAN, f32::NEG_INFINITY, f32::MAX] {
                let last = blocks.last_mut().unwrap();
                for slot in p % POSITIONS + 1..POSITIONS {
                    let levels: Vec<i8> = (0..d).map(|_| [127, -128][random.below(2)]).collect();
                    layout.write_key(Shared::new(last.as_bytes_mut()), 0, slot, &levels, scale);
                    layout.write_value(Shared::new(last.as_bytes_mut()), 0, slot, &levels, scale);
                }
                for isa in Isa::available() {
                    let got = attended(isa, &queries, 0, &[p], None, &blocks, &mut Workspace::default()).unwrap();
                    assert_eq!(difference(&got, &want), None, "{isa}, d = {d}, p = {p}, {scale}");
                }
            }
        }
    }
}

#[test]
fn blocks_share_one_buffer_without_touching_each_other() {
    let d = 64;
    let layout = BlockLayout::new(d);
    let mut random = Random::new(4);
    let keys = Keys::random(d, 192, 3.0, &mut random);
    let mut pool = AlignedBytes::zeroed(3 * layout.bytes());
    for p in [130, 5, 64, 191, 63, 128].into_iter().chain(0..192) {
        let start = (2 - p / POSITIONS) * layout.bytes();
        layout.write_key(Shared::new(pool.as_bytes_mut()), start, p % POSITIONS, &keys.k[p].0, keys.k[p].1);
        layout.write_value(Shared::new(pool.as_bytes_mut()), start, p % POSITIONS, &keys.v[p].0, keys.v[p].1);
    }
    let x = query(d, &mut random);
    let mut q = Quantised::new(Activations::A16);
    q.reshape(1, d, Activations::A16);
    q.write_row(Isa::SCALAR, 0, &x).unwrap();
    let block = |b: usize| &pool.as_bytes()[(2 - b) * layout.bytes()..][..layout.bytes()];
    let (mut out, mut ws) = (vec![0.0; d], Workspace::default());
    for isa in Isa::available() {
        attend(isa, layout, &q, 0..1, |_| 191, None, block, &mut out, &mut ws).unwrap();
        assert_eq!(difference(&out, &naive(&x, &keys, 191, None).unwrap()), None, "{isa}");
    }
}

#[test]
fn a_value_that_is_not_finite_fails_exactly_the_rows_that_see_it_and_the_first_is_named() {
    let mut random = Random::new(5);
    let mut ws = Workspace::default();
    for trial in 0..120 {
        let d = HEAD_DIMS[trial % HEAD_DIMS.len()];
        let end = [70, 300, 1100][trial % 3];
        let window = WINDOWS[random.below(WINDOWS.len())];
        let rows = 1 + random.below(ROWS);
        let places = positions(rows, end, &mut random);
        let queries: Vec<_> = (0..rows).map(|_| query(d, &mut random)).collect();
        let mut keys = Keys::random(d, end, 3.0, &mut random);
        let at = places[rows - 1].saturating_sub(random.below(40));
        let bad = [f32::NAN, f32::INFINITY, -f32::NAN, f32::from_bits(0x7f80_0001)][random.below(4)];
        let scale = if random.below(2) == 0 { &mut keys.k[at].1 } else { &mut keys.v[at].1 };
        *scale = bad;
        let want: Vec<_> = (0..rows).map(|i| naive(&queries[i], &keys, places[i], window)).collect();
        let blocks = keys.blocks(d, places[rows - 1] + 1, &mut random);
        for isa in Isa::available() {
            let got = attended(isa, &queries, 0, &places, window, &blocks, &mut ws);
            assert_eq!(got.err(), want.iter().position(Option::is_none), "{isa}, d = {d}, trial {trial}");
            for i in 0..rows {
                let alone = attended(isa, &queries[i..=i], 0, &places[i..=i], window, &blocks, &mut ws).ok();
                assert_eq!(alone.is_some(), want[i].is_some());
                alone.iter().zip(&want[i]).for_each(|(got, want)| assert_eq!(difference(got, want), None));
            }
        }
    }
}

#[test]
fn scores_at_the_edge_of_32_bits_are_exact() {
    let d = HEAD_DIM_MAX;
    let (p, mut ws) = (70, Workspace::default());
    let tiny = 1e-9;
    let head = |level: i8| (vec![level; d], tiny);
    let k = (0..=p).map(|j| head([127, -127, -128, 126][j % 4])).collect();
    let keys = Keys { k, v: (0..=p).map(|j| head((j % 255) as i8)).collect() };
    let blocks = keys.blocks(d, p + 1, &mut Random::new(6));
    for query in [vec![1.0; d], vec![-1.0; d], (0..d).map(|i| if i == 7 { 0.99 } else { -1.0 }).collect()] {
        let want = naive(&query, &keys, p, None).unwrap();
        for isa in Isa::available() {
            let got = attended(isa, std::slice::from_ref(&query), 0, &[p], None, &blocks, &mut ws).unwrap();
            assert_eq!(difference(&got, &want), None, "{isa}");
        }
    }
}
