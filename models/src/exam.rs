//! What a training is measured on after each pass.

use dram_runtime::evaluate::spearman;

use crate::answers::Answers;
use crate::batches::Examples;
use crate::interface::Dataset;

/// Examples that nobody learns from, and how answers about them are graded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exam<E = Examples> {
    /// Each example has a label: accuracy.
    Labels(E),
    /// Examples `i` and `i + scores.len()` are a pair, alike to the degree `scores[i]`: Spearman's
    /// correlation of that with the cosine of their embeddings.
    Pairs {
        /// First sentences, then second ones.
        examples: E,
        /// One a pair.
        scores: Vec<f32>,
    },
}

/// The figure that an exam gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Share of the examples that were labelled rightly, in `[0, 1]`.
    Accuracy,
    /// Rank correlation, in `[-1, 1]`.
    Spearman,
}

impl Measure {
    /// The lower-case name used in files, reports and messages.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Accuracy => "accuracy",
            Measure::Spearman => "spearman",
        }
    }
}

impl<E: Dataset> Exam<E> {
    /// What is asked about.
    pub(crate) fn examples(&self) -> &E {
        match self {
            Exam::Labels(examples) | Exam::Pairs { examples, .. } => examples,
        }
    }

    /// What [`Exam::grade`] is.
    pub(crate) fn measure(&self) -> Measure {
        match self {
            Exam::Labels(_) => Measure::Accuracy,
            Exam::Pairs { .. } => Measure::Spearman,
        }
    }

    /// How good `answers` about the examples are, 1 at best.
    ///
    /// # Panics
    /// Where they lack what is asked for.
    pub(crate) fn grade(&self, answers: &Answers) -> f64 {
        match self {
            Exam::Labels(examples) => answers.accuracy(examples.labels()).accuracy,
            Exam::Pairs { scores, .. } => spearman(&cosines(answers, scores.len()), scores),
        }
    }
}

/// The cosine of each of `pairs`.
fn cosines(answers: &Answers, pairs: usize) -> Vec<f32> {
    let embeddings = answers.embeddings.as_ref().expect("pairs are compared by embeddings");
    let width = embeddings.shape[1];
    let (first, second) = embeddings.values.split_at(pairs * width);
    let cosine = |(a, b): (&[f32], &[f32])| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
    };
    first.chunks(width).zip(second.chunks(width)).map(cosine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Array;

    #[test]
    fn pairs_are_graded_by_the_order_of_their_cosines() {
        let examples = Examples { rows: vec![vec![1]; 6], labels: Vec::new() };
        let exam = Exam::Pairs { examples, scores: vec![5.0, 1.0, 3.0] };
        // Cosines 1, 0 and 0.6, whatever the lengths.
        let values = vec![1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 3.0, 4.0];
        let embeddings = Some(Array { shape: vec![6, 2], values });
        assert_eq!(exam.grade(&Answers { logits: None, embeddings }), 1.0);
    }
}
