//! A proof that a receipt is in the log, drawn: from the receipt's own hash up to the root that the log's head signs.

use crate::hex;
use maud::{Markup, html};
use tlog::{Hash, node_hash};

const WIDTH: f64 = 560.0;
const STEP: f64 = 62.0;
const BOX: (f64, f64) = (150.0, 26.0);

/// One step up: what was computed so far, and what the proof gives beside it.
struct Step {
    own: Hash,
    given: Hash,
    /// Whether what is given stands on the left.
    left: bool,
}

/// Steps from a leaf to the root, and the root (RFC 9162, 2.1.3.2).
fn steps(leaf: Hash, index: u64, size: u64, hashes: &[Hash]) -> (Vec<Step>, Hash) {
    let (mut node, mut last, mut own) = (index, size.saturating_sub(1), leaf);
    let mut steps = Vec::new();
    for given in hashes {
        let left = node % 2 == 1 || node == last;
        steps.push(Step { own, given: *given, left });
        own = if left { node_hash(given, &own) } else { node_hash(&own, given) };
        while left && node.is_multiple_of(2) && node != 0 {
            (node, last) = (node / 2, last / 2);
        }
        (node, last) = (node / 2, last / 2);
    }
    (steps, own)
}

/// The drawing. Gives also whether the hashes lead to `root`.
pub(crate) fn tree(leaf: Hash, index: u64, size: u64, hashes: &[Hash], root: &Hash) -> (Markup, bool) {
    let (steps, reached) = steps(leaf, index, size, hashes);
    let height = STEP * steps.len() as f64 + 60.0;
    let (left, right, middle) = (WIDTH * 0.27, WIDTH * 0.73, WIDTH * 0.5);
    let at = |level: usize| height - 40.0 - STEP * level as f64;
    let node = |x: f64, y: f64, hash: &Hash, class: &str, words: &str| {
        html! {
            g class=(class) {
                rect x=(x - BOX.0 / 2.0) y=(y - BOX.1 / 2.0) width=(BOX.0) height=(BOX.1) rx="5" {}
                text x=(x) y=(y + 4.0) { (&hex::encode(hash)[..12]) "…" }
                title { (words) " " (hex::encode(hash)) }
            }
        }
    };
    let own_x = |step: Option<&Step>| step.map_or(middle, |step| if step.left { right } else { left });
    let drawn = html! {
        div.scroll tabindex="0" role="region" aria-label="Drawing of the proof" {
            svg.tree viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
                aria-label={ "Entry " (index) " of " (size) ": " (steps.len()) " hashes beside it lead to the root that the log's head signs." } {
                @for (level, step) in steps.iter().enumerate() {
                    @let (own, given) = if step.left { (right, left) } else { (left, right) };
                    @let above = own_x(steps.get(level + 1));
                    line x1=(own) y1=(at(level)) x2=(above) y2=(at(level + 1)) {}
                    line x1=(given) y1=(at(level)) x2=(above) y2=(at(level + 1)) {}
                    (node(own, at(level), &step.own, "own", if level == 0 { "this receipt:" } else { "computed:" }))
                    (node(given, at(level), &step.given, "given", "given by the proof:"))
                }
                (node(middle, at(steps.len()), &reached, "own", "root:"))
            }
        }
    };
    (drawn, reached == *root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::{Memory, inclusion_proof, leaf_hash, root};

    #[test]
    fn every_proof_of_every_small_tree_leads_to_its_root() {
        let mut leaves = Memory::default();
        for size in 1..40u64 {
            leaves.push(leaf_hash(&size.to_le_bytes()));
            let root = root(&leaves, size).unwrap();
            for index in 0..size {
                let hashes = inclusion_proof(&leaves, index, size).unwrap();
                let leaf = leaf_hash(&(index + 1).to_le_bytes());
                assert!(tree(leaf, index, size, &hashes, &root).1, "{index} of {size}");
                assert!(!tree([1; 32], index, size, &hashes, &root).1);
            }
        }
    }
}
