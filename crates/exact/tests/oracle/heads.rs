//! Attention of the oracle (specification, section 8).

use super::read::{assert_same, quantised, small, vectors};
use exact::attention::{BlockLayout, POSITIONS, Workspace, attend};
use exact::memory::AlignedBytes;
use exact::shared::Shared;
use exact::{Activations, Isa};

/// The generator the vectors' head describes.
struct Draws(u32);

impl Draws {
    fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn head(&mut self, d: usize, largest: i32, exponent: i32) -> (Vec<i32>, f32) {
        let levels = (0..d).map(|_| self.draw() as i32 % (2 * largest + 1) - largest).collect();
        (levels, (self.draw() + (1 << 24)) as f32 * 2f32.powi(exponent))
    }
}

/// A row that quantises to `levels` and `scale`, followed by one value of the largest level and zeros, `width` in all.
fn query(levels: &[i32], scale: f32, width: usize) -> Vec<f32> {
    let near = (scale * 32_639.0).to_bits();
    let largest = (near - 2..=near + 2).map(f32::from_bits).find(|a| a / 32_639.0 == scale).unwrap();
    let mut row: Vec<f32> = levels.iter().map(|q| *q as f32 * scale).chain([largest]).collect();
    row.resize(width, 0.0);
    row
}

/// The vectors' queries need not hold the level 32639, quantised rows must. So heads of d dimensions are put into heads
/// of 4·d: the query has 32639 in a dimension where all keys have 0, and the eightfold scale, which √(4d) and a block of
/// 4d take out exactly.
#[test]
fn attention_has_the_oracles_bits() {
    let vectors = vectors("attention");
    let (keys, d) = (small(&vectors[0]["keys"]), small(&vectors[0]["d"]));
    assert!(d.is_power_of_two());
    let mut draws = Draws(small(&vectors[0]["seed"]) as u32);
    let layout = BlockLayout::new(4 * d);
    let mut blocks = vec![AlignedBytes::zeroed(layout.bytes()); keys.div_ceil(POSITIONS)];
    for p in 0..keys {
        let bytes = Shared::new(blocks[p / POSITIONS].as_bytes_mut());
        let [k, v] = [draws.head(d, 127, -28), draws.head(d, 127, -28)].map(|(levels, scale)| {
            let mut levels: Vec<i8> = levels.into_iter().map(|q| q as i8).collect();
            levels.resize(4 * d, 0);
            (levels, scale)
        });
        layout.write_key(bytes, 0, p % POSITIONS, &k.0, k.1);
        layout.write_value(bytes, 0, p % POSITIONS, &v.0, v.1);
    }
    for v in vectors {
        let (levels, scale) = draws.head(d, 32_639, -36);
        let rows = [query(&levels, 8.0 * scale, 4 * d)];
        let (p, window) = (small(&v["position"]), v["window"].as_u64().map(|w| w as usize));
        for isa in Isa::available() {
            let q = quantised(isa, &rows, Activations::A16).unwrap();
            assert!((0..d).all(|i| q.level(0, i) == levels[i]) && q.scales() == [8.0 * scale]);
            let (mut out, mut ws) = (vec![0.0; 4 * d], Workspace::default());
            let block = |b: usize| blocks[b].as_bytes();
            attend(isa, layout, &q, 0..1, |_| p, window, block, &mut out, &mut ws).unwrap();
            assert_same(&out[..d], &v["out"], isa);
        }
    }
}
