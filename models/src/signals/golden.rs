//! A few signals and the trainer's own logits, for whoever runs the student elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use dram_runtime::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::golden;
use crate::interface::{Dataset, Mode, Student};
use crate::signals::examples::Signals;
use crate::signals::network::Network;

/// Signals and answers, as `golden.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Golden {
    /// The extents of each signal.
    pub(crate) shape: Vec<usize>,
    pub(crate) rows: Vec<Row>,
}

/// One signal in row-major order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) signal: Vec<f32>,
    pub(crate) logits: Vec<f32>,
}

impl Golden {
    /// Six examples spread evenly over `examples`, each asked about alone. `network` must be on the
    /// plain CPU device.
    pub(crate) fn new(network: &Network, examples: &Signals) -> Golden {
        let count = examples.len().min(6);
        let row = |index: usize| {
            let batch = examples.batch(&[index * examples.len() / count]);
            let mut said = network.forward(&batch, &Device::flex(), Mode::default());
            let logits =
                said.logits.swap_remove(0).into_data().try_to_vec().expect("logits are f32");
            Row { signal: batch.values, logits }
        };
        let shape = examples.batch(&[]).shape[1..].to_vec();
        Golden { shape, rows: (0..count).map(row).collect() }
    }

    /// Holds the model at `path` to these answers, as the runtime gives them.
    ///
    /// # Errors
    /// [`Error::Export`](crate::Error::Export) with the first answer that differs by more than 1e-4, or with what keeps the
    /// model from running.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let shape = [&[1], &self.shape[..]].concat();
        let rows = self.rows.iter().map(|row| {
            let signal = ("signal".to_owned(), Tensor::from_f32(&shape, &row.signal));
            (BTreeMap::from([signal]), vec![&row.logits[..]])
        });
        golden::check(path, rows)
    }
}
