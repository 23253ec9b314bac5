//! A few signals and the trainer's own logits, for whoever runs the student elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use dram_runtime::session::{Options, Session};
use dram_runtime::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::interface::{Dataset, Mode, Student};
use crate::signals::examples::Signals;
use crate::signals::network::Network;

/// Two f32 implementations of the same sums over logits of size 1 to 20.
const TOLERANCE: f32 = 1e-4;

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
    /// [`Error::Export`] with the first answer that differs by more than 1e-4, or with what keeps the
    /// model from running.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let fault = |error: dram_runtime::Error| Error::Export(error.to_string());
        let session = Session::open(path, &Options::default()).map_err(fault)?;
        let shape = [&[1], &self.shape[..]].concat();
        for (index, row) in self.rows.iter().enumerate() {
            let signal = ("signal".to_owned(), Tensor::from_f32(&shape, &row.signal));
            let outputs = session.run(&BTreeMap::from([signal])).map_err(fault)?;
            let logits = outputs.first().and_then(|(_, logits)| logits.to_f32());
            let difference = row.difference(&logits.unwrap_or_default());
            if difference.is_nan() || difference > TOLERANCE {
                let reason =
                    format!("its logits for golden row {index} are off by {difference:.1e}");
                return Err(Error::Export(reason));
            }
        }
        Ok(())
    }
}

impl Row {
    /// The largest difference to `logits`; not a number where there are more or fewer of them.
    fn difference(&self, logits: &[f32]) -> f32 {
        if logits.len() != self.logits.len() {
            return f32::NAN;
        }
        let pairs = logits.iter().zip(&self.logits);
        // `f32::max` would pass over a logit that is not a number.
        pairs
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |most, next| if next > most || next.is_nan() { next } else { most })
    }
}
