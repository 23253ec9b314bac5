//! `dram eval`: how right a model is on labelled data.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::Session;
use dram_runtime::evaluate::{Evaluation, evaluate};
use serde_json::json;

use crate::Answer;
use crate::arguments::Limits;
use crate::output::Output;

/// Measure accuracy and macro F1 (labels), or Spearman correlation (pairs)
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// A bundle
    file: PathBuf,

    /// TSV with a header: `text`, `label`, or `sentence1`, `sentence2`, `score`
    data: PathBuf,

    #[command(flatten)]
    limits: Limits,
}

impl Eval {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let session = self.limits.open(&self.file)?;
        let bar = output.bar(0, "{wide_bar} {pos}/{len} {per_sec} {eta} left");
        let evaluation = evaluate(&session, &self.data, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(Answer::Yes)
    }
}
