//! What one step works on: a ragged batch of sequences' next tokens, and how its rows are laid out.

use model::Adapter;
use std::ops::Range;

/// Whose logits a segment wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// None: more of the prompt follows.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// Consecutive tokens of one sequence: part of a prompt, or the one token decoded last.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Absolute position of the first.
    pub start: usize,
    /// The sequence's pages, in order of position: page i holds positions 64·i….
    pub pages: &'a [u32],
    /// Added to the base's linear maps.
    pub adapter: Option<&'a Adapter>,
    /// Whose logits are wanted.
    pub wanted: Wanted,
}

/// Rows of the batch that share an adapter.
pub(crate) struct Group<'a> {
    pub(crate) adapter: &'a Adapter,
    pub(crate) rows: Range<usize>,
}

/// The segments laid out as rows, those of one adapter next to each other.
pub(crate) struct Layout<'a> {
    pub(crate) segments: &'a [Segment<'a>],
    /// First row of each segment, by segment.
    pub(crate) first_row: Vec<usize>,
    /// Segment of each row.
    pub(crate) segment_of: Vec<u32>,
    /// Rows that share an adapter; rows of the base alone are in none.
    pub(crate) groups: Vec<Group<'a>>,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(segments: &'a [Segment<'a>]) -> Self {
        let identity = |segment: &Segment<'_>| segment.adapter.map(|adapter| adapter.digest);
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|s| identity(&segments[*s]));
        let mut layout = Layout { segments, first_row: vec![0; segments.len()], segment_of: vec![], groups: vec![] };
        for s in order {
            let segment = &segments[s];
            let start = layout.segment_of.len();
            layout.first_row[s] = start;
            layout.segment_of.extend(std::iter::repeat_n(s as u32, segment.tokens.len()));
            layout.join_group(segment.adapter, start..layout.segment_of.len());
        }
        layout
    }

    fn join_group(&mut self, adapter: Option<&'a Adapter>, rows: Range<usize>) {
        let Some(adapter) = adapter else { return };
        match self.groups.last_mut() {
            Some(group) if group.adapter.digest == adapter.digest => group.rows.end = rows.end,
            _ => self.groups.push(Group { adapter, rows }),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.segment_of.len()
    }

    pub(crate) fn segment(&self, row: usize) -> &'a Segment<'a> {
        &self.segments[self.segment_of[row] as usize]
    }

    pub(crate) fn token(&self, row: usize) -> u32 {
        self.segment(row).tokens[row - self.first_row[self.segment_of[row] as usize]]
    }

    pub(crate) fn position(&self, row: usize) -> usize {
        self.segment(row).start + row - self.first_row[self.segment_of[row] as usize]
    }
}
