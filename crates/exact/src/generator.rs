//! Philox 4×32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

/// Four words for a key and a counter.
#[inline(always)]
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], [mut c0, mut c1, mut c2, mut c3]) = (key, counter);
    for _ in 0..10 {
        let a = u64::from(c0) * 0xD251_1F53;
        let b = u64::from(c2) * 0xCD9E_8D57;
        (c0, c1, c2, c3) = ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// Counters that are computed side by side.
pub(crate) const LANES: usize = 16;

/// [`philox`] of the counters `[first + lane, middle, high, 0]`: word w of each lane in row w, so that lanes lie side by side in
/// vector registers.
#[inline(always)]
pub(crate) fn philox_lanes(key: [u32; 2], first: u32, middle: u32, high: u32) -> [[u32; LANES]; 4] {
    let [mut k0, mut k1] = key;
    let mut c = [[0u32; LANES], [middle; LANES], [high; LANES], [0; LANES]];
    for (lane, c0) in c[0].iter_mut().enumerate() {
        *c0 = first.wrapping_add(lane as u32);
    }
    for _ in 0..10 {
        for lane in 0..LANES {
            let a = u64::from(c[0][lane]) * 0xD251_1F53;
            let b = u64::from(c[2][lane]) * 0xCD9E_8D57;
            (c[0][lane], c[1][lane]) = ((b >> 32) as u32 ^ c[1][lane] ^ k0, b as u32);
            (c[2][lane], c[3][lane]) = ((a >> 32) as u32 ^ c[3][lane] ^ k1, a as u32);
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

#[cfg(test)]
mod tests {
    use super::{LANES, philox, philox_lanes};

    #[test]
    fn lanes_are_the_counters_one_by_one() {
        for first in [0, 5, u32::MAX - 7] {
            let words = philox_lanes([0xa409_3822, 0x299f_31d0], first, 77, 3);
            for lane in 0..LANES {
                let one = philox([0xa409_3822, 0x299f_31d0], [first.wrapping_add(lane as u32), 77, 3, 0]);
                assert_eq!(words.map(|word| word[lane]), one);
            }
        }
    }

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0, 0], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0, !0], [!0; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
