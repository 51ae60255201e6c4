//! Guesses what an answer says next, so that several tokens can be checked in one step.
//!
//! Guesses come from the client's prediction, from the prompt, and from the answer itself: where its last tokens stood
//! before, what followed then is guessed again. A wrong guess costs rows of a step and changes nothing: the token drawn at
//! a position depends on what stands before it alone, and a guess is kept only if it is that token.

use std::collections::HashMap;

/// Tokens that must agree before what followed them is guessed.
const CONTEXT: usize = 3;
/// Places looked at for one context.
const PLACES: usize = 8;
/// Tokens of context compared to choose among places.
const COMPARED: usize = 24;
/// Guesses to begin with: of a prediction, and of what stood before.
const FIRST_OF_PREDICTION: usize = 16;
const FIRST: usize = 4;
/// After so many failures in a row the pause between guesses no longer grows.
const STRIKES_MAX: u32 = 6;

/// One sequence's source of guesses.
pub(crate) struct Drafter {
    /// The prediction, then prompt and answer as they grow.
    source: Vec<u32>,
    prediction: usize,
    /// Last place each context ends at, and for each place the one before it with the same context.
    last: HashMap<[u32; CONTEXT], u32>,
    before: Vec<u32>,
    /// Where the next guess would be read.
    cursor: Option<usize>,
    /// How many to guess.
    length: usize,
    /// Failures in a row, and tokens to wait before the next guess.
    strikes: u32,
    pause: u32,
    started: bool,
}

const NONE: u32 = u32::MAX;

impl Drafter {
    /// Knows a prediction, which may be empty.
    pub(crate) fn new(prediction: &[u32]) -> Drafter {
        let length = if prediction.is_empty() { FIRST } else { FIRST_OF_PREDICTION };
        Drafter {
            source: prediction.to_vec(),
            prediction: prediction.len(),
            last: HashMap::new(),
            before: Vec::new(),
            cursor: (!prediction.is_empty()).then_some(0),
            length,
            strikes: 0,
            pause: 0,
            started: false,
        }
    }

    /// Guesses up to `most` tokens that follow `tokens`, prompt and answer so far.
    pub(crate) fn draft(&mut self, tokens: &[u32], most: usize) -> &[u32] {
        if !self.started {
            // The prompt is read when the first guess is wanted, not by sequences that never guess.
            self.started = true;
            self.source.extend_from_slice(tokens);
            self.index();
        }
        if self.pause > 0 || most == 0 {
            return &[];
        }
        if self.cursor.is_none() {
            self.cursor = self.look_up();
        }
        let Some(cursor) = self.cursor else { return &[] };
        // What follows the prediction's end is the prompt, which nobody predicted.
        let end = if cursor < self.prediction { self.prediction } else { self.source.len() };
        &self.source[cursor.min(end)..(cursor + self.length.min(most)).min(end)]
    }

    /// Takes in the tokens drawn after `drafted` guesses, of which all but the last were guessed right.
    pub(crate) fn learn(&mut self, drafted: usize, drawn: &[u32]) {
        if !self.started {
            return;
        }
        let right = drawn.len().saturating_sub(1);
        if drafted > 0 {
            self.adapt(drafted, right);
        }
        self.pause = self.pause.saturating_sub(drawn.len() as u32);
        if let Some(cursor) = self.cursor {
            let agrees = self.source.get(cursor + right) == drawn.last();
            let reaches = cursor + drawn.len();
            // One token replaced by another is the commonest edit; if it was that, the rest follows in step.
            let keeps = agrees || (right > 0 && drafted > 0 && cursor < self.prediction);
            self.cursor = keeps.then_some(reaches).filter(|reaches| *reaches != self.prediction);
        }
        self.source.extend_from_slice(drawn);
        self.index();
    }

    fn adapt(&mut self, drafted: usize, right: usize) {
        if right == drafted {
            self.length = (self.length * 2).min(64);
            self.strikes = 0;
        } else if 2 * right >= drafted {
            self.length = right + 1;
            self.strikes = 0;
        } else if right > 0 {
            // More rows wasted than tokens won: fewer at a time, and not at once again.
            self.length = (right + 1).min(self.length / 2).max(2);
            self.pause = (1 << self.strikes) - 1;
        } else {
            self.length = (self.length / 2).max(2);
            self.strikes = (self.strikes + 1).min(STRIKES_MAX);
            self.pause = (1 << self.strikes) - 1;
        }
    }

    /// Notes the places of all contexts but those that nothing follows yet.
    fn index(&mut self) {
        while self.before.len() < self.source.len() {
            let place = self.before.len();
            let context = place.checked_sub(CONTEXT).and_then(|from| self.source.get(from..place));
            let context: Option<[u32; CONTEXT]> = context.and_then(|context| context.try_into().ok());
            let crosses = place > self.prediction && place < self.prediction + CONTEXT;
            let earlier = match context {
                Some(context) if !crosses => self.last.insert(context, place as u32),
                _ => None,
            };
            self.before.push(earlier.unwrap_or(NONE));
        }
    }

    /// The place whose past agrees longest with the end of the source; of equals, the latest.
    fn look_up(&self) -> Option<usize> {
        let end = self.source.len();
        let context: [u32; CONTEXT] = self.source.get(end.checked_sub(CONTEXT)?..)?.try_into().ok()?;
        let mut place = *self.last.get(&context)?;
        let (mut best, mut longest) = (None, 0);
        for _ in 0..PLACES {
            if place == NONE {
                break;
            }
            let at = place as usize;
            let floor = if at > self.prediction { self.prediction } else { 0 };
            let past = self.source[floor..at].iter().rev().zip(self.source[self.prediction..].iter().rev());
            let agrees = past.take(COMPARED).take_while(|(a, b)| a == b).count();
            if agrees > longest && at != self.prediction {
                (best, longest) = (Some(at), agrees);
            }
            place = self.before[at];
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps an answer takes, and how many guesses were wrong.
    fn run(prompt: &[u32], prediction: &[u32], answer: &[u32]) -> (usize, usize) {
        let mut drafter = Drafter::new(prediction);
        let mut tokens = [prompt, &answer[..1]].concat();
        let (mut done, mut steps, mut wrong) = (1, 1, 0);
        while done < answer.len() {
            let most = 63.min(answer.len() - done - 1);
            let guess = drafter.draft(&tokens, most).to_vec();
            let right = guess.iter().zip(&answer[done..]).take_while(|(a, b)| a == b).count();
            let drawn = &answer[done..=done + right];
            drafter.learn(guess.len(), drawn);
            tokens.extend_from_slice(drawn);
            wrong += guess.len() - right;
            done += right + 1;
            steps += 1;
        }
        (steps, wrong)
    }

    fn noise(seed: u32, count: u32) -> Vec<u32> {
        (0..count).map(|i| (i ^ seed).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 12).collect()
    }

    #[test]
    fn a_prediction_with_ten_edits_takes_a_tenth_of_the_steps() {
        let prediction = noise(1, 4000);
        let mut answer = prediction.clone();
        for edit in 0..10 {
            let at = 200 + 350 * edit;
            match edit % 3 {
                0 => answer[at] = 7,
                1 => drop(answer.splice(at..at + 9, noise(edit as u32 + 50, 5))),
                _ => drop(answer.splice(at..at, noise(edit as u32 + 90, 4))),
            }
        }
        let (steps, wrong) = run(&noise(3, 50), &prediction, &answer);
        assert!(steps < answer.len() / 10, "{steps} steps");
        assert!(wrong < answer.len() / 4, "{wrong} wrong");
    }

    #[test]
    fn an_answer_that_repeats_the_prompt_is_guessed_without_a_prediction() {
        let prompt = noise(4, 1000);
        let (steps, _) = run(&prompt, &[], &prompt[300..900]);
        assert!(steps < 60, "{steps} steps");
    }

    #[test]
    fn what_cannot_be_guessed_is_soon_let_alone() {
        // Contexts recur, but what follows never does.
        let answer: Vec<u32> = (0..4000).map(|i| if i % 4 == 3 { 1000 + i } else { i % 4 }).collect();
        let (_, wrong) = run(&[9; 4], &noise(5, 100), &answer);
        assert!(wrong < answer.len() / 10, "{wrong} wrong");
    }
}
