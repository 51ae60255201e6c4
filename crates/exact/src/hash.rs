//! BLAKE3 of many messages of one length side by side, a lane of a vector register for each message. It is for messages
//! of few chunks, which a hasher that takes one message after the other cannot divide. Not part of the arithmetic: the
//! hashes are BLAKE3's.

use crate::Isa;
use crate::kernels::{transpose, versions};

/// Messages that are hashed side by side.
pub const LANES: usize = 16;
/// Bytes of a chunk: BLAKE3 takes the chunks of one message side by side, where there are several.
pub const CHUNK_BYTES: usize = 1024;

/// One word of each message.
pub(crate) type Lanes = [u32; LANES];
/// The words of a block, message beside message.
pub(crate) type Block = [Lanes; 16];
/// A chaining value of each message.
type Chained = [Lanes; 8];

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 64;
/// Blocks that are read at once.
const READ: usize = 4;

const IV: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

/// Which word of the block each step of a round takes, by round.
const SCHEDULE: [[usize; 16]; 7] = {
    let order = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut schedule = [[0; 16]; 7];
    let mut step = 0;
    while step < 7 * 16 {
        let (round, word) = (step / 16, step % 16);
        schedule[round][word] = if round == 0 { word } else { schedule[round - 1][order[word]] };
        step += 1;
    }
    schedule
};

/// The hashes of `hashes.len()` messages of `length` bytes each, which lie one behind the other.
pub fn many(isa: Isa, messages: &[u8], length: usize, hashes: &mut [[u8; 32]]) {
    assert!(messages.len() == hashes.len() * length, "messages of one length, one behind the other");
    for (number, hashes) in hashes.chunks_mut(LANES).enumerate() {
        side_by_side(isa, &messages[number * LANES * length..][..hashes.len() * length], length, hashes);
    }
}

fn side_by_side(isa: Isa, messages: &[u8], length: usize, hashes: &mut [[u8; 32]]) {
    let chunks = length.div_ceil(CHUNK_BYTES).max(1);
    let mut level: Vec<Chained> = Vec::with_capacity(chunks);
    let mut blocks = [[[0; LANES]; 16]; READ];
    for chunk in 0..chunks {
        let (start, end) = (chunk * CHUNK_BYTES, length.min((chunk + 1) * CHUNK_BYTES));
        let mut chained = IV.map(|word| [word; LANES]);
        // A message of nothing has one block all the same.
        for at in (start..end.max(start + 1)).step_by(READ * BLOCK_BYTES) {
            let part = at..end.min(at + READ * BLOCK_BYTES);
            let blocks = &mut blocks[..part.len().div_ceil(BLOCK_BYTES).max(1)];
            transpose(isa, messages, length, hashes.len(), part.clone(), blocks);
            let root = if chunks == 1 { ROOT } else { 0 };
            let first = if at == start { CHUNK_START } else { 0 };
            let last = if part.end == end { CHUNK_END | root } else { 0 };
            chain(isa, &mut chained, blocks, part.len(), chunk as u64, [first, last]);
        }
        level.push(chained);
    }
    // Pairs from the left, the one that is left over goes up: the left side of a tree holds the largest power of two.
    while level.len() > 1 {
        let root = if level.len() == 2 { ROOT } else { 0 };
        level = level.chunks(2).map(|pair| if let [a, b] = pair { parent(isa, a, b, root) } else { pair[0] }).collect();
    }
    for (lane, hash) in hashes.iter_mut().enumerate() {
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(&level[0]) {
            *bytes = word[lane].to_le_bytes();
        }
    }
}

fn parent(isa: Isa, left: &Chained, right: &Chained, root: u32) -> Chained {
    let mut block = [[0; LANES]; 16];
    block[..8].copy_from_slice(left);
    block[8..].copy_from_slice(right);
    let mut chained = IV.map(|word| [word; LANES]);
    chain(isa, &mut chained, &[block], BLOCK_BYTES, 0, [PARENT | root, 0]);
    chained
}

versions! {
    /// Takes blocks, of `bytes` in all, into the chaining values; `ends` are the flags of the first and of the last.
    fn chain(chained: &mut Chained, blocks: &[Block], bytes: usize, counter: u64, ends: [u32; 2]) = chain_body;
}

#[inline(always)]
fn chain_body(chained: &mut Chained, blocks: &[Block], bytes: usize, counter: u64, ends: [u32; 2]) {
    for (number, block) in blocks.iter().enumerate() {
        let first = if number == 0 { ends[0] } else { 0 };
        let last = if number + 1 == blocks.len() { ends[1] } else { 0 };
        let bytes = (bytes - number * BLOCK_BYTES).min(BLOCK_BYTES);
        compress(chained, block, counter, bytes as u32, first | last);
    }
}

/// One loop over the lanes with nothing but plain variables in it, so that the compiler makes every one of them a vector.
#[inline(always)]
fn compress(chained: &mut Chained, block: &Block, counter: u64, bytes: u32, flags: u32) {
    for lane in 0..LANES {
        let mut m = [0; 16];
        for word in 0..16 {
            m[word] = block[word][lane];
        }
        let mut v = [0; 16];
        for word in 0..8 {
            v[word] = chained[word][lane];
        }
        v[8..12].copy_from_slice(&IV[..4]);
        v[12..].copy_from_slice(&[counter as u32, (counter >> 32) as u32, bytes, flags]);
        round::<0>(&mut v, &m);
        round::<1>(&mut v, &m);
        round::<2>(&mut v, &m);
        round::<3>(&mut v, &m);
        round::<4>(&mut v, &m);
        round::<5>(&mut v, &m);
        round::<6>(&mut v, &m);
        for word in 0..8 {
            chained[word][lane] = v[word] ^ v[word + 8];
        }
    }
}

#[inline(always)]
fn round<const ROUND: usize>(v: &mut [u32; 16], m: &[u32; 16]) {
    let s = const { SCHEDULE[ROUND] };
    quarter(v, [0, 4, 8, 12], m[s[0]], m[s[1]]);
    quarter(v, [1, 5, 9, 13], m[s[2]], m[s[3]]);
    quarter(v, [2, 6, 10, 14], m[s[4]], m[s[5]]);
    quarter(v, [3, 7, 11, 15], m[s[6]], m[s[7]]);
    quarter(v, [0, 5, 10, 15], m[s[8]], m[s[9]]);
    quarter(v, [1, 6, 11, 12], m[s[10]], m[s[11]]);
    quarter(v, [2, 7, 8, 13], m[s[12]], m[s[13]]);
    quarter(v, [3, 4, 9, 14], m[s[14]], m[s[15]]);
}

#[inline(always)]
fn quarter(v: &mut [u32; 16], [a, b, c, d]: [usize; 4], x: u32, y: u32) {
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(12);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(8);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(7);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(length: usize, count: usize, salt: u8) {
        let bytes = |i: usize| (i.wrapping_mul(131) >> 3) as u8 ^ (i % 251) as u8 ^ salt;
        let messages: Vec<u8> = (0..count * length).map(bytes).collect();
        let want: Vec<[u8; 32]> =
            (0..count).map(|i| *blake3::hash(&messages[i * length..(i + 1) * length]).as_bytes()).collect();
        for isa in Isa::available() {
            let mut hashes = vec![[0; 32]; count];
            many(isa, &messages, length, &mut hashes);
            assert!(hashes == want, "{isa}: {count} messages of {length} bytes");
        }
    }

    #[test]
    fn at_every_border_of_blocks_and_chunks_hashes_are_those_of_blake3() {
        let borders = (0..=17).map(|blocks| blocks * BLOCK_BYTES).chain((2..=9).map(|chunks| chunks * CHUNK_BYTES));
        for length in borders.flat_map(|border| border.saturating_sub(1)..=border + 1) {
            check(length, 3, 0);
        }
        (0..=2 * LANES + 1).for_each(|count| check(273, count, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn of_any_number_and_length_hashes_are_those_of_blake3(length in 0usize..6000, count in 0usize..40, salt: u8) {
            check(length, count, salt);
        }
    }
}
