//! Decisions: one vote a window turned into an answer that does not flicker.

use core::fmt;
use heapless::HistoryBuf;

/// What one window was taken for: the index of a label, and how probable it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// Index into the labels of the model.
    pub label: usize,
    /// In `0..=1`. A NaN counts as less than any threshold.
    pub probability: f32,
}

/// When a label becomes the decision, and when it stops to be: it needs `votes_needed` of the last
/// windows either way, each at a probability that is higher to enter than to stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// How many of the last `VOTES` votes must name a label; more than half of `VOTES`, so that no
    /// two labels have enough.
    pub votes_needed: usize,
    /// A vote counts for a label that is not the decision from this probability on.
    pub enter_probability: f32,
    /// A vote counts for the label that is the decision from this probability on; at most
    /// `enter_probability`.
    pub keep_probability: f32,
}

/// A rule that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RuleError {
    /// `votes_needed` is not in `least..=most`.
    VotesNeeded {
        /// What was asked for.
        votes_needed: usize,
        /// The least majority.
        least: usize,
        /// The number of votes looked at.
        most: usize,
    },
    /// Not `0 <= keep_probability <= enter_probability <= 1`.
    Probabilities {
        /// What was asked for.
        enter: f32,
        /// What was asked for.
        keep: f32,
    },
}

/// The answer, from the last `VOTES` votes.
#[derive(Debug, Clone)]
pub struct Decision<const VOTES: usize> {
    rule: Rule,
    votes: HistoryBuf<Vote, VOTES>,
    label: Option<usize>,
}

/// The answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was; `None` where undecided.
    pub from: Option<usize>,
    /// What it is; `None` where undecided.
    pub to: Option<usize>,
}

impl Vote {
    /// A vote for the greatest of `probabilities`, the first of equals. `None` where there is none or
    /// where one of them is NaN: nothing can be said then.
    ///
    /// ```
    /// use dram_targets::decision::Vote;
    /// assert_eq!(Vote::of(&[0.2, 0.7, 0.1]), Some(Vote { label: 1, probability: 0.7 }));
    /// assert_eq!(Vote::of(&[0.5, f32::NAN]), None);
    /// ```
    pub fn of(probabilities: &[f32]) -> Option<Self> {
        let mut votes = probabilities.iter().enumerate();
        let (label, &probability) = votes.next()?;
        let first = Self { label, probability };
        let best = votes.fold(first, |best, (label, &probability)| {
            if probability > best.probability { Self { label, probability } } else { best }
        });
        (!probabilities.iter().any(|probability| probability.is_nan())).then_some(best)
    }
}

impl<const VOTES: usize> Decision<VOTES> {
    /// Undecided, with no votes yet. `VOTES` of zero does not compile.
    ///
    /// # Errors
    /// Where `rule` contradicts itself or `VOTES`.
    pub fn new(rule: Rule) -> Result<Self, RuleError> {
        const { assert!(VOTES > 0, "a decision needs votes") };
        let Rule { votes_needed, enter_probability: enter, keep_probability: keep } = rule;
        let least = VOTES / 2 + 1;
        if !(least..=VOTES).contains(&votes_needed) {
            return Err(RuleError::VotesNeeded { votes_needed, least, most: VOTES });
        }
        if !(0.0 <= keep && keep <= enter && enter <= 1.0) {
            return Err(RuleError::Probabilities { enter, keep });
        }
        Ok(Self { rule, votes: HistoryBuf::new(), label: None })
    }

    /// Takes the vote of one more window; gives the change where the answer is now another.
    pub fn push(&mut self, vote: Vote) -> Option<Change> {
        self.votes.write(vote);
        let from = self.label;
        // Only the label of this vote can have gained, and only it or the present one can hold.
        self.label = if self.has_enough(vote.label) {
            Some(vote.label)
        } else {
            from.filter(|&label| self.has_enough(label))
        };
        let to = self.label;
        (from != to).then_some(Change { from, to })
    }

    /// The answer: a label, or `None` while undecided.
    pub fn label(&self) -> Option<usize> {
        self.label
    }

    /// Undecided again, all votes forgotten.
    pub fn reset(&mut self) {
        self.votes.clear();
        self.label = None;
    }

    fn has_enough(&self, label: usize) -> bool {
        let threshold = if self.label == Some(label) {
            self.rule.keep_probability
        } else {
            self.rule.enter_probability
        };
        let counts = |vote: &&Vote| vote.label == label && vote.probability >= threshold;
        self.votes.as_slice().iter().filter(counts).count() >= self.rule.votes_needed
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VotesNeeded { votes_needed, least, most } => {
                write!(f, "`votes_needed` is {votes_needed}, expected {least} to {most}")
            }
            Self::Probabilities { enter, keep } => write!(
                f,
                "`enter_probability` is {enter} and `keep_probability` {keep}, \
                 expected 0 <= keep <= enter <= 1"
            ),
        }
    }
}

impl core::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::ToString, vec::Vec};

    const RULE: Rule = Rule { votes_needed: 3, enter_probability: 0.8, keep_probability: 0.4 };

    /// The answers after each vote; a vote is a label and a probability in percent.
    fn answers<const VOTES: usize>(rule: Rule, votes: &[(usize, u8)]) -> Vec<Option<usize>> {
        let mut decision = Decision::<VOTES>::new(rule).unwrap();
        votes
            .iter()
            .map(|&(label, percent)| {
                let from = decision.label();
                let probability = f32::from(percent) / 100.0;
                let change = decision.push(Vote { label, probability });
                let to = decision.label();
                assert_eq!(change, (from != to).then_some(Change { from, to }), "{votes:?}");
                to
            })
            .collect()
    }

    #[test]
    fn a_label_needs_enough_of_the_last_votes_at_enough_probability() {
        type Case = (&'static [(usize, u8)], &'static [Option<usize>]);
        const NO: Option<usize> = None;
        const A: Option<usize> = Some(0);
        const B: Option<usize> = Some(1);
        let cases: &[Case] = &[
            // Three of five, not necessarily in a row.
            (&[(0, 90), (0, 90), (0, 90)], &[NO, NO, A]),
            (&[(0, 90), (1, 90), (0, 90), (2, 90), (0, 90)], &[NO, NO, NO, NO, A]),
            // Exactly at the threshold counts, below it does not.
            (&[(0, 80), (0, 80), (0, 80)], &[NO, NO, A]),
            (&[(0, 79), (0, 90), (0, 90), (0, 90)], &[NO, NO, NO, A]),
            // One or two strays do not move it; the third makes the other label win, at once.
            (&[(0, 90), (0, 90), (0, 90), (1, 90), (1, 90), (1, 90)], &[NO, NO, A, A, A, B]),
            // Staying is easier than entering ...
            (
                &[(0, 90), (0, 90), (0, 90), (0, 40), (0, 40), (0, 40), (0, 40)],
                &[NO, NO, A, A, A, A, A],
            ),
            // ... but not below `keep_probability`: two of five are left at the sixth vote.
            (&[(0, 90), (0, 90), (0, 90), (0, 39), (0, 39), (0, 39)], &[NO, NO, A, A, A, NO]),
            // Undecided between two, and back in only at the higher threshold.
            (
                &[(0, 90), (0, 90), (0, 90), (1, 50), (1, 50), (1, 50), (0, 50), (0, 50), (0, 50)],
                &[NO, NO, A, A, A, NO, NO, NO, NO],
            ),
        ];
        for (votes, expected) in cases {
            assert_eq!(answers::<5>(RULE, votes), *expected, "{votes:?}");
        }
    }

    #[test]
    fn one_vote_of_one_follows_every_window() {
        let rule = Rule { votes_needed: 1, enter_probability: 0.5, keep_probability: 0.5 };
        let votes = [(3, 60), (4, 60), (4, 40), (4, 60)];
        assert_eq!(answers::<1>(rule, &votes), [Some(3), Some(4), None, Some(4)]);
    }

    #[test]
    fn a_nan_counts_for_nobody() {
        let rule = Rule { votes_needed: 1, enter_probability: 0.0, keep_probability: 0.0 };
        let mut decision = Decision::<1>::new(rule).unwrap();
        assert_eq!(decision.push(Vote { label: 0, probability: f32::NAN }), None);
        assert!(decision.push(Vote { label: 0, probability: 0.0 }).is_some());
    }

    #[test]
    fn reset_forgets_votes_and_answer() {
        let mut decision = Decision::<5>::new(RULE).unwrap();
        let vote = Vote { label: 7, probability: 1.0 };
        for _ in 0..3 {
            decision.push(vote);
        }
        assert_eq!(decision.label(), Some(7));
        decision.reset();
        assert_eq!(decision.label(), None);
        assert_eq!((decision.push(vote), decision.push(vote)), (None, None));
        assert_eq!(decision.push(vote), Some(Change { from: None, to: Some(7) }));
    }

    #[test]
    fn the_greatest_probability_votes_and_a_nan_silences() {
        type Case = (&'static [f32], Option<(usize, f32)>);
        let cases: &[Case] = &[
            (&[], None),
            (&[0.3], Some((0, 0.3))),
            (&[0.1, 0.6, 0.3], Some((1, 0.6))),
            (&[0.4, 0.2, 0.4], Some((0, 0.4))),
            (&[f32::NAN, 0.9], None),
            (&[0.9, f32::NAN], None),
        ];
        for (probabilities, expected) in cases {
            let expected = expected.map(|(label, probability)| Vote { label, probability });
            assert_eq!(Vote::of(probabilities), expected, "{probabilities:?}");
        }
    }

    #[test]
    fn rules_that_contradict_themselves_are_refused() {
        for votes_needed in [0, 2, 6] {
            let rule = Rule { votes_needed, ..RULE };
            let error = Decision::<5>::new(rule).unwrap_err();
            assert_eq!(
                error.to_string(),
                std::format!("`votes_needed` is {votes_needed}, expected 3 to 5")
            );
        }
        for (enter, keep) in [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (f32::NAN, 0.1), (0.5, f32::NAN)]
        {
            let rule = Rule { enter_probability: enter, keep_probability: keep, ..RULE };
            let error = Decision::<5>::new(rule).unwrap_err();
            assert!(matches!(error, RuleError::Probabilities { .. }), "{enter}, {keep}");
        }
    }
}
