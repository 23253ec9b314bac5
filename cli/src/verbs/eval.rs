//! `dram eval`: how right a model is on labelled data.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::evaluate::{Evaluation, Examples, MeanDepth, evaluate};
use serde_json::json;

use crate::Answer;
use crate::arguments::{EarlyExits, Limits};
use crate::output::Output;

/// Measure accuracy and macro F1 (labels), or Spearman's rank correlation (pairs)
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// A bundle
    file: PathBuf,

    /// TSV with a header: `text` and `label`, or `sentence1`, `sentence2` and `score`; or `NAME.npy`, an
    /// example a row, with the indices of their labels in `NAME.labels.npy`
    data: PathBuf,

    #[command(flatten)]
    early: EarlyExits,

    #[command(flatten)]
    limits: Limits,
}

impl Eval {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let session = self.early.apply(self.limits.open(&self.file)?)?;
        let examples = Examples::read(&self.data)?;
        let bar = output.bar(examples.len() as u64, "{wide_bar} {pos}/{len}  {eta} left");
        let evaluation = evaluate(&session, &examples, &mut |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        match evaluation? {
            Evaluation::Classification { accuracy, macro_f1, depth, examples, seconds } => {
                let rate = examples as f64 / seconds;
                let [accurate, f1] =
                    [accuracy, macro_f1].map(|share| format!("{:.2} %", 100.0 * share));
                let mut document = json!({
                    "accuracy": accuracy,
                    "macro_f1": macro_f1,
                    "examples": examples,
                    "examples_per_second": rate,
                });
                let mut far = String::new();
                if let Some(MeanDepth { mean_exit, mean_compute }) = depth {
                    document["mean_exit"] = mean_exit.into();
                    document["mean_compute"] = mean_compute.into();
                    let share = 100.0 * mean_compute;
                    far = format!("mean exit {mean_exit:.2}, {share:.1} % of the arithmetic\n");
                }
                output.result(
                    &format_args!(
                        "accuracy {accurate}, macro F1 {f1}\n{far}{examples} examples, {rate:.0} a second\n"
                    ),
                    &document,
                )?;
            }
            Evaluation::Similarity { spearman, examples, seconds } => {
                let rate = examples as f64 / seconds;
                output.result(
                    &format_args!("Spearman {spearman:.4}\n{examples} pairs, {rate:.0} a second\n"),
                    &json!({
                        "spearman": spearman,
                        "examples": examples,
                        "examples_per_second": rate,
                    }),
                )?;
            }
        }
        Ok(Answer::Yes)
    }
}
