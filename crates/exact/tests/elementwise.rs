//! Every element-wise step on every instruction set against the text (specification, sections 1, 4, 6, 9, 10).

mod reference {
    pub(crate) mod difference;
    pub(crate) mod exp2;
    pub(crate) mod kinds;
    pub(crate) mod log2;
    pub(crate) mod random;
    pub(crate) mod squares;
}

use exact::Isa;
use exact::norm::{add, add_weighted, gated, rms_norm};
use exact::rotary::rotate;
use exact::spread::{head_block, spread, spread_block, spread_head};
use reference::difference::difference;
use reference::exp2::exp2;
use reference::kinds::{KINDS, float, row};
use reference::log2::log2;
use reference::random::Random;
use reference::squares::squares;

const LENGTHS: [usize; 16] = [1, 2, 5, 15, 16, 17, 20, 63, 64, 100, 127, 128, 129, 256, 300, 2048];

/// Runs `check` with every instruction set, length and pair of kinds of values.
fn everywhere(mut check: impl FnMut(Isa, &[f32], &[f32], &mut Random)) {
    for n in LENGTHS {
        for kind in 0..KINDS * KINDS {
            let mut random = Random::new((n * 100 + kind) as u64);
            // One more than needed, cut off in front: no kernel may count on alignment.
            let (x, y) = (row(kind % KINDS, n + 1, &mut random), row(kind / KINDS, n + 1, &mut random));
            for isa in Isa::available() {
                check(isa, &x[1..], &y[1..], &mut Random::new(kind as u64));
            }
        }
    }
}

#[test]
fn rms_norm_adds_its_128_lanes_in_the_written_order() {
    everywhere(|isa, x, w, random| {
        let n = x.len();
        let eps = [1e-6, 1e-5, 0.0, 1e-12][random.below(4)];
        let sum = squares(x);
        let r = 1.0 / (sum / n as f32 + eps).sqrt();
        let want: Vec<f32> = x.iter().zip(w).map(|(x, w)| (x * r) * w).collect();
        let mut y = vec![9.0; n];
        rms_norm(isa, x, w, eps, &mut y);
        if sum.is_nan() {
            assert!(y.iter().any(|y| y.is_nan()));
            return;
        }
        assert_eq!(difference(&y, &want), None, "{isa}, n = {n}, eps {eps}");
    });
}

#[test]
fn adding_and_weighting_rows_rounds_once_per_written_operation() {
    everywhere(|isa, x, d, random| {
        let weight = float(random.below(KINDS), random);
        let mut y = x.to_vec();
        add(isa, &mut y, d);
        let want: Vec<f32> = x.iter().zip(d).map(|(x, d)| x + d).collect();
        assert_eq!(difference(&y, &want), None, "add on {isa}");

        y.copy_from_slice(x);
        add_weighted(isa, &mut y, d, weight, true);
        let want: Vec<f32> = d.iter().map(|d| d * weight).collect();
        assert_eq!(difference(&y, &want), None, "first add_weighted on {isa}");

        y.copy_from_slice(x);
        add_weighted(isa, &mut y, d, weight, false);
        let want: Vec<f32> = x.iter().zip(d).map(|(x, d)| d.mul_add(weight, *x)).collect();
        assert_eq!(difference(&y, &want), None, "add_weighted on {isa}");
    });
}

fn silu(x: f32) -> f32 {
    let z = exp2(-(x.abs() * f32::from_bits(0x3fb8_aa3b)));
    let num = if x >= 0.0 { x } else { x * z };
    num / (1.0 + z)
}

#[test]
fn the_gated_product_is_silu_times_up() {
    everywhere(|isa, gate, up, _| {
        let want: Vec<f32> = gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect();
        let mut y = vec![9.0; gate.len()];
        gated(isa, gate, up, &mut y);
        assert_eq!(difference(&y, &want), None, "{isa}");
    });
}

/// Every `step`-th bit pattern of a range, in rows of 4,096.
fn sweep(from: u32, to: u32, step: usize, mut check: impl FnMut(&[f32])) {
    let all: Vec<u32> = (from..=to).step_by(step).chain([to]).collect();
    for part in all.chunks(4096) {
        check(&part.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>());
    }
}

#[test]
fn silu_has_the_written_bits_over_all_finite_floats() {
    for sign in [0, 0x8000_0000] {
        sweep(sign, sign | 0x7f7f_ffff, 1511, |x| {
            let want: Vec<f32> = x.iter().map(|x| silu(*x)).collect();
            let alone: Vec<f32> = x.iter().map(|x| exact::silu(*x)).collect();
            assert_eq!(difference(&alone, &want), None);
            for isa in Isa::available() {
                let mut y = vec![0.0; x.len()];
                gated(isa, x, &vec![1.0; x.len()], &mut y);
                assert_eq!(difference(&y, &want), None, "{isa}");
            }
        });
    }
}

#[test]
fn exp2_and_log2_have_the_written_bits_over_their_whole_domain() {
    let exp2_same =
        |x: &[f32]| x.iter().for_each(|x| assert_eq!(exact::exp2(*x).to_bits(), exp2(*x).to_bits(), "{x:e}"));
    let log2_same =
        |x: &[f32]| x.iter().for_each(|x| assert_eq!(exact::log2(*x).to_bits(), log2(*x).to_bits(), "{x:e}"));
    sweep(0x8000_0000, 0xff80_0000, 211, exp2_same);
    sweep(0x0080_0000, 0x7f7f_ffff, 211, log2_same);
    // Every float next to −126, −125.5, −1 and −0.5, and next to the border of log2's mantissas.
    for border in [0xc2fc_0000u32, 0xc2fb_0000, 0xbf80_0000, 0xbf00_0000] {
        sweep(border - 5000, border + 5000, 1, exp2_same);
    }
    for border in [0x3f35_04f3, 0x3fb5_04f3, 0x3f80_0000] {
        sweep(border - 5000, border + 5000, 1, log2_same);
    }
    for exponent in 1..=254u32 {
        let border = exponent << 23 | 0x35_04f3;
        sweep(border - 3, border + 3, 1, log2_same);
    }
    exp2_same(&[0.0, -0.0]);
}

#[test]
fn rotation_is_two_fused_products_and_leaves_the_rest_alone() {
    everywhere(|isa, v, table, random| {
        let h = random.below(v.len() / 2 + 1);
        let (c, s) = (&table[..h], &table[v.len() - h..]);
        let mut want = v.to_vec();
        for i in 0..h {
            let (x, y) = (v[i], v[i + h]);
            want[i] = x.mul_add(c[i], -(y * s[i]));
            want[i + h] = y.mul_add(c[i], x * s[i]);
        }
        let mut got = v.to_vec();
        rotate(isa, &mut got, c, s);
        assert_eq!(difference(&got, &want), None, "{isa}, {h} of {}", v.len());
    });
}

/// Sums and differences at ascending strides, over blocks of `block`.
fn transformed(x: &[f32], block: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    let mut h = 1;
    while h < block {
        for i in (0..x.len()).filter(|i| i & h == 0) {
            (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h]);
        }
        h *= 2;
    }
    x
}

#[test]
fn spreading_takes_sums_and_differences_at_ascending_strides() {
    for n in (1..=160).chain([192, 200, 256, 320, 512, 1024, 1536, 2048, 2816, 3072, 4096, 7168]) {
        let block = (0..).map(|b| 1usize << b).take_while(|b| n % b == 0).last().unwrap();
        assert_eq!((head_block(n), spread_block(n)), (block, block.min(1024)));
        for kind in 0..KINDS {
            let x = row(kind, n, &mut Random::new((n * KINDS + kind) as u64));
            let (want, want_head) = (transformed(&x, block.min(1024)), transformed(&x, block));
            for isa in Isa::available() {
                let (mut got, mut got_head) = (x.clone(), x.clone());
                spread(isa, &mut got);
                assert_eq!(difference(&got, &want), None, "{isa}, n = {n}");
                spread_head(isa, &mut got_head);
                assert_eq!(difference(&got_head, &want_head), None, "{isa}, head of {n}");
            }
        }
    }
}
