//! An adapter's quantised form as the bytes of a file: what it is checked by, a table of its sites, then the numbers as they
//! lie in memory. Little end first, whatever the machine.

use crate::merkle::Hash;
use crate::parallel::give_way;
use crate::{Adapter, LowRank, Plan, Site};
use exact::matrix::{BLOCK, Matrix, RowMatrix};
use std::convert::Infallible;

const MAGIC: &[u8; 16] = b"lockstep lora 01";
/// Magic, hash of all that follows it, length of the table.
const PREFIX_BYTES: usize = 16 + 32 + 8;
/// Bytes hashed between two moments in which others may go first.
const HASHED_BYTES: usize = 256 << 10;

#[derive(serde::Serialize, serde::Deserialize)]
struct Table {
    key: String,
    /// The adapter's digest.
    digest: String,
    sites: Vec<Line>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    /// Its number in the plan.
    site: usize,
    rank: usize,
    gain_bits: u32,
}

/// The bytes of an adapter under a key.
pub(crate) fn write(key: &Hash, adapter: &Adapter) -> serde_json::Result<Vec<u8>> {
    let present = || adapter.sites.iter().enumerate().filter_map(|(number, site)| Some((number, site.as_ref()?)));
    let line = |(site, low_rank): (usize, &LowRank)| Line {
        site,
        rank: low_rank.a.outputs(),
        gain_bits: low_rank.gain.to_bits(),
    };
    let hex = |hash: &Hash| blake3::Hash::from(*hash).to_hex().to_string();
    let table = Table { key: hex(key), digest: hex(&adapter.digest), sites: present().map(line).collect() };
    let table = serde_json::to_vec(&table)?;
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + table.len() + adapter.bytes());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend((table.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&table);
    for (_, LowRank { a, b, .. }) in present() {
        bytes.extend(a.scales().iter().flat_map(|scale| scale.to_le_bytes()));
        bytes.extend_from_slice(a.packed());
        bytes.extend(b.scales().iter().flat_map(|scale| scale.to_le_bytes()));
        bytes.extend_from_slice(b.packed());
    }
    let check = blake3::hash(&bytes[48..]);
    bytes[16..48].copy_from_slice(check.as_bytes());
    Ok(bytes)
}

/// The adapter that [`write`] wrote under this key for a base of this plan; otherwise what is wrong with the bytes.
pub(crate) fn read(bytes: &[u8], key: &Hash, plan: &Plan) -> Result<Adapter, String> {
    let (prefix, rest) = bytes.split_at_checked(PREFIX_BYTES).ok_or("it is truncated")?;
    if prefix[..16] != *MAGIC || hash(&bytes[48..]).as_bytes()[..] != prefix[16..48] {
        return Err("its bytes are not those that were written".to_owned());
    }
    // From here on the bytes are those of a program like this one, if perhaps of another version or machine.
    let mut length = [0u8; 8];
    length.copy_from_slice(&prefix[48..]);
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| "its table is too long")?;
    let (table, mut body) = rest.split_at_checked(length).ok_or("it is truncated")?;
    let table: Table = serde_json::from_slice(table).map_err(|error| format!("its table cannot be read: {error}"))?;
    let digest = blake3::Hash::from_hex(&table.digest).map_err(|_| "its digest cannot be read")?;
    if table.key != blake3::Hash::from(*key).to_hex().as_str() {
        return Err("it holds another adapter".to_owned());
    }
    let mut sites: Vec<Option<LowRank>> = vec![None; plan.sites.len()];
    for line in table.sites {
        let place = sites.get_mut(line.site).filter(|place| place.is_none()).ok_or("it is for another base")?;
        *place = Some(low_rank(&mut body, &plan.sites[line.site], &line).ok_or("it is for another base")?);
        give_way();
    }
    if body.is_empty() { Ok(Adapter { sites, digest: *digest.as_bytes() }) } else { Err("it is too long".to_owned()) }
}

fn hash(bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for piece in bytes.chunks(HASHED_BYTES) {
        hasher.update(piece);
        give_way();
    }
    hasher.finalize()
}

/// The two matrices at the start of `body`, which then starts behind them; none if it is too short.
fn low_rank(body: &mut &[u8], site: &Site, line: &Line) -> Option<LowRank> {
    let Site { inputs, outputs, .. } = *site;
    let bytes_a = line.rank.checked_mul(inputs.next_multiple_of(64))?;
    let bytes_b = line.rank.checked_next_multiple_of(4)?.checked_mul(outputs.next_multiple_of(BLOCK))?;
    let (scales_a, packed_a) = (floats(body, line.rank)?, take(body, bytes_a)?);
    let (scales_b, packed_b) = (floats(body, outputs)?, take(body, bytes_b)?);
    let copy = |from: &[u8], to: &mut [u8]| {
        to.copy_from_slice(from);
        Ok::<_, Infallible>(())
    };
    let Ok(a) = RowMatrix::from_packed(line.rank, inputs, &scales_a, |to| copy(packed_a, to));
    let Ok(b) = Matrix::from_packed(outputs, line.rank, &scales_b, |to| copy(packed_b, to));
    Some(LowRank { a, b, gain: f32::from_bits(line.gain_bits) })
}

fn take<'a>(body: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = body.split_at_checked(count)?;
    *body = rest;
    Some(taken)
}

fn floats(body: &mut &[u8], count: usize) -> Option<Vec<f32>> {
    let bytes = take(body, count.checked_mul(4)?)?;
    Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}
