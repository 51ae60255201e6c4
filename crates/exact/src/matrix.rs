//! int8 weights in the two layouts the product kernels read.

use crate::kernels::PANEL_COLUMNS;
use crate::memory::AlignedBytes;
use crate::quantise::{NotFinite, quantise_weights};
use crate::{Isa, kernels};

/// Output columns in a block of [`Matrix`].
pub const BLOCK: usize = 16;
/// Bytes of a block that [`Matrix::fetch_first`] asks for: about as far as products of few rows ask ahead.
const FIRST_BYTES: usize = 3072;

/// Weights of a linear map, one scale per output. Packed as `[output / 16][input / 4][output % 16][input % 4]`:
/// 64 consecutive bytes are sixteen outputs' weights for four inputs, which is one VNNI operand and one row of an AMX
/// tile. Inputs are padded with zeros to a multiple of four, outputs to sixteen.
#[derive(Clone, Default)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    packed: AlignedBytes,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl Matrix {
    /// A matrix of zeros, to be filled row by row.
    pub fn zeroed(outputs: usize, inputs: usize) -> Self {
        assert!(inputs <= crate::INPUTS_MAX, "more inputs than 32-bit sums can hold exactly");
        let padded = outputs.next_multiple_of(BLOCK);
        Matrix {
            outputs,
            inputs,
            packed: AlignedBytes::zeroed(padded * inputs.next_multiple_of(4)),
            scales: vec![0.0; padded],
            offsets: vec![0; padded],
        }
    }

    /// Output rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs per output.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Blocks of sixteen outputs.
    pub fn blocks(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// Bytes its weights, scales and offsets take in memory.
    pub fn bytes(&self) -> usize {
        self.packed.len() + self.scales.len() * 8
    }

    /// One scale per output.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.outputs]
    }

    /// Sets one output's integers and scale.
    pub fn set_row(&mut self, output: usize, levels: &[i8], scale: f32) {
        assert!(output < self.outputs && levels.len() == self.inputs);
        let stride = self.block_stride();
        let start = output / BLOCK * stride + output % BLOCK * 4;
        let packed: &mut [i8] = bytemuck::cast_slice_mut(self.packed.as_bytes_mut());
        for (group, four) in levels.chunks(4).enumerate() {
            packed[start + group * 64..][..four.len()].copy_from_slice(four);
        }
        self.scales[output] = scale;
        self.offsets[output] = kernels::offset_of(levels);
    }

    /// Quantises one output's float weights (specification, section 1).
    pub fn quantise_row(&mut self, isa: Isa, output: usize, weights: &[f32]) -> Result<(), NotFinite> {
        let mut levels = vec![0i8; self.inputs];
        let scale = quantise_weights(isa, weights, &mut levels)?;
        self.set_row(output, &levels, scale);
        Ok(())
    }

    /// Copies one output's integers out.
    pub fn row(&self, output: usize, levels: &mut [i8]) {
        assert!(output < self.outputs && levels.len() == self.inputs);
        let start = output / BLOCK * self.block_stride() + output % BLOCK * 4;
        let packed: &[i8] = bytemuck::cast_slice(self.packed.as_bytes());
        for (group, four) in levels.chunks_mut(4).enumerate() {
            four.copy_from_slice(&packed[start + group * 64..][..four.len()]);
        }
    }

    /// The packed bytes, as a file may keep them.
    pub fn packed(&self) -> &[u8] {
        self.packed.as_bytes()
    }

    /// A matrix from packed bytes and scales that [`Matrix::packed`] and [`Matrix::scales`] gave; `fill` writes the
    /// bytes into the buffer it is handed.
    pub fn from_packed<E>(
        outputs: usize,
        inputs: usize,
        scales: &[f32],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut matrix = Matrix::zeroed(outputs, inputs);
        fill(matrix.packed.as_bytes_mut())?;
        matrix.scales[..outputs].copy_from_slice(scales);
        matrix.set_offsets();
        Ok(matrix)
    }

    /// Asks memory for the weights of `blocks`, and their scales, which will be needed soon.
    pub fn fetch(&self, blocks: std::ops::Range<usize>) {
        let stride = self.block_stride();
        let blocks = blocks.start.min(self.blocks())..blocks.end.min(self.blocks());
        kernels::fetch(bytemuck::cast_slice(&self.packed.as_bytes()[blocks.start * stride..blocks.end * stride]));
        kernels::fetch(bytemuck::cast_slice(&self.scales[blocks.start * BLOCK..blocks.end * BLOCK]));
    }

    /// Asks memory for the beginnings of the blocks that are multiplied together first when `block` comes, as a product asks for
    /// the rest itself.
    pub fn fetch_first(&self, block: usize) {
        let (stride, together) = (self.block_stride(), PANEL_COLUMNS / BLOCK);
        for block in block.min(self.blocks())..(block + together).min(self.blocks()) {
            let packed: &[i8] = bytemuck::cast_slice(&self.packed.as_bytes()[block * stride..(block + 1) * stride]);
            kernels::fetch(&packed[..stride.min(FIRST_BYTES)]);
        }
    }

    fn set_offsets(&mut self) {
        let stride = self.block_stride();
        let packed: &[i8] = bytemuck::cast_slice(self.packed.as_bytes());
        for block in 0..self.outputs.div_ceil(BLOCK) {
            kernels::column_sums(&packed[block * stride..][..stride], &mut self.offsets[block * BLOCK..][..BLOCK]);
        }
    }

    pub(crate) fn block_stride(&self) -> usize {
        self.inputs.next_multiple_of(4) * BLOCK
    }

    /// Scales padded to whole blocks.
    pub(crate) fn scales_padded(&self) -> &[f32] {
        &self.scales
    }

    /// 128 times the sum of each output's weights: what the 128 added to every input contributes.
    pub(crate) fn offsets(&self) -> &[i32] {
        &self.offsets
    }
}

/// Weights of a map with few outputs (an adapter's A), kept row by row, inputs padded to 64: no output is padded,
/// whatever the rank.
#[derive(Clone, Default)]
pub struct RowMatrix {
    outputs: usize,
    inputs: usize,
    rows: AlignedBytes,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl RowMatrix {
    /// A matrix of zeros, to be filled row by row.
    pub fn zeroed(outputs: usize, inputs: usize) -> Self {
        assert!(inputs <= crate::INPUTS_MAX, "more inputs than 32-bit sums can hold exactly");
        RowMatrix {
            outputs,
            inputs,
            rows: AlignedBytes::zeroed(outputs * inputs.next_multiple_of(64)),
            scales: vec![0.0; outputs],
            offsets: vec![0; outputs],
        }
    }

    /// Output rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs per output.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes its weights, scales and offsets take in memory.
    pub fn bytes(&self) -> usize {
        self.rows.len() + self.scales.len() * 8
    }

    /// One scale per output.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Sets one output's integers and scale.
    pub fn set_row(&mut self, output: usize, levels: &[i8], scale: f32) {
        assert!(levels.len() == self.inputs);
        let stride = self.stride();
        let rows: &mut [i8] = bytemuck::cast_slice_mut(self.rows.as_bytes_mut());
        rows[output * stride..][..levels.len()].copy_from_slice(levels);
        self.scales[output] = scale;
        self.offsets[output] = kernels::offset_of(levels);
    }

    /// Quantises one output's float weights (specification, section 1).
    pub fn quantise_row(&mut self, isa: Isa, output: usize, weights: &[f32]) -> Result<(), NotFinite> {
        let mut levels = vec![0i8; self.inputs];
        let scale = quantise_weights(isa, weights, &mut levels)?;
        self.set_row(output, &levels, scale);
        Ok(())
    }

    /// One output's integers.
    pub fn row(&self, output: usize) -> &[i8] {
        &bytemuck::cast_slice(self.rows.as_bytes())[output * self.stride()..][..self.inputs]
    }

    /// The integers of all outputs, padded, as a file may keep them.
    pub fn packed(&self) -> &[u8] {
        self.rows.as_bytes()
    }

    /// A matrix from the bytes and scales that [`RowMatrix::packed`] and [`RowMatrix::scales`] gave; `fill` writes the
    /// bytes into the buffer it is handed.
    pub fn from_packed<E>(
        outputs: usize,
        inputs: usize,
        scales: &[f32],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut matrix = RowMatrix::zeroed(outputs, inputs);
        fill(matrix.rows.as_bytes_mut())?;
        matrix.scales.copy_from_slice(scales);
        for output in 0..outputs {
            matrix.offsets[output] = kernels::offset_of(matrix.row(output));
        }
        Ok(matrix)
    }

    pub(crate) fn stride(&self) -> usize {
        self.inputs.next_multiple_of(64)
    }

    pub(crate) fn bytes_all(&self) -> &[i8] {
        bytemuck::cast_slice(self.rows.as_bytes())
    }

    pub(crate) fn offsets(&self) -> &[i32] {
        &self.offsets
    }
}
