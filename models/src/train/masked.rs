//! Words hidden from a batch, to be guessed (Devlin et al. 2019, section 3.1).

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::batches::Batch;
use crate::seed::Random;

/// Of the chosen words, this share becomes the mask token, half of the rest another word.
const MASKED: f64 = 0.8;
const EXCHANGED: f64 = 0.1;

/// What stands for a hidden word, and what else may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    /// The id of the mask token.
    pub(crate) id: u32,
    /// How many ids there are.
    pub(crate) words: usize,
}

/// Which tokens of a batch were hidden, and what they were.
pub(crate) struct Masked {
    /// Places in `[rows * tokens]`.
    places: Vec<i64>,
    words: Vec<i64>,
}

impl Masked {
    /// Hides a `share` of the words of `batch`, and at least one: all tokens but the first and the last of
    /// a row may be chosen.
    pub(crate) fn hide(batch: &mut Batch, share: f64, mask: Mask, random: &mut Random) -> Masked {
        let inner = |place: &usize| {
            let column = place % batch.tokens;
            let kept = |place: usize| batch.mask.get(place).is_some_and(|&mask| mask > 0.0);
            column > 0 && kept(*place) && column + 1 < batch.tokens && kept(place + 1)
        };
        let candidates: Vec<usize> = (0..batch.ids.len()).filter(inner).collect();
        let mut chosen: Vec<usize> =
            candidates.iter().copied().filter(|_| random.uniform() < share).collect();
        if chosen.is_empty() && !candidates.is_empty() {
            chosen.push(candidates[random.below(candidates.len())]);
        }
        let words = chosen.iter().map(|&place| batch.ids[place]).collect();
        for &place in &chosen {
            match random.uniform() {
                chance if chance < MASKED => batch.ids[place] = i64::from(mask.id),
                chance if chance < MASKED + EXCHANGED => {
                    batch.ids[place] = random.below(mask.words) as i64;
                }
                _ => {}
            }
        }
        Masked { places: chosen.into_iter().map(|place| place as i64).collect(), words }
    }

    /// Whether there was a word to hide.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The rows of `hidden` `[rows * tokens, width]` whose words are hidden.
    pub(super) fn of(&self, hidden: Tensor<2>, device: &Device) -> Tensor<2> {
        let places = TensorData::new(self.places.clone(), [self.places.len()]);
        hidden.select(0, Tensor::<1, Int>::from_data(places, device))
    }

    /// `[hidden words, 1]`: what they were.
    pub(super) fn words(&self, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(self.words.clone(), [self.words.len(), 1]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::Examples;
    use crate::interface::Dataset;

    const MASK: Mask = Mask { id: 4, words: 50 };

    #[test]
    fn words_are_hidden_as_often_as_stated_and_never_the_frame() {
        let rows: Vec<Vec<u32>> =
            (0..200).map(|n| [vec![2; 12 + n % 9], vec![3]].concat()).collect();
        let examples = Examples { rows, labels: Vec::new() };
        let mut batch = examples.batch(&(0..200).collect::<Vec<_>>());
        let whole = batch.clone();
        let masked = Masked::hide(&mut batch, 0.15, MASK, &mut Random::new(1, "test", 0));
        let candidates: usize = examples.rows.iter().map(|row| row.len() - 2).sum();
        let share = masked.places.len() as f64 / candidates as f64;
        // About 3,000 words: four standard errors of 0.15.
        assert!((share - 0.15).abs() < 0.027, "{share}");
        let seen = batch.ids.iter().filter(|&&id| id == 4).count() as f64;
        assert!((seen / masked.places.len() as f64 - MASKED).abs() < 0.08);
        for (place, (now, before)) in batch.ids.iter().zip(&whole.ids).enumerate() {
            let hidden = masked.places.binary_search(&(place as i64)).is_ok();
            assert!(hidden || now == before, "place {place}");
            assert!(!hidden || *before == 2, "a frame or padding was hidden at {place}");
        }
    }

    #[test]
    fn at_least_one_word_is_hidden_and_none_where_there_is_none() {
        let examples = Examples { rows: vec![vec![2, 9, 3], vec![2, 3]], labels: Vec::new() };
        let mut random = Random::new(1, "test", 0);
        let masked = Masked::hide(&mut examples.batch(&[0]), 0.01, MASK, &mut random);
        assert_eq!((masked.places.len(), &masked.words[..]), (1, &[9][..]));
        assert!(Masked::hide(&mut examples.batch(&[1]), 0.9, MASK, &mut random).is_empty());
    }
}
