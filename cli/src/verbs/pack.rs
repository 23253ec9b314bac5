//! `dram pack`: an ONNX file -> the one file that a device needs.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::pack::{self, pack};
use dram_runtime::{Precision, Task};

use crate::Answer;
use crate::output::Output;

/// Optimize, quantize, gate on accuracy, and write the bundle
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// An ONNX file
    model: PathBuf,

    /// The bundle to write
    #[arg(short, long, value_name = "M.dram")]
    output: PathBuf,

    /// `tokenizer.json` of the model, where it takes text
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// One label a line, in the order of the output
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// What the output means; by default told from the other flags
    #[arg(long, value_parser = TASKS)]
    task: Option<Task>,

    /// Sequence lengths to plan for, in tokens
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "16,32,64,128")]
    seq: Vec<usize>,

    /// Numbers that weights are stored and multiplied in
    #[arg(long, default_value = "int8")]
    precision: Precision,

    /// Measure accuracy before and after quantization on this TSV
    #[arg(long, value_name = "DATA.tsv")]
    eval: Option<PathBuf>,

    /// Refuse a model that loses more than this, in percentage points
    #[arg(long, value_name = "PCT", requires = "eval")]
    max_drop: Option<f64>,
}
