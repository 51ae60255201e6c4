//! Which tokens the next step computes.
//!
//! Every sequence that decodes gets its one token, so that prompts never stall answers. What is left of the step goes to
//! prompts in the order of their arrival, cut into chunks: a long prompt takes several steps, during which others decode.

/// How much of one sequence a step computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    /// Index of the sequence.
    pub(crate) sequence: usize,
    /// Its next tokens.
    pub(crate) tokens: usize,
}

/// Shares of a step of at most `step_tokens` tokens, for sequences with so many tokens pending, oldest first.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_goes_first_and_prompts_share_the_rest_in_order() {
        let share = |sequence, tokens| Share { sequence, tokens };
        let got = schedule([1, 100, 1, 30, 50].into_iter(), 128);
        assert_eq!(got, [share(0, 1), share(2, 1), share(1, 100), share(3, 26)]);
    }

    #[test]
    fn decoding_never_waits_even_if_the_step_is_full() {
        assert_eq!(schedule([1, 1, 1, 9].into_iter(), 2).len(), 3);
    }
}
