//! A step larger than one pass takes becomes several passes: the arithmetic is exact, so no bit depends on where it is cut.

use cpu::{Segment, Wanted};
use std::ops::Range;

/// Some tokens of a segment in one pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: usize,
    pub(crate) tokens: Range<usize>,
    pub(crate) wanted: Wanted,
}

/// Passes of at most `rows` tokens and `logit_rows` rows of logits each, in an order that keeps every segment's own.
pub(crate) fn passes(segments: &[Segment<'_>], rows: usize, logit_rows: usize) -> Vec<Vec<Piece>> {
    let (mut passes, mut pass) = (Vec::new(), Vec::new());
    let (mut rows_left, mut logits_left) = (rows, logit_rows);
    for (s, segment) in segments.iter().enumerate() {
        let mut done = 0;
        while done < segment.tokens.len() {
            let left = segment.tokens.len() - done;
            let count = match segment.wanted {
                Wanted::None => left.min(rows_left),
                Wanted::All => left.min(rows_left).min(logits_left),
                Wanted::Last if left <= rows_left && logits_left == 0 => left - 1,
                Wanted::Last => left.min(rows_left),
            };
            if count == 0 {
                passes.push(std::mem::take(&mut pass));
                (rows_left, logits_left) = (rows, logit_rows);
                continue;
            }
            let ends = done + count == segment.tokens.len();
            let wanted = if segment.wanted == Wanted::Last && !ends { Wanted::None } else { segment.wanted };
            rows_left -= count;
            logits_left -= match wanted {
                Wanted::None => 0,
                Wanted::Last => 1,
                Wanted::All => count,
            };
            pass.push(Piece { segment: s, tokens: done..done + count, wanted });
            done += count;
        }
    }
    if !pass.is_empty() {
        passes.push(pass);
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_keep_within_their_bounds_and_lose_no_token() {
        let tokens = [0u32; 50];
        let segment =
            |count: usize, wanted| Segment { tokens: &tokens[..count], start: 0, pages: &[], adapter: None, wanted };
        let segments = [
            segment(5, Wanted::Last),
            segment(50, Wanted::All),
            segment(1, Wanted::None),
            segment(20, Wanted::Last),
            segment(1, Wanted::Last),
        ];
        for (rows, logit_rows) in [(1, 1), (7, 3), (16, 1), (16, 16), (100, 100), (100, 2)] {
            let mut next = [0; 5];
            for pass in passes(&segments, rows, logit_rows) {
                assert!(pass.iter().map(|piece| piece.tokens.len()).sum::<usize>() <= rows);
                let logits = |piece: &Piece| match piece.wanted {
                    Wanted::None => 0,
                    Wanted::Last => 1,
                    Wanted::All => piece.tokens.len(),
                };
                assert!(pass.iter().map(logits).sum::<usize>() <= logit_rows);
                for piece in pass {
                    assert_eq!(piece.tokens.start, next[piece.segment]);
                    assert!(!piece.tokens.is_empty());
                    next[piece.segment] = piece.tokens.end;
                    let segment = &segments[piece.segment];
                    let last = piece.tokens.end == segment.tokens.len();
                    assert_eq!(piece.wanted == Wanted::Last, segment.wanted == Wanted::Last && last);
                }
            }
            assert_eq!(next, segments.map(|segment| segment.tokens.len()));
        }
        assert_eq!(passes(&segments, 100, 100).len(), 1);
    }
}
