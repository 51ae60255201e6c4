//! Short integer relations: what an attacker computes who knows a verifier's key.

/// Small δ, not all zero, with Σ rᵢ·δᵢ = 0 modulo p: the first vector of an LLL-reduced basis (δ = 3/4), in floating point
/// with exact integers beside it, which is enough for a few dimensions.
pub fn short_relation(r: &[u64], p: u64) -> Vec<i32> {
    let n = r.len();
    // Rows: p·e₀, and eᵢ − (rᵢ/r₀)·e₀.
    let inverse = power(r[0], p - 2, p);
    let mut basis: Vec<Vec<i128>> = vec![vec![0; n]; n];
    basis[0][0] = i128::from(p);
    for i in 1..n {
        basis[i][0] = -((u128::from(r[i]) * u128::from(inverse) % u128::from(p)) as i128);
        basis[i][i] = 1;
    }
    let mut k = 1;
    while k < n {
        for j in (0..k).rev() {
            let (ortho, mu) = gram_schmidt(&basis);
            let _ = ortho;
            let q = mu[k][j].round() as i128;
            for c in 0..n {
                basis[k][c] -= q * basis[j][c];
            }
        }
        let (ortho, mu) = gram_schmidt(&basis);
        if ortho[k] >= (0.75 - mu[k][k - 1] * mu[k][k - 1]) * ortho[k - 1] {
            k += 1;
        } else {
            basis.swap(k, k - 1);
            k = k.max(2) - 1;
        }
    }
    let short: Vec<i32> = basis[0].iter().map(|x| i32::try_from(*x).unwrap()).collect();
    let sum: i128 = r.iter().zip(&short).map(|(r, x)| i128::from(*r) * i128::from(*x)).sum();
    assert!(sum.rem_euclid(i128::from(p)) == 0 && short.iter().any(|x| *x != 0));
    short
}

fn gram_schmidt(basis: &[Vec<i128>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = basis.len();
    let rows: Vec<Vec<f64>> = basis.iter().map(|row| row.iter().map(|x| *x as f64).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut ortho, mut mu) = (rows.clone(), vec![vec![0.0; n]; n]);
    for i in 0..n {
        for j in 0..i {
            mu[i][j] = dot(&rows[i], &ortho[j]) / dot(&ortho[j], &ortho[j]);
            let (before, rest) = ortho.split_at_mut(i);
            rest[0].iter_mut().zip(&before[j]).for_each(|(x, y)| *x -= mu[i][j] * y);
        }
    }
    (ortho.iter().map(|row| dot(row, row)).collect(), mu)
}

fn power(mut base: u64, mut exponent: u64, p: u64) -> u64 {
    let mut result = 1u64;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = (u128::from(result) * u128::from(base) % u128::from(p)) as u64;
        }
        base = (u128::from(base) * u128::from(base) % u128::from(p)) as u64;
        exponent >>= 1;
    }
    result
}
