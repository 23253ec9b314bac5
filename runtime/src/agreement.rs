//! Two forms of one model on inputs that nobody labelled: how often they answer the same.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::evaluate::cosine;
use crate::graph::{Graph, Node};
use crate::manifest::Task;
use crate::samples::Samples;
use crate::session::Session;
use crate::tensor::Tensor;

/// Inputs that are compared at most.
const MOST_SAMPLES: usize = 1000;

/// Answers of one number agree where they differ by less than this share of the largest one.
const CLOSE: f32 = 0.01;

/// Inputs, and what a model answered to them.
pub(crate) struct Agreement {
    samples: Samples,
    inputs: Vec<BTreeMap<String, Tensor>>,
    /// The f32 outputs, sample by sample.
    answers: Vec<Vec<Answer>>,
}

/// An f32 output as rows of scores.
struct Answer {
    width: usize,
    scores: Vec<f32>,
}

impl Agreement {
    /// What `reference` answers to at most [`MOST_SAMPLES`] of `samples`.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is no sample, or no f32 output; those of running the model.
    pub(crate) fn with(reference: &Session, samples: Samples) -> Result<Agreement> {
        let inputs = samples.inputs(reference, MOST_SAMPLES)?;
        let answers: Vec<Vec<Answer>> =
            inputs.iter().map(|input| answers(reference, input)).collect::<Result<_>>()?;
        if answers.iter().flatten().next().is_none() {
            return Err(Error::Missing {
                what: "example with an f32 output to compare",
                next: "give `--eval` at least one, or leave it out",
            });
        }
        Ok(Agreement { samples, inputs, answers })
    }

    /// The inputs.
    pub(crate) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// For text vectors the mean cosine. Else the share of rows whose largest element is the same one, of the
    /// output where it is least; outputs of one column agree where they differ by less than
    /// [`CLOSE`].
    ///
    /// # Errors
    /// Those of running the model.
    pub(crate) fn score(&self, session: &Session) -> Result<f64> {
        let outputs = self.answers.first().map_or(0, Vec::len);
        // Per output: what agrees, and of how much.
        let mut agreed = vec![(0.0_f64, 0_usize); outputs];
        let mut largest = vec![0.0_f32; outputs];
        for answers in &self.answers {
            for (largest, answer) in largest.iter_mut().zip(answers) {
                *largest = answer.scores.iter().fold(*largest, |most, it| most.max(it.abs()));
            }
        }
        for (input, expected) in self.inputs.iter().zip(&self.answers) {
            for (output, (expected, got)) in
                expected.iter().zip(answers(session, input)?).enumerate()
            {
                let (sum, rows) = &mut agreed[output];
                if session.manifest().task == Task::Embed {
                    *sum += f64::from(cosine(&expected.scores, &got.scores));
                    *rows += 1;
                    continue;
                }
                let same = |(a, b): (&[f32], &[f32])| match a {
                    [a] => (a - b[0]).abs() <= CLOSE * largest[output],
                    _ => best(a) == best(b),
                };
                let pairs = expected.scores.chunks_exact(expected.width);
                let pairs = pairs.zip(got.scores.chunks_exact(expected.width));
                *rows += expected.scores.len() / expected.width;
                *sum += pairs.map(same).filter(|same| *same).count() as f64;
            }
        }
        let shares = agreed.iter().filter(|(_, rows)| *rows > 0);
        Ok(shares.map(|(sum, rows)| sum / *rows as f64).fold(1.0, f64::min))
    }
}

/// The outputs that say something about classes; all f32 outputs where none does. For text vectors the first.
fn answers(session: &Session, input: &BTreeMap<String, Tensor>) -> Result<Vec<Answer>> {
    let graph = session.graph();
    let outputs = session.run(input)?;
    let class = |name: &str| class_axis(graph, name).is_some();
    let some_class = outputs.iter().any(|(name, _)| class(name));
    let first = if session.manifest().task == Task::Embed { 1 } else { outputs.len() };
    let counted = outputs.iter().take(first).filter(|(name, _)| !some_class || class(name));
    Ok(counted.filter_map(|(name, tensor)| rows(tensor, class_axis(graph, name))).collect())
}

/// The axis along which the output `name` is a softmax.
fn class_axis(graph: &Graph, name: &str) -> Option<i64> {
    let node = &graph.nodes[graph.producer(name)?];
    let softmax = |node: &Node| node.is("Softmax") || node.is("LogSoftmax");
    softmax(node).then(|| node.int("axis", -1))
}

/// An f32 tensor as rows along `axis`, the last one where none is given.
fn rows(tensor: &Tensor, axis: Option<i64>) -> Option<Answer> {
    let (values, shape) = (tensor.to_f32()?, tensor.shape());
    let axis = axis.unwrap_or(-1);
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok();
    let width = axis.and_then(|axis| shape.get(axis)).copied().unwrap_or(1).max(1);
    let inner: usize = axis.map_or(1, |axis| shape[axis + 1..].iter().product());
    if inner == 1 {
        return Some(Answer { width, scores: values });
    }
    let blocks = values.chunks_exact((width * inner).max(1));
    let row = |block: &[f32], column| {
        (0..width)
            .map(move |class| class * inner + column)
            .map(|at| block[at])
            .collect::<Vec<f32>>()
    };
    let scores = blocks.flat_map(|block| (0..inner).flat_map(move |column| row(block, column)));
    Some(Answer { width, scores: scores.collect() })
}

/// The place of the largest element; the first of equals.
fn best(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j]).then(j.cmp(&i)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_run_along_the_classes() {
        let maps = Tensor::from_f32(&[1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let answer = rows(&maps, Some(1)).unwrap();
        assert_eq!((answer.width, answer.scores), (2, vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let answer = rows(&maps, None).unwrap();
        assert_eq!((answer.width, answer.scores.len()), (3, 6));
        assert_eq!(rows(&Tensor::from_f32(&[], &[7.0]), None).unwrap().width, 1);
        assert!(rows(&Tensor::from_i64(&[1], &[7]), None).is_none());
    }

    #[test]
    fn the_first_of_equals_is_the_best() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(best(&[f32::NEG_INFINITY]), Some(0));
    }
}
