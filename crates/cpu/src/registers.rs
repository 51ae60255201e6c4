//! The rows of floats between operations.

use exact::linear::RowsMut;
use model::{Mlp, Register, Shape};

/// One buffer per register of the plan, a row per token of the batch.
pub(crate) struct Registers {
    widths: [usize; COUNT],
    values: [Vec<f32>; COUNT],
}

const COUNT: usize = Register::COUNT;

impl Registers {
    pub(crate) fn new(shape: &Shape) -> Self {
        let gated = |mlp: &Mlp| if let Mlp::Gated { width } = mlp { *width } else { 0 };
        let inner = shape.mlps.iter().map(gated).max().unwrap_or(0);
        let (queries, keys) = (shape.heads * shape.head_dim, shape.key_heads * shape.head_dim);
        let widths = [
            shape.hidden,
            shape.hidden,
            queries,
            keys,
            keys,
            queries,
            // Gate and Up stay in the cache until they are multiplied.
            0,
            0,
            inner,
            shape.hidden,
            shape.vocabulary,
        ];
        Registers { widths, values: Default::default() }
    }

    /// Makes room for `rows` rows, of which `logit_rows` have logits.
    pub(crate) fn reserve(&mut self, rows: usize, logit_rows: usize) {
        for (i, (values, width)) in self.values.iter_mut().zip(self.widths).enumerate() {
            let rows = if i == Register::Logits.index() { logit_rows } else { rows };
            if values.len() < rows * width {
                *values = vec![0.0; rows * width];
            }
        }
    }

    /// Views of all registers, for one section of work.
    pub(crate) fn view(&mut self) -> Views<'_> {
        let mut values = self.values.iter_mut().zip(self.widths);
        let mut next = |width: &usize| match values.next() {
            Some((values, _)) => RowsMut::new(values, *width),
            None => RowsMut::new(&mut [], 0),
        };
        Views { rows: std::array::from_fn(|i| next(&self.widths[i])), widths: self.widths }
    }

    /// The logits of row `row`.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        let at = Register::Logits.index();
        &self.values[at][row * self.widths[at]..][..self.widths[at]]
    }
}

/// All registers, shared by the threads of one section: each row, or each column of linear maps, belongs to one unit.
#[derive(Clone, Copy)]
pub(crate) struct Views<'a> {
    rows: [RowsMut<'a>; COUNT],
    widths: [usize; COUNT],
}

impl<'a> Views<'a> {
    pub(crate) fn width(&self, register: Register) -> usize {
        self.widths[register.index()]
    }

    pub(crate) fn all(&self, register: Register) -> RowsMut<'a> {
        self.rows[register.index()]
    }

    pub(crate) fn row(&self, register: Register, row: usize) -> &'a [f32] {
        self.all(register).part(row, 0, self.width(register))
    }

    pub(crate) fn row_mut(&self, register: Register, row: usize) -> &'a mut [f32] {
        self.all(register).part_mut(row, 0, self.width(register))
    }
}
