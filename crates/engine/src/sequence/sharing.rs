//! Pages that sequences share: what they are found by, and who goes on with whose.

use super::Sequence;
use crate::prefix::Keys;
use cpu::{Hash, PAGE};

impl Sequence {
    /// The key of a page, all of whose tokens are known.
    pub(crate) fn key(&mut self, number: usize, base: &Hash) -> Hash {
        let digest = self.request.adapter.as_ref().and_then(|adapter| adapter.digest());
        let keys = self.keys.get_or_insert_with(|| Keys::new(base, digest.as_ref(), &self.request.tenant));
        keys.of(number, &self.tokens[..self.tokens.len() - self.drafted])
    }

    /// The page to look for among those kept: the next one, if it would be full and is not the last.
    pub(crate) fn next_page(&self) -> Option<usize> {
        let number = self.computed / PAGE;
        let whole = self.computed.is_multiple_of(PAGE) && self.pages.len() == number;
        (whole && (number + 1) * PAGE < self.tokens.len() - self.drafted).then_some(number)
    }

    /// Goes on with a page that was found computed. Gives how many tokens that spares for the first time.
    pub(crate) fn adopt(&mut self, page: u32, leaves: &[Hash]) -> usize {
        let new = PAGE - self.known(PAGE);
        self.pages.push(page);
        self.published = self.pages.len();
        self.leaves.extend_from_slice(&leaves[PAGE - new..]);
        self.computed += PAGE;
        self.effort.cached_tokens += new.min(self.request.prompt.len());
        new
    }

    /// The next full page that others cannot find yet: its number, page, the page before it, and its leaves.
    pub(crate) fn unpublished(&self) -> Option<(usize, u32, Option<u32>, &[Hash])> {
        let number = self.published;
        if (number + 1) * PAGE > self.computed {
            return None;
        }
        let parent = number.checked_sub(1).map(|before| self.pages[before]);
        Some((number, self.pages[number], parent, &self.leaves[number * PAGE..(number + 1) * PAGE]))
    }

    /// Others can find the page now; `page` holds the same as the own one.
    pub(crate) fn published(&mut self, page: u32) {
        self.pages[self.published] = page;
        self.published += 1;
    }
}
