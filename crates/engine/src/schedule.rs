//! Which tokens the next step computes.
//!
//! Every sequence that decodes gets its one token, so that prompts never stall answers. What is left of the step goes to
//! prompts in the order of their arrival, cut into chunks: a long prompt takes several steps, during which others decode.
//! What is left then may be guessed ahead, the same for each that decodes.

/// How much of one sequence a step computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    /// Index of the sequence.
    pub(crate) sequence: usize,
    /// Its next tokens.
    pub(crate) tokens: usize,
}

/// Shares of a step of at most `step_tokens` tokens, for sequences with so many tokens pending, oldest first. Who has none
/// pending is passed over.
pub(crate) fn schedule(pending: impl Iterator<Item = usize> + Clone, step_tokens: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = pending
        .clone()
        .enumerate()
        .filter(|(_, pending)| *pending == 1)
        .map(|(sequence, _)| Share { sequence, tokens: 1 })
        .collect();
    let mut left = step_tokens.saturating_sub(shares.len());
    for (sequence, pending) in pending.enumerate().filter(|(_, pending)| *pending > 1) {
        let tokens = pending.min(left);
        if tokens == 0 {
            break;
        }
        shares.push(Share { sequence, tokens });
        left -= tokens;
    }
    shares
}

/// Tokens each of `guessing` sequences may guess ahead in a step that has `tokens` already: a share of what the step has
/// left, and of `draft_tokens` less one for each, so that a full batch, whose rows are dear, guesses nothing.
pub(crate) fn drafts_each(guessing: usize, tokens: usize, step_tokens: usize, draft_tokens: usize) -> usize {
    let left = step_tokens.saturating_sub(tokens).min(draft_tokens.saturating_sub(guessing));
    left.checked_div(guessing).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_goes_first_and_prompts_share_the_rest_in_order() {
        let share = |sequence, tokens| Share { sequence, tokens };
        let got = schedule([1, 100, 0, 1, 30, 50].into_iter(), 128);
        assert_eq!(got, [share(0, 1), share(3, 1), share(1, 100), share(4, 26)]);
    }

    #[test]
    fn decoding_never_waits_even_if_the_step_is_full() {
        assert_eq!(schedule([1, 1, 1, 9].into_iter(), 2).len(), 3);
    }

    #[test]
    fn the_more_decode_the_less_is_guessed() {
        let each = |guessing| drafts_each(guessing, guessing, 256, 64);
        assert_eq!([each(0), each(1), each(4), each(32), each(64), each(100)], [0, 63, 15, 1, 0, 0]);
        assert_eq!(drafts_each(1, 250, 256, 64), 6);
    }
}
