//! Where two rows of floats differ.

/// The first index at which two rows differ in a bit, and both values. Any NaN equals any other: the specification
/// gives a NaN no bits, a sequence that meets one fails.
pub(crate) fn difference(got: &[f32], want: &[f32]) -> Option<(usize, f32, f32)> {
    assert_eq!(got.len(), want.len());
    (0..got.len())
        .find(|i| got[*i].to_bits() != want[*i].to_bits() && !(got[*i].is_nan() && want[*i].is_nan()))
        .map(|i| (i, got[i], want[i]))
}
