//! `dram inspect`: what a model or a bundle holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::Answer;
use crate::output::Output;

/// Show inputs, outputs, operators, parameters and work of an ONNX file or a bundle
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// An ONNX file or a bundle
    file: PathBuf,
}

impl Inspect {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let inspection = dram_runtime::inspect::inspect(&self.file)?;
        output.result(&text(&inspection), &inspection)?;
        Ok(Answer::Yes)
    }
}
