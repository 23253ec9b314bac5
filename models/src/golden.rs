//! A few inputs and the trainer's own logits, for whoever runs the student elsewhere.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::batches::Examples;
use crate::encoder::Encoder;
use crate::error::{Error, Result};

/// Inputs and answers, as `golden.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Golden {
    pub(crate) rows: Vec<Row>,
}

/// One input, without padding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    pub(crate) logits: Vec<f32>,
}

impl Golden {
    /// Eight examples spread evenly over `examples`, each asked about alone. `encoder` must be on
    /// the plain CPU device.
    pub(crate) fn new(encoder: &Encoder, examples: &Examples) -> Golden {
        let count = examples.len().min(8);
        let row = |index: usize| {
            let row = index * examples.len() / count;
            let said = encoder.forward(&examples.batch(&[row]), &Device::flex());
            let logits = said.logits.into_data().try_to_vec().expect("logits are f32");
            Row { ids: examples.rows[row].clone(), logits }
        };
        Golden { rows: (0..count).map(row).collect() }
    }

    /// Holds the exported model to these answers.
    ///
    /// # Errors
    /// [`Error::Export`] with what differs.
    pub(crate) fn check(&self, onnx: &[u8]) -> Result<()> {
        let fault = |error: dram_runtime::Error| Error::Export(error.to_string());
        dram_runtime::graph::Graph::from_onnx(onnx).map_err(fault)?.validate().map_err(fault)
    }
}
