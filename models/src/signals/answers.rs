//! What a network says about signals, and how right it is.

use std::ops::ControlFlow;

use burn::tensor::Device;

use crate::answers::{Accuracy, accuracy as counted};
use crate::signals::examples::Signals;
use crate::signals::network::Network;
use crate::weights::Array;

/// Examples that are asked about at once.
const BATCH: usize = 128;

/// The logits `[examples, labels]` of `network`, which must be on the plain CPU device, for all of
/// `examples`; `None` where `each`, called with the number of batches done and of all, says stop.
pub(crate) fn ask(
    network: &Network,
    examples: &Signals,
    each: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Option<Array> {
    let device = Device::flex();
    let batches = examples.in_turn(BATCH);
    let (mut values, mut labels) = (Vec::<f32>::new(), 0);
    for (done, rows) in batches.iter().enumerate() {
        let said = network.forward(&examples.batch(rows), &device);
        labels = said.dims()[1];
        values.extend(said.into_data().try_to_vec::<f32>().expect("logits are f32"));
        if each(done + 1, batches.len()).is_break() {
            return None;
        }
    }
    Some(Array { shape: vec![examples.len(), labels], values })
}

/// How right `logits` are, where example `row` has the label `labels[row]`.
pub(crate) fn accuracy(logits: &Array, labels: &[usize]) -> Accuracy {
    let classes = logits.shape[1];
    let highest = |row: &[f32]| {
        let best = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
        (1..classes).fold(0, best)
    };
    let predicted: Vec<usize> = logits.values.chunks(classes).map(highest).collect();
    counted(&predicted, labels, classes)
}
