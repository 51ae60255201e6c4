//! How a step's value is cut into rows.

use std::ops::Range;

/// `elements` numbers or small records of `element_bytes` each, `per_row` to a row; the last row may be shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// In all.
    pub elements: usize,
    /// In a row.
    pub per_row: usize,
    /// Bytes of each.
    pub element_bytes: usize,
}

impl Layout {
    /// One record.
    pub fn record(element_bytes: usize) -> Layout {
        Layout { elements: 1, per_row: 1, element_bytes }
    }

    /// So many rows of one record each.
    pub fn records(elements: usize, element_bytes: usize) -> Layout {
        Layout { elements, per_row: 1, element_bytes }
    }

    /// Floats, so many to a row.
    pub fn floats(elements: usize, per_row: usize) -> Layout {
        Layout { elements, per_row, element_bytes: 4 }
    }

    /// Rows there are.
    pub fn rows(&self) -> usize {
        self.elements.div_ceil(self.per_row)
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.elements * self.element_bytes
    }

    /// Elements of a row.
    pub fn elements_of(&self, row: usize) -> Range<usize> {
        row * self.per_row..((row + 1) * self.per_row).min(self.elements)
    }

    /// Where consecutive rows lie among the bytes of all.
    pub fn bytes_of(&self, rows: Range<usize>) -> Range<usize> {
        let end = (rows.end * self.per_row).min(self.elements);
        rows.start * self.per_row * self.element_bytes..end * self.element_bytes
    }

    /// The rows that hold these elements.
    pub fn rows_of(&self, elements: &Range<usize>) -> Range<usize> {
        elements.start / self.per_row..elements.end.div_ceil(self.per_row)
    }
}
