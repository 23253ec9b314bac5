//! `dram compare`: where two forms of one model part, and by how much.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::compare::{Comparison, Difference, compare};
use dram_runtime::samples::Samples;

use crate::Answer;
use crate::opening::Patience;
use crate::output::{Output, table};

/// Show the differences of two forms of a model, per output and per layer
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// An ONNX file or a bundle
    first: PathBuf,

    /// Another form of the same model
    second: PathBuf,

    /// Texts of a TSV, or a folder with `NAME.npy` `[examples, ..]` for each input; else generated inputs
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,

    #[command(flatten)]
    patience: Patience,
}

impl Compare {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let samples = self.data.as_deref().map_or(Ok(Samples::Generated), Samples::read)?;
        let _opening = self.patience.begin(&[&self.first, &self.second], None)?;
        let comparison = compare(&self.first, &self.second, &samples)?;
        output.result(&text(&comparison), &comparison)?;
        Ok(Answer::Yes)
    }
}

fn text(comparison: &Comparison) -> String {
    let heading = ["", "worst", "mean", "noise", "cosine", "top 1", "top 5"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let kinds = [("output", &comparison.outputs), ("layer", &comparison.layers)];
    for (kind, differences) in kinds {
        rows.extend(differences.iter().map(|difference| row(kind, difference)));
    }
    format!("{}{} samples\n", table(&rows), comparison.samples)
}

fn row(kind: &str, difference: &Difference) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let noise = difference.signal_to_noise_db;
    vec![
        format!("{kind} {}", difference.value),
        format!("{:.2e}", difference.worst),
        format!("{:.2e}", difference.mean),
        noise.map_or("none".to_owned(), |decibels| format!("{decibels:.1} dB")),
        format!("{:.5}", difference.cosine),
        percent(difference.top1),
        percent(difference.top5),
    ]
}
