//! Where keys and values live: pages of 64 positions for all layers and heads of one sequence.

use exact::attention::BlockLayout;
use exact::memory::AlignedBytes;
use exact::shared::Shared;
use model::Shape;

/// Positions in a page.
pub const PAGE: usize = exact::attention::POSITIONS;

/// The pages of one device. A page's memory is taken when it is first used and kept for the next sequence.
pub struct Pages {
    layout: BlockLayout,
    key_heads: usize,
    page_bytes: usize,
    pages: Vec<AlignedBytes>,
}

impl Pages {
    /// Room for `count` pages of a model of this shape.
    pub fn new(shape: &Shape, count: usize) -> Pages {
        let layout = BlockLayout::new(shape.head_dim);
        Pages {
            layout,
            key_heads: shape.key_heads,
            page_bytes: Pages::page_bytes(shape),
            pages: vec![AlignedBytes::default(); count],
        }
    }

    /// Bytes one page takes.
    pub fn page_bytes(shape: &Shape) -> usize {
        BlockLayout::new(shape.head_dim).bytes() * shape.key_heads * shape.layers
    }

    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.pages.len()
    }

    /// Bytes of memory taken so far.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(AlignedBytes::len).sum()
    }

    /// The keys and values of one position in one layer, as a layer digest hashes them (docs/receipts.md, section 3): each
    /// key head's levels and scale, then each value head's. The position must have been computed.
    pub fn row(&self, page: u32, layer: usize, slot: usize) -> Vec<u8> {
        let bytes = self.pages[page as usize].as_bytes();
        let mut levels = vec![0i8; self.layout.head_dim()];
        let mut row = Vec::with_capacity(2 * self.key_heads * (levels.len() + 4));
        for is_key in [true, false] {
            for head in 0..self.key_heads {
                let start = (layer * self.key_heads + head) * self.layout.bytes();
                let block = &bytes[start..start + self.layout.bytes()];
                let read = if is_key { BlockLayout::read_key } else { BlockLayout::read_value };
                let scale = read(&self.layout, block, slot, &mut levels);
                row.extend_from_slice(bytemuck::cast_slice(&levels));
                row.extend_from_slice(&scale.to_le_bytes());
            }
        }
        row
    }

    /// Gives a page's memory back. What was in it is gone; it may be used again.
    pub fn release(&mut self, page: u32) {
        self.pages[page as usize] = AlignedBytes::default();
    }

    /// A view of the named pages that several threads may use during one step.
    pub(crate) fn view<'a>(&'a mut self, used: impl Iterator<Item = u32>) -> PagesView<'a> {
        for page in used {
            self.pages[page as usize].grow(self.page_bytes);
        }
        let bytes = self.pages.iter_mut().map(|page| Shared::new(page.as_bytes_mut())).collect();
        PagesView { layout: self.layout, key_heads: self.key_heads, bytes }
    }
}

/// The pages during one step; see [`Shared`] for the contract.
pub(crate) struct PagesView<'a> {
    pub(crate) layout: BlockLayout,
    key_heads: usize,
    bytes: Vec<Shared<'a, u8>>,
}

impl<'a> PagesView<'a> {
    fn offset(&self, layer: usize, head: usize) -> usize {
        (layer * self.key_heads + head) * self.layout.bytes()
    }

    /// One head's block of one layer, to read.
    pub(crate) fn block(&self, page: u32, layer: usize, head: usize) -> &'a [u8] {
        self.bytes[page as usize].part(self.offset(layer, head), self.layout.bytes())
    }

    /// Writes a quantised key.
    pub(crate) fn write_key(&self, page: u32, layer: usize, head: usize, slot: usize, levels: &[i8], scale: f32) {
        self.layout.write_key(self.bytes[page as usize], self.offset(layer, head), slot, levels, scale);
    }

    /// Writes a quantised value.
    pub(crate) fn write_value(&self, page: u32, layer: usize, head: usize, slot: usize, levels: &[i8], scale: f32) {
        self.layout.write_value(self.bytes[page as usize], self.offset(layer, head), slot, levels, scale);
    }
}
