//! A step's rows and tables, as the kernels read them.

use crate::arguments::{AdapterTile, Header, QueryTile, Row};
use cpu::{PAGE, Segment, Wanted};
use model::Shape;
use std::ops::Range;

/// Query rows of an attention tile, and rows of an adapter's tile.
pub(crate) const TILE: usize = 8;

/// How query heads that share a key head go into tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads per key head.
    pub(crate) group: usize,
    /// Of them, those of one tile.
    pub(crate) tile_heads: usize,
    /// Tiles for one group.
    pub(crate) splits: usize,
    /// Tokens of a tile.
    pub(crate) tokens: usize,
}

impl Heads {
    pub(crate) fn new(shape: &Shape) -> Self {
        let group = shape.heads / shape.key_heads;
        let tile_heads = group.min(TILE);
        Heads { group, tile_heads, splits: group.div_ceil(tile_heads), tokens: TILE / tile_heads }
    }
}

/// What one step works on.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) header: Header,
    pub(crate) rows: Vec<Row>,
    /// Of segments of one token.
    pub(crate) few_tiles: Vec<QueryTile>,
    /// Of longer segments.
    pub(crate) many_tiles: Vec<QueryTile>,
    /// Over rows; `sites` is filled in from the adapters' tables.
    pub(crate) tiles: Vec<AdapterTile>,
    /// Over the rows whose logits are wanted.
    pub(crate) head_tiles: Vec<AdapterTile>,
    pub(crate) head_rows: Vec<u32>,
    pub(crate) page_ids: Vec<u32>,
    /// By segment: first row, and its part of `head_rows`.
    pub(crate) first_row: Vec<usize>,
    pub(crate) head_part: Vec<Range<usize>>,
    /// The longest past of any segment, its own tokens included.
    pub(crate) positions: usize,
    /// Whether every segment has one token.
    pub(crate) decoding: bool,
}

impl Batch {
    /// `tables` are the adapters' tables by segment, 0 for none.
    pub(crate) fn new(segments: &[Segment<'_>], tables: &[u64], heads: Heads) -> Batch {
        let mut batch = Batch { decoding: true, ..Batch::default() };
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|s| tables[*s]);
        batch.first_row = vec![0; segments.len()];
        batch.head_part = vec![0..0; segments.len()];
        let mut last_table = 0;
        for s in order {
            let (segment, first, first_head) = (&segments[s], batch.rows.len(), batch.head_rows.len());
            let (count, end) = (segment.tokens.len(), segment.start + segment.tokens.len());
            let pages = batch.page_ids.len() as u32;
            batch.page_ids.extend_from_slice(&segment.pages[..end.div_ceil(PAGE)]);
            batch.rows.extend(segment.tokens.iter().enumerate().map(|(i, token)| Row {
                token: *token,
                position: (segment.start + i) as u32,
                segment: s as u32,
                pages,
            }));
            let tiles = if count == 1 { &mut batch.few_tiles } else { &mut batch.many_tiles };
            tiles.extend((0..count).step_by(heads.tokens).map(|token| QueryTile {
                row: (first + token) as u32,
                tokens: heads.tokens.min(count - token) as u32,
            }));
            match segment.wanted {
                Wanted::None => {}
                Wanted::Last => batch.head_rows.push((first + count - 1) as u32),
                Wanted::All => batch.head_rows.extend(first as u32..(first + count) as u32),
            }
            batch.first_row[s] = first;
            batch.head_part[s] = first_head..batch.head_rows.len();
            batch.positions = batch.positions.max(end);
            batch.decoding &= count == 1;
            if tables[s] != 0 {
                let joins = tables[s] == last_table;
                cover(&mut batch.tiles, tables[s], first..batch.rows.len(), joins);
                cover(&mut batch.head_tiles, tables[s], first_head..batch.head_rows.len(), joins);
            }
            last_table = tables[s];
        }
        batch.header = Header {
            rows: batch.rows.len() as u32,
            head_rows: batch.head_rows.len() as u32,
            tiles: batch.tiles.len() as u32,
            head_tiles: batch.head_tiles.len() as u32,
            few_tiles: batch.few_tiles.len() as u32,
            many_tiles: batch.many_tiles.len() as u32,
            ..Header::default()
        };
        batch
    }
}

/// Adds tiles that cover `rows`; the first may go on where the last tile of the same adapter ended.
fn cover(tiles: &mut Vec<AdapterTile>, sites: u64, mut rows: Range<usize>, joins: bool) {
    if let Some(last) = tiles.last_mut().filter(|last| joins && last.sites == sites) {
        let more = (TILE - last.rows as usize).min(rows.len());
        last.rows += more as u32;
        rows.start += more;
    }
    for first in rows.clone().step_by(TILE) {
        let count = TILE.min(rows.end - first);
        tiles.push(AdapterTile { sites, row: first as u32, rows: count as u32 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_rows_of_one_adapter_alone() {
        let segment =
            |tokens: &'static [u32]| Segment { tokens, start: 0, pages: &[0], adapter: None, wanted: Wanted::Last };
        let segments = [segment(&[1; 5]), segment(&[2; 9]), segment(&[3; 3]), segment(&[4; 4])];
        let heads = Heads { group: 3, tile_heads: 3, splits: 1, tokens: 2 };
        let batch = Batch::new(&segments, &[7, 0, 9, 7], heads);
        let tiles: Vec<_> = batch.tiles.iter().map(|t| (t.sites, t.row, t.rows)).collect();
        assert_eq!(tiles, [(7, 9, 8), (7, 17, 1), (9, 18, 3)]);
        let heads: Vec<_> = batch.head_tiles.iter().map(|t| (t.sites, t.row, t.rows)).collect();
        assert_eq!(heads, [(7, 1, 2), (9, 3, 1)]);
        assert_eq!(batch.head_rows, [8, 13, 17, 20]);
        assert_eq!((batch.few_tiles.len(), batch.many_tiles.len()), (0, 3 + 5 + 2 + 2));
        assert!(!batch.decoding);
    }
}
