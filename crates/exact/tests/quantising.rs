//! Rows of floats become rows of integers (specification, section 1).

mod reference {
    pub(crate) mod kinds;
    pub(crate) mod quantise;
    pub(crate) mod random;
    pub(crate) mod squares;
}

use exact::linear::{Epilogue, RowsMut, linear};
use exact::matrix::{Matrix, RowMatrix};
use exact::quantise::{Quantised, quantise_i8, quantise_i16, quantise_weights};
use exact::{Activations, Isa, NotFinite};
use reference::kinds::{KINDS, row};
use reference::quantise::quantise;
use reference::random::Random;
use reference::squares::squares;

const LENGTHS: [usize; 16] = [1, 2, 5, 15, 16, 17, 20, 63, 64, 100, 127, 128, 129, 256, 300, 2048];

/// Quantises in all four ways; the results must agree with each other in success, and with the text.
fn quantise_everyhow(isa: Isa, x: &[f32]) -> Result<(), NotFinite> {
    let (mut q8, mut q16) = (vec![7i8; x.len()], vec![7i16; x.len()]);
    let results = [quantise_i8(isa, x, &mut q8), quantise_i16(isa, x, &mut q16)];
    let levels: [Vec<i32>; 2] = [q8.into_iter().map(i32::from).collect(), q16.into_iter().map(i32::from).collect()];
    for (i, mode) in [Activations::A8, Activations::A16].into_iter().enumerate() {
        let want = quantise(x, [127.0, 32_639.0][i]);
        let mut rows = Quantised::new(mode);
        rows.reshape(18, x.len(), mode);
        let written = rows.write_row(isa, 17, x);
        match want {
            None => assert_eq!((results[i], written), (Err(NotFinite), Err(NotFinite)), "{isa} {mode:?}"),
            Some((q, scale)) => {
                assert_eq!(levels[i], q, "{isa} {mode:?}");
                assert_eq!(results[i].map(f32::to_bits), Ok(scale.to_bits()));
                assert_eq!((0..x.len()).map(|n| rows.level(17, n)).collect::<Vec<_>>(), q, "{isa} {mode:?}");
                assert_eq!((written, rows.scales()[17].to_bits()), (Ok(()), scale.to_bits()));
            }
        }
    }
    results[0].and(results[1]).map(|_| ())
}

#[test]
fn quantised_rows_are_the_written_levels_and_scale() {
    for n in LENGTHS {
        for kind in 0..KINDS - 1 {
            let mut random = Random::new((n * 10 + kind) as u64);
            for _ in 0..8 {
                let x = row(kind, n, &mut random);
                for isa in Isa::available() {
                    quantise_everyhow(isa, &x).unwrap();
                }
            }
        }
    }
}

#[test]
fn quantised_ties_go_to_even_and_the_tiny_border_is_exact() {
    let halves = |largest: i32| (0..=2 * largest).map(|i| 0.5 * i as f32 * if i % 3 == 0 { -1.0 } else { 1.0 });
    let border = 2f32.powi(-100);
    let below = f32::from_bits(border.to_bits() - 1);
    let above = f32::from_bits(border.to_bits() + 1);
    for isa in Isa::available() {
        quantise_everyhow(isa, &halves(127).collect::<Vec<_>>()).unwrap();
        quantise_everyhow(isa, &halves(32_639).collect::<Vec<_>>()).unwrap();
        for x in [[border, 0.0], [-border, below], [below, 1e-45], [above, -border], [f32::MAX, f32::MIN]] {
            quantise_everyhow(isa, &x).unwrap();
        }
        let mut q = [1i8; 2];
        assert_eq!(quantise_i8(isa, &[below, -below], &mut q), Ok(0.0));
        assert_eq!(q, [0, 0]);
        assert!(quantise_i8(isa, &[border, -below], &mut q).unwrap() > 0.0);
    }
}

#[test]
fn a_single_infinity_or_nan_anywhere_fails_the_row() {
    let bad = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(!0)];
    for isa in Isa::available() {
        for n in [1, 7, 16, 17, 63, 64, 65, 130, 257] {
            for at in 0..n {
                let mut x = row(0, n, &mut Random::new(at as u64));
                x[at] = bad[at % bad.len()];
                assert_eq!(quantise_everyhow(isa, &x), Err(NotFinite), "{isa}, {} at {at} of {n}", x[at]);
            }
        }
        bad.iter().for_each(|x| assert_eq!(quantise_everyhow(isa, &[*x]), Err(NotFinite)));
    }
}

#[test]
fn a_copied_row_has_the_levels_and_scale_of_its_source_and_disturbs_no_other() {
    for mode in [Activations::A8, Activations::A16] {
        for n in [1, 64, 65, 200] {
            let mut random = Random::new(n as u64);
            let rows: Vec<_> = (0..20).map(|_| row(0, n, &mut random)).collect();
            let (mut source, mut target) = (Quantised::new(mode), Quantised::new(mode));
            source.reshape(20, n, mode);
            target.reshape(33, n, mode);
            let source_of = |i: usize| (i * 7 + 3) % 20;
            rows.iter().enumerate().for_each(|(i, x)| source.write_row(Isa::best(), i, x).unwrap());
            (0..33).rev().for_each(|i| target.copy_row(i, &source, source_of(i)));
            for i in 0..33 {
                let (q, scale) = quantise(&rows[source_of(i)], [127.0, 32_639.0][mode.planes() - 1]).unwrap();
                assert_eq!((0..n).map(|k| target.level(i, k)).collect::<Vec<_>>(), q);
                assert_eq!(target.scales()[i], scale);
            }
        }
    }
}

/// A weight row by the text: the best of sixteen scales.
fn naive_weights(x: &[f32]) -> Option<(Vec<i32>, f32)> {
    let (zeros, s) = quantise(x, 127.0)?;
    if s == 0.0 {
        return Some((zeros, s));
    }
    let a = x.iter().fold(0f32, |a, x| a.max(x.abs()));
    let candidate = |i: i32| {
        let d = 127.4375 - 0.5 * i as f32;
        let (r, s) = (d / a, a / d);
        let q: Vec<i32> = x.iter().map(|x| (x * r).clamp(-127.0, 127.0).round_ties_even() as i32).collect();
        let delta: Vec<f32> = q.iter().zip(x).map(|(q, x)| (-s).mul_add(*q as f32, *x)).collect();
        (squares(&delta), q, s)
    };
    let best = (1..16).map(candidate).fold(candidate(0), |best, next| if next.0 < best.0 { next } else { best });
    Some((best.1, best.2))
}

#[test]
fn weight_rows_take_the_first_of_the_best_of_sixteen_scales() {
    let mut scales_seen = std::collections::BTreeSet::new();
    for n in LENGTHS {
        for kind in 0..KINDS - 1 {
            let mut random = Random::new((n * 10 + kind) as u64);
            for _ in 0..12 {
                let x = row(kind, n, &mut random);
                let (want, scale) = naive_weights(&x).unwrap();
                let a = x.iter().fold(0f32, |a, x| a.max(x.abs()));
                scales_seen.insert((2.0 * a / scale).round() as u32);
                for isa in Isa::available() {
                    let mut q = vec![7i8; n];
                    let got = quantise_weights(isa, &x, &mut q).unwrap();
                    assert_eq!(
                        q.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(),
                        want,
                        "{isa}, n = {n}, kind {kind}"
                    );
                    assert_eq!(got.to_bits(), scale.to_bits(), "{isa}, n = {n}, kind {kind}");

                    let (mut matrix, mut rows) = (Matrix::zeroed(17, n), RowMatrix::zeroed(17, n));
                    matrix.quantise_row(isa, 16, &x).unwrap();
                    rows.quantise_row(isa, 16, &x).unwrap();
                    let mut back = vec![0i8; n];
                    matrix.row(16, &mut back);
                    assert_eq!((&back[..], rows.row(16)), (&q[..], &q[..]));
                    assert_eq!((matrix.scales()[16], rows.scales()[16]), (scale, scale));
                }
            }
        }
    }
    assert!(
        scales_seen.len() >= 16,
        "all sixteen scales, and zero for zeros, should be somebody's best: {scales_seen:?}"
    );
}

#[test]
fn weight_rows_whose_best_scales_all_but_tie_still_take_the_written_one() {
    let mut random = Random::new(8);
    for n in (2..7).cycle().take(60_000) {
        let x = row(0, n, &mut random);
        let (want, scale) = naive_weights(&x).unwrap();
        let isa = Isa::available()[random.below(Isa::available().len())];
        let mut q = vec![7i8; n];
        assert_eq!(quantise_weights(isa, &x, &mut q), Ok(scale), "{isa}, {x:?}");
        assert_eq!(q.into_iter().map(i32::from).collect::<Vec<_>>(), want, "{isa}, {x:?}");
    }
}

#[test]
fn weight_rows_that_are_not_finite_fail_and_huge_ones_take_the_first_scale() {
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(quantise_weights(isa, &[1.0, bad, 2.0], &mut [0; 3]), Err(NotFinite), "{isa}");
            assert_eq!(Matrix::zeroed(1, 2).quantise_row(isa, 0, &[bad, 0.0]), Err(NotFinite), "{isa}");
        }
        // Every error overflows: all sixteen are equal.
        let x: Vec<f32> = (0..300).map(|i| f32::MAX * (i as f32 / 299.0)).collect();
        assert_eq!(quantise_weights(isa, &x, &mut [0; 300]), Ok(f32::MAX / 127.4375), "{isa}");
    }
}

#[test]
fn a_cleared_row_makes_every_product_zero() {
    let mut weights = Matrix::zeroed(5, 3);
    (0..5).for_each(|n| weights.set_row(n, &[127, n as i8, -128], 3.0));
    for mode in [Activations::A8, Activations::A16] {
        for isa in Isa::available() {
            let mut x = Quantised::new(mode);
            x.reshape(2, 3, mode);
            (0..2).for_each(|row| x.write_row(isa, row, &[1.0, -2.0, 3.0]).unwrap());
            x.rows_mut().clear(1);
            let mut y = [7.0f32; 10];
            linear(isa, &x, 0..2, &weights, 0..1, Epilogue::Store, RowsMut::new(&mut y, 5), 0, &mut Default::default());
            assert!(y[..5].iter().all(|y| *y != 0.0) && y[5..].iter().all(|y| *y == 0.0), "{isa}: {y:?}");
        }
    }
}
