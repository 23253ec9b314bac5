//! Rows of token ids, gathered into padded batches of similar length.

use burn::tensor::{Device, Tensor, TensorData};

use crate::features::Tokens;
use crate::interface::{Batched, Dataset};
use crate::seed::Random;
use crate::train::{Mask, Masked};

/// Examples that are asked about at once.
const ASKED: usize = 64;

/// Added to the scores of padding before the softmax; e^-10000 is zero in f32.
pub(crate) const MASKED_SCORE: f32 = -1e4;

/// Tokenized examples: ids from `[CLS]` to `[SEP]`, and the index of the label of each. Rows after
/// the last label have none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Examples {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) labels: Vec<usize>,
}

/// Examples side by side, padded on the right to the longest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    /// Which examples, in order.
    pub(crate) rows: Vec<usize>,
    /// `[rows, tokens]`; padding is id 0, and masked.
    pub(crate) ids: Vec<i64>,
    /// `[rows, tokens]`: 1 for a token, 0 for padding.
    pub(crate) mask: Vec<f32>,
    /// Tokens a row.
    pub(crate) tokens: usize,
}

impl Batch {
    /// `[rows, tokens]`: 1 for a token, 0 for padding.
    pub(crate) fn mask(&self, device: &Device) -> Tensor<2> {
        let shape = [self.rows.len(), self.tokens];
        Tensor::from_data(TensorData::new(self.mask.clone(), shape), device)
    }

    /// `[rows, 1, 1, tokens]`: 0 for a token, a very low score for padding.
    pub(crate) fn bias(&self, device: &Device) -> Tensor<4> {
        let shape = [self.rows.len(), 1, 1, self.tokens];
        (self.mask(device) - 1.0).mul_scalar(-MASKED_SCORE).reshape(shape)
    }
}

impl Batched for Batch {
    fn tokens(&self, device: &Device) -> Option<Tokens> {
        Some(Tokens { mask: self.mask(device), bias: self.bias(device) })
    }

    fn hide(&mut self, share: f64, mask: Mask, random: &mut Random) -> Option<Masked> {
        Some(Masked::hide(self, share, mask, random))
    }
}

impl Examples {
    /// Tokens of all examples together.
    pub(crate) fn tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Every one whose number leaves the remainder `part` when divided by `parts`; those with a label
    /// first, as ever.
    pub(crate) fn shard(&self, part: usize, parts: usize) -> Examples {
        let rows = self.rows.iter().skip(part).step_by(parts).cloned().collect();
        let labels = self.labels.iter().skip(part).step_by(parts).copied().collect();
        Examples { rows, labels }
    }
}

impl Dataset for Examples {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn units(&self) -> usize {
        self.tokens()
    }

    fn batch(&self, rows: &[usize]) -> Batch {
        let tokens = rows.iter().map(|&row| self.rows[row].len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for &row in rows {
            let row = &self.rows[row];
            let padding = tokens - row.len();
            ids.extend(row.iter().map(|&id| i64::from(id)));
            ids.extend(std::iter::repeat_n(0, padding));
            mask.extend(std::iter::repeat_n(1.0, row.len()));
            mask.extend(std::iter::repeat_n(0.0, padding));
        }
        Batch { rows: rows.to_vec(), ids, mask, tokens }
    }

    /// From short to long: the least padding.
    fn in_turn(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| self.rows[row].len());
        order.chunks(ASKED).map(<[usize]>::to_vec).collect()
    }

    /// Neighbours in the order are sorted by length, sixteen batches' worth at a time: little padding,
    /// yet every batch is another draw in every epoch.
    fn shuffled(&self, size: usize, random: &mut Random) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        random.shuffle(&mut order);
        for neighbours in order.chunks_mut(size * 16) {
            neighbours.sort_by_key(|&row| self.rows[row].len());
        }
        let mut batches: Vec<_> = order.chunks(size).map(<[usize]>::to_vec).collect();
        random.shuffle(&mut batches);
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(lengths: &[usize]) -> Examples {
        let rows = lengths.iter().map(|&length| vec![7; length]).collect();
        Examples { rows, labels: vec![0; lengths.len()] }
    }

    #[test]
    fn short_rows_are_padded_and_masked() {
        let batch = examples(&[2, 9, 3]).batch(&[2, 0]);
        assert_eq!(batch.tokens, 3);
        assert_eq!(batch.ids, [7, 7, 7, 7, 7, 0]);
        assert_eq!(batch.mask, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn every_example_is_in_exactly_one_batch() {
        let examples = examples(&[3; 101]);
        let orders = [examples.shuffled(8, &mut Random::new(1, "test", 0)), examples.in_turn()];
        for batches in orders {
            let mut rows: Vec<usize> = batches.concat();
            rows.sort_unstable();
            assert_eq!(rows, (0..101).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_depends_on_the_seed_alone() {
        let examples = examples(&[3; 50]);
        let order = |seed| examples.shuffled(4, &mut Random::new(seed, "test", 0));
        assert_eq!(order(5), order(5));
        assert_ne!(order(5), order(6));
    }
}
