//! A few inputs and the trainer's own answers, for whoever runs the student elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor as DeviceTensor};
use dram_runtime::session::{Options, Session};
use dram_runtime::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::batches::Examples;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::interface::{Dataset, Mode, Student};
use crate::losses;

/// Two f32 implementations of the same sums over logits of size 1 to 20.
const TOLERANCE: f32 = 1e-4;

/// Inputs and answers, as `golden.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Golden {
    pub(crate) rows: Vec<Row>,
}

/// One input, without padding, and the outputs of the graph that belong to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    /// Empty where it has no labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) logits: Vec<f32>,
    /// The logits of its early exits, the first one's first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exits: Vec<Vec<f32>>,
    /// At length 1; empty where it has labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) embedding: Vec<f32>,
}

impl Golden {
    /// Eight examples spread evenly over `examples`, each asked about alone. `encoder` must be on
    /// the plain CPU device.
    pub(crate) fn new(encoder: &Encoder, examples: &Examples) -> Golden {
        let count = examples.len().min(8);
        let row = |index: usize| {
            let row = index * examples.len() / count;
            let batch = examples.batch(&[row]);
            let said = encoder.forward(&batch, &Device::flex(), Mode::default());
            let values = |answer: DeviceTensor<2>| -> Vec<f32> {
                answer.into_data().try_to_vec().expect("answers are f32")
            };
            let mut exits: Vec<Vec<f32>> = said.logits.into_iter().map(values).collect();
            let logits = exits.pop().unwrap_or_default();
            let embedding = match logits.is_empty() {
                true => values(losses::unit(said.embeddings)),
                false => Vec::new(),
            };
            Row { ids: examples.rows[row].clone(), logits, exits, embedding }
        };
        Golden { rows: (0..count).map(row).collect() }
    }

    /// Holds the model at `path` to these answers, as the runtime gives them.
    ///
    /// # Errors
    /// [`Error::Export`] with the first answer that differs by more than 1e-4, or with what keeps the
    /// model from running.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        check(path, self.rows.iter().map(|row| (row.inputs(), row.outputs())))
    }
}

/// Holds the model at `path` to what was said about the inputs of each row: all outputs, in their order.
///
/// # Errors
/// [`Error::Export`] with the first answer that differs by more than 1e-4, or with what keeps the model from
/// running.
pub(crate) fn check<'a>(
    path: &Path,
    rows: impl Iterator<Item = (BTreeMap<String, Tensor>, Vec<&'a [f32]>)>,
) -> Result<()> {
    let fault = |error: dram_runtime::Error| Error::Export(error.to_string());
    let session = Session::open(path, &Options::default()).map_err(fault)?;
    for (index, (inputs, expected)) in rows.enumerate() {
        let outputs = session.run(&inputs).map_err(fault)?;
        if outputs.len() != expected.len() {
            let reason = format!("{} outputs, expected {}", outputs.len(), expected.len());
            return Err(Error::Export(reason));
        }
        for ((name, output), expected) in outputs.iter().zip(expected) {
            let difference = difference(&output.to_f32().unwrap_or_default(), expected);
            if difference.is_nan() || difference > TOLERANCE {
                let reason =
                    format!("its `{name}` for golden row {index} is off by {difference:.1e}");
                return Err(Error::Export(reason));
            }
        }
    }
    Ok(())
}

impl Row {
    fn inputs(&self) -> BTreeMap<String, Tensor> {
        let shape = [1, self.ids.len()];
        let ids: Vec<i64> = self.ids.iter().map(|&id| i64::from(id)).collect();
        let mask = vec![1; ids.len()];
        [("input_ids", ids), ("attention_mask", mask)]
            .map(|(name, values)| (name.to_owned(), Tensor::from_i64(&shape, &values)))
            .into()
    }

    /// In the order of the graph's outputs.
    fn outputs(&self) -> Vec<&[f32]> {
        let first = if self.logits.is_empty() { &self.embedding } else { &self.logits };
        std::iter::once(first).chain(&self.exits).map(Vec::as_slice).collect()
    }
}

/// The largest difference of `ours` and `theirs`; not a number where one is longer.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    if ours.len() != theirs.len() {
        return f32::NAN;
    }
    let pairs = ours.iter().zip(theirs);
    // `f32::max` would pass over a value that is not a number.
    pairs
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, next| if next > most || next.is_nan() { next } else { most })
}
