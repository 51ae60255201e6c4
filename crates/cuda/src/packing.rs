//! Integers in the layouts the kernels read (docs/cuda.md).

use exact::matrix::{Matrix, RowMatrix};

/// Inputs in a chunk.
pub(crate) const CHUNK: usize = 64;

/// Chunks of a row of `inputs` values.
pub(crate) fn chunks(inputs: usize) -> usize {
    inputs.div_ceil(CHUNK)
}

/// Bytes of a packed matrix: `[output / 16][input / 64][output % 16][input % 64]`.
pub(crate) fn matrix_bytes(outputs: usize, inputs: usize) -> usize {
    outputs.div_ceil(16) * chunks(inputs) * 16 * CHUNK
}

/// Packs the sixteen outputs of tile `tile` into `out`, which holds zeros.
pub(crate) fn pack_tile(matrix: &Matrix, tile: usize, levels: &mut [i8], out: &mut [i8]) {
    for row in 0..16.min(matrix.outputs() - tile * 16) {
        matrix.row(tile * 16 + row, levels);
        for (chunk, values) in levels.chunks(CHUNK).enumerate() {
            out[(chunk * 16 + row) * CHUNK..][..values.len()].copy_from_slice(values);
        }
    }
}

/// Packs all of a matrix, on several threads if it is large.
pub(crate) fn pack(matrix: &Matrix) -> Vec<i8> {
    let tile_bytes = chunks(matrix.inputs()) * 16 * CHUNK;
    let mut packed = vec![0i8; matrix_bytes(matrix.outputs(), matrix.inputs())];
    let threads = if packed.len() > 1 << 20 { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { 1 };
    let tiles = matrix.outputs().div_ceil(16);
    let share = tiles.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, out) in packed.chunks_mut(share * tile_bytes).enumerate() {
            let mut work = move || {
                let mut levels = vec![0i8; matrix.inputs()];
                for (i, out) in out.chunks_mut(tile_bytes).enumerate() {
                    pack_tile(matrix, part * share + i, &mut levels, out);
                }
            };
            if threads == 1 {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    packed
}

/// An adapter's A: `[rank / 8][input / 64][rank % 8][input % 64]`.
pub(crate) fn pack_narrow(matrix: &RowMatrix) -> Vec<i8> {
    let chunks = chunks(matrix.inputs());
    let mut packed = vec![0i8; matrix.outputs().div_ceil(8) * chunks * 8 * CHUNK];
    for rank in 0..matrix.outputs() {
        for (chunk, values) in matrix.row(rank).chunks(CHUNK).enumerate() {
            let at = ((rank / 8 * chunks + chunk) * 8 + rank % 8) * CHUNK;
            packed[at..at + values.len()].copy_from_slice(values);
        }
    }
    packed
}

/// Bytes of a row of an adapter's B.
pub(crate) fn wide_stride(rank: usize) -> usize {
    match rank {
        0..=4 => 4,
        5..=8 => 8,
        _ => rank.next_multiple_of(16),
    }
}

/// An adapter's B, row by row, each padded to [`wide_stride`].
pub(crate) fn pack_wide(matrix: &Matrix) -> Vec<i8> {
    let stride = wide_stride(matrix.inputs());
    let mut packed = vec![0i8; matrix.outputs() * stride];
    for (output, row) in packed.chunks_mut(stride).enumerate() {
        matrix.row(output, &mut row[..matrix.inputs()]);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_lies_where_the_kernels_look() {
        let (outputs, inputs) = (37, 130);
        let mut matrix = Matrix::zeroed(outputs, inputs);
        let value = |n: usize, k: usize| ((n * 31 + k * 7) % 251) as u8 as i8;
        for n in 0..outputs {
            let row: Vec<i8> = (0..inputs).map(|k| value(n, k)).collect();
            matrix.set_row(n, &row, 1.0);
        }
        let packed = pack(&matrix);
        assert_eq!(packed.len(), 3 * 3 * 1024);
        for n in 0..outputs {
            for k in 0..inputs {
                assert_eq!(packed[((n / 16 * 3 + k / 64) * 16 + n % 16) * 64 + k % 64], value(n, k));
            }
        }
    }
}
