//! Recordings with varied copies and mixtures, made when a batch needs them.

use std::rc::Rc;

use crate::interface::{Batched, Dataset};
use crate::seed::Random;
use crate::signals::recipe::{Copies, Data};
use crate::signals::sources::Recordings;
use crate::weights::Array;

/// Examples that are asked about at once.
const ASKED: usize = 128;

/// Examples in the order of their rows: the recordings, `copies.labelled` varied copies of them all,
/// which keep their labels, and `copies.mixed` mixtures of each with another, which have none.
///
/// What a row holds depends on the seed and on its number alone, so that a teacher's answer stays true.
pub(crate) struct Signals {
    recordings: Rc<Recordings>,
    labels: Vec<usize>,
    data: Data,
    copies: Copies,
    seed: u64,
}

impl Signals {
    /// `recordings` and their copies, varied as `data` says.
    pub(crate) fn new(
        recordings: &Rc<Recordings>,
        data: &Data,
        copies: Copies,
        seed: u64,
    ) -> Signals {
        let times = 1 + copies.labelled;
        Signals {
            labels: recordings.labels.repeat(times),
            recordings: Rc::clone(recordings),
            data: data.clone(),
            copies,
            seed,
        }
    }

    /// How many recordings they come from.
    pub(crate) fn recordings(&self) -> usize {
        self.recordings.labels.len()
    }

    fn row(&self, row: usize) -> Vec<f32> {
        let count = self.recordings.labels.len();
        let (copy, source) = (row / count, row % count);
        if copy == 0 {
            return self.recording(source).to_vec();
        }
        let mut random = Random::new(self.seed, "copy", row);
        let varied = self.data.vary(self.recording(source), &mut random);
        if copy <= self.copies.labelled {
            return varied;
        }
        // Zhang et al. 2018 (mixup), with the teacher's answer in place of mixed labels.
        let other = self.recording(random.below(count));
        let other = self.data.vary(other, &mut random);
        let share = random.uniform() as f32;
        varied.iter().zip(other).map(|(a, b)| share * a + (1.0 - share) * b).collect()
    }

    fn recording(&self, source: usize) -> &[f32] {
        let Array { shape, values } = &self.recordings.signals;
        let size: usize = shape[1..].iter().product();
        &values[source * size..(source + 1) * size]
    }
}

impl Dataset for Signals {
    type Batch = Array;

    fn len(&self) -> usize {
        self.recordings() * (1 + self.copies.labelled + self.copies.mixed)
    }

    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn units(&self) -> usize {
        self.len()
    }

    /// `[rows, ...]`, the shape of an example behind the rows.
    fn batch(&self, rows: &[usize]) -> Array {
        let shape = [&[rows.len()], &self.recordings.signals.shape[1..]].concat();
        Array { shape, values: rows.iter().flat_map(|&row| self.row(row)).collect() }
    }

    fn in_turn(&self) -> Vec<Vec<usize>> {
        let rows: Vec<usize> = (0..self.len()).collect();
        rows.chunks(ASKED).map(<[usize]>::to_vec).collect()
    }

    /// A last batch of one would have no variance to be normalized by: it joins the one before.
    fn shuffled(&self, size: usize, random: &mut Random) -> Vec<Vec<usize>> {
        let mut rows: Vec<usize> = (0..self.len()).collect();
        random.shuffle(&mut rows);
        let mut batches: Vec<Vec<usize>> = rows.chunks(size).map(<[usize]>::to_vec).collect();
        if let Some(alone) = batches.pop_if(|last| last.len() == 1) {
            match batches.last_mut() {
                Some(last) => last.extend(alone),
                None => batches.push(alone),
            }
        }
        batches
    }
}

impl Batched for Array {}
