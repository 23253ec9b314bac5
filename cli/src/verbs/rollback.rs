//! `dram rollback`: the bundle before the running one.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::install::rollback;
use serde_json::json;

use crate::Answer;
use crate::arguments::Limits;
use crate::output::Output;
use crate::verbs::verify;

/// Return to the bundle before the running one, after a self-test
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The folder that `dram install` keeps
    #[arg(long, value_name = "DIR")]
    slot_dir: PathBuf,

    #[command(flatten)]
    limits: Limits,
}

impl Rollback {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let _opening = self.limits.begin(&self.slot_dir)?;
        match rollback(&self.slot_dir, &self.limits.options()) {
            Ok(digest) => {
                let text = format!("{digest} is the running bundle again\n");
                output
                    .result(&text, &json!({ "rolled_back": true, "digest": digest.to_string() }))?;
                Ok(Answer::Yes)
            }
            Err(error) => verify::refused("rolled_back", error, output),
        }
    }
}
