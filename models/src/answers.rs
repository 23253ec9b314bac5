//! What a network says about examples, and how right it is.

use std::ops::ControlFlow;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::interface::{Dataset, Mode, Student};
use crate::weights::{self, Array};

/// What a model says about every one of some examples.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Answers {
    /// `[examples, labels]`; none where it knows no labels.
    pub(crate) logits: Option<Array>,
    /// `[examples, width]`; none where it gives no sentence embeddings.
    pub(crate) embeddings: Option<Array>,
}

/// How right a set of answers is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of the examples whose highest logit is their label's, in `[0, 1]`.
    pub accuracy: f64,
    /// Mean over the labels of the harmonic mean of precision and recall, in `[0, 1]`; a label
    /// that is neither given nor due counts as 0.
    pub macro_f1: f64,
}

/// Hears of each part of the questions that is done, of how many, and may say stop.
pub(crate) type Each<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// The answers of `network`, which must be on `device`, about all of `examples`, computed in `mode`; `None`
/// where `each`, called with the number of batches done and of all, says stop.
pub(crate) fn ask<S: Student>(
    network: &S,
    device: &Device,
    examples: &S::Examples,
    mode: Mode,
    each: &mut Each,
) -> Option<Answers> {
    let batches = examples.in_turn();
    let (mut logits, mut embeddings) = (Vec::new(), Vec::new());
    for (done, rows) in batches.iter().enumerate() {
        let said = network.forward(&examples.batch(rows), device, mode);
        logits.extend(said.logits.into_iter().next_back().map(array));
        embeddings.push(array(said.embeddings));
        if each(done + 1, batches.len()).is_break() {
            return None;
        }
    }
    let order = batches.concat();
    let logits = (!logits.is_empty()).then(|| restore(&logits, &order));
    Some(Answers { logits, embeddings: Some(restore(&embeddings, &order)) })
}

impl Answers {
    /// How right they are, where example `row` has the label `labels[row]`.
    ///
    /// # Panics
    /// Where they hold no logits.
    pub(crate) fn accuracy(&self, labels: &[usize]) -> Accuracy {
        let logits = self.logits.as_ref().expect("labels are asked of who knows them");
        let classes = logits.shape[1];
        let predicted: Vec<usize> = logits.values.chunks(classes).map(highest).collect();
        accuracy(&predicted, labels, classes)
    }

    /// Those about the examples `rows`, in that order.
    pub(crate) fn at(&self, rows: &[usize]) -> Answers {
        let part = |array: &Option<Array>| array.as_ref().map(|array| array.rows(rows));
        Answers { logits: part(&self.logits), embeddings: part(&self.embeddings) }
    }

    /// The tensors of these answers under `prefix`, for a file.
    pub(crate) fn tensors<'a>(
        &'a self,
        prefix: &str,
    ) -> Vec<(String, safetensors::tensor::TensorView<'a>)> {
        let parts = [("embeddings", &self.embeddings), ("logits", &self.logits)];
        let parts = parts.into_iter().filter_map(|(name, array)| Some((name, array.as_ref()?)));
        parts.map(|(name, array)| (format!("{prefix}{name}"), weights::view(array))).collect()
    }

    /// The inverse of [`Answers::tensors`]; `None` where `bytes` are no such file.
    pub(crate) fn from_file(bytes: &[u8], prefix: &str) -> Option<Answers> {
        let mut arrays = weights::arrays(bytes, prefix).ok()?;
        let answers =
            Answers { logits: arrays.remove("logits"), embeddings: arrays.remove("embeddings") };
        (answers != Answers::default()).then_some(answers)
    }
}

/// How right `predicted` is, where `labels` are due, of so many `classes`.
pub(crate) fn accuracy(predicted: &[usize], labels: &[usize], classes: usize) -> Accuracy {
    let (mut right, mut given, mut due) = (vec![0; classes], vec![0; classes], vec![0; classes]);
    for (&predicted, &label) in predicted.iter().zip(labels) {
        given[predicted] += 1;
        due[label] += 1;
        right[label] += usize::from(predicted == label);
    }
    let f1 = |class: usize| {
        let both: usize = given[class] + due[class];
        if both == 0 { 0.0 } else { 2.0 * right[class] as f64 / both as f64 }
    };
    Accuracy {
        accuracy: right.iter().sum::<usize>() as f64 / labels.len().max(1) as f64,
        macro_f1: (0..classes).map(f1).sum::<f64>() / classes.max(1) as f64,
    }
}

/// The position of the highest value; the first of several.
pub(crate) fn highest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

pub(crate) fn array(tensor: burn::tensor::Tensor<2>) -> Array {
    let shape = tensor.dims().to_vec();
    Array { shape, values: tensor.into_data().try_to_vec().expect("answers are f32") }
}

/// Rows that came in `order` put back into the order of the examples.
fn restore(parts: &[Array], order: &[usize]) -> Array {
    let width = parts.first().map_or(0, |part| part.shape[1]);
    let mut values = vec![0.0; order.len() * width];
    let rows = parts.iter().flat_map(|part| part.values.chunks(width));
    for (row, &place) in rows.zip(order) {
        values[place * width..(place + 1) * width].copy_from_slice(row);
    }
    Array { shape: vec![order.len(), width], values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macro_f1_weighs_labels_equally() {
        // Label 0: precision 2/3, recall 1, F1 4/5. Label 1: precision 1, recall 1/2, F1 2/3.
        // Label 2: never given nor due.
        let figures = accuracy(&[0, 0, 0, 1], &[0, 0, 1, 1], 3);
        assert!((figures.accuracy - 0.75).abs() < 1e-12);
        assert!((figures.macro_f1 - (4.0 / 5.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn rows_return_to_their_places() {
        let part = |values: &[f32]| Array { shape: vec![values.len(), 1], values: values.to_vec() };
        let restored = restore(&[part(&[2.0, 0.0]), part(&[1.0])], &[2, 0, 1]);
        assert_eq!(restored.values, [0.0, 1.0, 2.0]);
    }
}
