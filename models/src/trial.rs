//! What a sentence encoder is worth beyond the pairs that chose it: finding an utterance of the same
//! intent, and a linear classifier on its embeddings.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Serialize;

use crate::answers::{array, highest};
use crate::weights::Array;

/// Steps over all examples at once that the probe is fitted in: more change its accuracy by less than a
/// tenth of a point.
const STEPS: usize = 120;

/// The rate of those steps, falling to zero as a cosine.
const RATE: f64 = 0.05;

/// Queries compared with everything at once.
const BLOCK: usize = 256;

/// Figures of a sentence encoder on labelled texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tried {
    /// Share of the texts whose nearest training text by cosine has the same label, in `[0, 1]`.
    pub recall_at_1: f64,
    /// Accuracy of a linear classifier fitted to the training texts' embeddings, in `[0, 1]`.
    pub linear_probe: f64,
}

/// Tries embeddings: `train` and `validation` are `[examples, width]`, each with a label.
pub(crate) fn try_out(
    train: (&Array, &[usize]),
    validation: (&Array, &[usize]),
    classes: usize,
) -> Tried {
    let [train, validation] = [train, validation].map(|(array, labels)| (unit(array), labels));
    Tried {
        recall_at_1: recall(&train, &validation),
        linear_probe: probe(&train, &validation, classes),
    }
}

/// Every row at length 1, on the plain CPU device.
fn unit(array: &Array) -> Tensor<2> {
    let data = TensorData::new(array.values.clone(), array.shape.clone());
    crate::losses::unit(Tensor::from_data(data, &Device::flex()))
}

fn recall(train: &(Tensor<2>, &[usize]), validation: &(Tensor<2>, &[usize])) -> f64 {
    let (queries, labels) = validation;
    let places = train.0.clone().swap_dims(0, 1);
    let mut right = 0;
    for (block, labels) in labels.chunks(BLOCK).enumerate() {
        let queries = queries.clone().narrow(0, block * BLOCK, labels.len());
        let cosines = array(queries.matmul(places.clone()));
        let nearest = cosines.values.chunks(cosines.shape[1]).map(|row| train.1[highest(row)]);
        right += nearest.zip(labels).filter(|(found, label)| found == *label).count();
    }
    right as f64 / labels.len().max(1) as f64
}

/// Multinomial logistic regression from zero, so that nothing about it is random.
fn probe(train: &(Tensor<2>, &[usize]), validation: &(Tensor<2>, &[usize]), classes: usize) -> f64 {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::from_inner(train.0.clone());
    let [rows, width] = x.dims();
    let labels: Vec<i64> = train.1.iter().map(|&label| label as i64).collect();
    let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [rows, 1]), &device);
    let mut linear = LinearConfig::new(width, classes)
        .with_initializer(burn::nn::Initializer::Zeros)
        .init(&device);
    let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).init();
    for step in 0..STEPS {
        // Embeddings of length 1 give logits too small to be sure of anything.
        let logits = linear.forward(x.clone()).mul_scalar(10.0);
        let loss = log_softmax(logits, 1).gather(1, labels.clone()).mean().neg();
        let gradients = GradientsParams::from_grads(loss.backward(), &linear);
        let share = step as f64 / STEPS as f64;
        let rate = RATE * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        linear = optimizer.step(rate, linear, gradients);
    }
    let linear: Linear = linear.valid();
    let logits = array(linear.forward(validation.0.clone()));
    let predicted = logits.values.chunks(classes).map(highest);
    let right = predicted.zip(validation.1).filter(|(found, label)| found == *label).count();
    right as f64 / validation.1.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_lines_are_found() {
        // Label 0 lies near the first axis, label 1 near the second; lengths do not matter.
        let train = Array { shape: vec![4, 2], values: vec![1., 0., 5., 1., 0., 2., 1., 9.] };
        let held = Array { shape: vec![3, 2], values: vec![3., 1., 0.1, 1., 1., 0.9] };
        let tried = try_out((&train, &[0, 0, 1, 1]), (&held, &[0, 1, 1]), 2);
        assert!((tried.recall_at_1 - 2.0 / 3.0).abs() < 1e-9, "{tried:?}");
        assert!((tried.linear_probe - 2.0 / 3.0).abs() < 1e-9, "{tried:?}");
    }
}
