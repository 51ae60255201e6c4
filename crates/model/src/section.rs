//! One part of a model as bytes of a cache file: scales, then biases, then the numbers as they lie in memory.

use crate::parts::{Kind, Part, PartRef, Slot};
use crate::{Embedding, Half, Linear};
use bytemuck::{cast_slice, cast_slice_mut};
use exact::matrix::Matrix;
use exact::mixture::Router;
use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes read and hashed at once: small enough to be hashed while in the processor's cache.
const READ_BYTES: usize = 256 << 10;

/// Where a part lies in the file.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// Whether a linear map's bias is in it.
    pub(crate) bias: bool,
    /// From the start of the body.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Of all its bytes.
    pub(crate) blake3: String,
}

impl Section {
    /// What is known of a part before its place in the file is.
    pub(crate) fn of(slot: &Slot, part: PartRef<'_>) -> Section {
        let bias = matches!(part, PartRef::Linear(linear) if linear.bias.is_some());
        let (mut bytes, mut hasher) = (0, blake3::Hasher::new());
        for piece in pieces(part) {
            bytes += piece.len() as u64;
            hasher.update(&piece);
        }
        Section { name: slot.name.clone(), bias, offset: 0, bytes, blake3: hasher.finalize().to_hex().to_string() }
    }
}

/// The bytes of a part, in order.
pub(crate) fn pieces(part: PartRef<'_>) -> Vec<Cow<'_, [u8]>> {
    match part {
        PartRef::Embedding(embedding) => vec![cast_slice(&embedding.bits).into()],
        PartRef::Norm(norm) => vec![cast_slice(norm).into()],
        PartRef::Expert(matrix) => vec![cast_slice(matrix.scales()).into(), matrix.packed().into()],
        PartRef::Linear(Linear { matrix, bias }) => {
            let bias = bias.as_deref().unwrap_or(&[]);
            vec![cast_slice(matrix.scales()).into(), cast_slice(bias).into(), matrix.packed().into()]
        }
        PartRef::Router(router) => {
            let rows = || (0..router.experts()).map(|expert| router.row(expert));
            let scales: Vec<u8> = rows().flat_map(|(_, scale)| scale.to_ne_bytes()).collect();
            let levels = rows().map(|(levels, _)| Cow::from(cast_slice(levels)));
            std::iter::once(Cow::from(scales)).chain(levels).collect()
        }
    }
}

/// Reads the part that fills `slot`, hashing every byte.
pub(crate) fn read_part(file: &File, body: u64, section: &Section, slot: &Slot, half: Half) -> Result<Part, String> {
    if section.name != slot.name || section.bytes != expected_bytes(slot, section.bias) {
        return Err(format!("its part {} belongs to another model", section.name));
    }
    let at = body.checked_add(section.offset).ok_or("its header is damaged")?;
    let mut reader = Reader { file, at, hasher: blake3::Hasher::new() };
    let part = match slot.kind {
        Kind::Embedding => {
            let mut bits = vec![0u16; slot.rows * slot.columns];
            reader.fill(cast_slice_mut(&mut bits))?;
            Part::Embedding(Embedding { bits, half, hidden: slot.columns })
        }
        Kind::Norm | Kind::Folded => Part::Norm(reader.floats(slot.columns)?),
        Kind::Expert => {
            let scales = reader.floats(slot.rows)?;
            Part::Expert(reader.matrix(slot, &scales)?)
        }
        Kind::Linear => {
            let scales = reader.floats(slot.rows)?;
            let bias = if section.bias { Some(reader.floats(slot.rows)?) } else { None };
            Part::Linear(Linear { matrix: reader.matrix(slot, &scales)?, bias })
        }
        Kind::Router => {
            let scales = reader.floats(slot.rows)?;
            let mut router = Router::zeroed(slot.rows, slot.columns);
            let mut levels = vec![0i16; slot.columns];
            for (expert, scale) in scales.into_iter().enumerate() {
                reader.fill(cast_slice_mut(&mut levels))?;
                router.set_row(expert, &levels, scale);
            }
            Part::Router(router)
        }
    };
    if reader.hasher.finalize().to_hex().as_str() != section.blake3 {
        return Err(format!("its part {} is damaged", section.name));
    }
    Ok(part)
}

fn expected_bytes(slot: &Slot, bias: bool) -> u64 {
    let packed = slot.rows.next_multiple_of(exact::matrix::BLOCK) * slot.columns.next_multiple_of(4);
    let bytes = match slot.kind {
        Kind::Embedding => slot.rows * slot.columns * 2,
        Kind::Norm | Kind::Folded => slot.columns * 4,
        Kind::Router => slot.rows * 4 + slot.rows * slot.columns * 2,
        Kind::Expert => slot.rows * 4 + packed,
        Kind::Linear => slot.rows * if bias { 8 } else { 4 } + packed,
    };
    bytes as u64
}

/// Reads forwards and hashes what it reads.
struct Reader<'a> {
    file: &'a File,
    at: u64,
    hasher: blake3::Hasher,
}

impl Reader<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), String> {
        for out in out.chunks_mut(READ_BYTES) {
            self.file.read_exact_at(out, self.at).map_err(|error| format!("it cannot be read: {error}"))?;
            self.hasher.update(out);
            self.at += out.len() as u64;
        }
        Ok(())
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let mut floats = vec![0f32; count];
        self.fill(cast_slice_mut(&mut floats))?;
        Ok(floats)
    }

    fn matrix(&mut self, slot: &Slot, scales: &[f32]) -> Result<Matrix, String> {
        Matrix::from_packed(slot.rows, slot.columns, scales, |packed| self.fill(packed))
    }
}
