//! What the next step computes: shares of sequences, the pages for them, and who gives way if there are too few.

use super::Core;
use crate::request::Failure;
use crate::schedule::{Share, drafts_each, schedule};
use crate::sequence::Sequence;
use cpu::Hash;
use std::collections::HashSet;

impl Core {
    /// What the step computes: shares of sequences that have the pages for it.
    pub(super) fn plan(&mut self) -> Vec<Share> {
        let pending = self.pending();
        let crowd = self.crowd();
        let decoding = crowd.settled + crowd.young;
        let step_tokens = self.config.step_tokens.min(self.pace.beside(crowd).saturating_add(decoding));
        let shares = schedule(pending.iter().copied(), step_tokens);
        let shares = self.find_pages(shares);
        // A stream by itself guesses as much as it likes; beside others guesses may take what prompts may.
        self.guess(&shares, if decoding > 1 { step_tokens } else { self.config.step_tokens });
        shares
    }

    /// Pending tokens of each, after taking up what is found computed. Who would compute a page that somebody before it is
    /// computing has none: it waits for that one.
    fn pending(&mut self) -> Vec<usize> {
        let mut being_computed: HashSet<Hash> = HashSet::new();
        let mut pending = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            let mut key = None;
            while let Some(number) = self.config.prefix_cache.then(|| sequence.next_page()).flatten() {
                let next = sequence.key(number, &self.base);
                let Some((page, leaves)) = self.memory.find(&next) else {
                    key = Some(next);
                    break;
                };
                self.counters.cached_tokens += sequence.adopt(page, leaves) as u64;
            }
            let waits = key.is_some_and(|key| !being_computed.insert(key));
            pending.push(if waits { 0 } else { sequence.pending() });
        }
        pending
    }

    /// Gives each share its pages, seniors first; juniors give way.
    fn find_pages(&mut self, mut shares: Vec<Share>) -> Vec<Share> {
        shares.sort_by_key(|share| share.sequence);
        let mut gone = vec![false; self.running.len()];
        for share in &shares {
            while !gone[share.sequence] && self.running[share.sequence].pages_lacking(share.tokens) > 0 {
                if let Some(page) = self.memory.take(&mut *self.device) {
                    self.running[share.sequence].add_page(page);
                    continue;
                }
                let victim = (share.sequence + 1..gone.len()).rev().find(|i| !gone[*i]).unwrap_or(share.sequence);
                if victim == share.sequence && gone.iter().filter(|gone| !**gone).count() == 1 {
                    self.running[victim].fail(Failure::NoRoom);
                }
                gone[victim] = true;
                self.preempt(victim);
            }
        }
        let kept: Vec<Share> = shares.into_iter().filter(|share| !gone[share.sequence]).collect();
        self.remove_gone(&gone, kept)
    }

    /// A sequence gives up its pages and its adapter, to be computed again.
    fn preempt(&mut self, victim: usize) {
        let sequence = &mut self.running[victim];
        sequence.note_preemption();
        sequence.set_adapter(None);
        for (number, page) in sequence.give_up_pages().into_iter().enumerate().rev() {
            self.memory.put_down(number, page);
        }
        if let Some(adapter) = &sequence.request().adapter {
            self.memory.tiers.claim(adapter);
            self.memory.put_down_adapter(adapter, &mut *self.device);
        }
        self.counters.preemptions += 1;
    }

    /// Those who gave way go back to the queue; shares are numbered anew.
    fn remove_gone(&mut self, gone: &[bool], mut shares: Vec<Share>) -> Vec<Share> {
        if !gone.contains(&true) {
            return shares;
        }
        for share in &mut shares {
            share.sequence -= gone[..share.sequence].iter().filter(|gone| **gone).count();
        }
        let mut number = 0;
        let back: Vec<Sequence> = self
            .running
            .extract_if(.., |_| {
                number += 1;
                gone[number - 1]
            })
            .collect();
        for mut sequence in back {
            if let (true, Some(adapter)) = (sequence.has_ended(), &sequence.request().adapter) {
                self.memory.tiers.unclaim(adapter);
            }
            if !sequence.has_ended() {
                sequence.wait_from(self.steps, sequence.class());
                self.queue.push_front(sequence);
            }
        }
        shares
    }

    /// Lets those that decode guess ahead with what the step has left.
    fn guess(&mut self, shares: &[Share], step_tokens: usize) {
        let decoding: Vec<usize> =
            shares.iter().map(|share| share.sequence).filter(|i| self.running[*i].is_decoding()).collect();
        let tokens = shares.iter().map(|share| share.tokens).sum();
        let each = drafts_each(decoding.len(), tokens, step_tokens, self.config.draft_tokens);
        if each == 0 {
            return;
        }
        for i in decoding {
            // A guess may take a page, but never somebody else's.
            let roomy = self.memory.pages_obtainable() > 2 * self.running.len();
            if roomy
                && self.running[i].pages_lacking(1 + each) == 1
                && let Some(page) = self.memory.take(&mut *self.device)
            {
                self.running[i].add_page(page);
            }
            self.running[i].guess(each);
        }
    }
}
