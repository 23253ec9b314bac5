//! `dram install`: a new bundle in the place of the running one.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::install::{install, status};
use serde_json::json;

use crate::Answer;
use crate::arguments::Limits;
use crate::output::Output;
use crate::verbs::verify;

/// Verify a bundle and make it the running one of a slot folder; the one before is kept
#[derive(Debug, Args)]
#[command(after_help = "\
The bundle is self-tested within --ram before anything changes, and takes the place of the running one
by one rename. It is then on trial: `dram run DIR` starts it, and where that fails the next start
returns to the one before.")]
pub(crate) struct Install {
    /// The bundle
    bundle: PathBuf,

    /// The folder that holds the running bundle and the one before; made where it is missing
    #[arg(long, value_name = "DIR")]
    slot_dir: PathBuf,

    #[command(flatten)]
    limits: Limits,
}

impl Install {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let _opening = self.limits.begin(&self.bundle)?;
        let verification = match install(&self.bundle, &self.slot_dir, &self.limits.options()) {
            Ok(verification) => verification,
            Err(error) => return verify::refused("installed", error, output),
        };
        let previous = status(&self.slot_dir)?.and_then(|status| status.previous);
        let previous = previous.map(|digest| digest.to_string());
        let mut document = json!({ "installed": true, "previous": previous });
        verify::merge(&mut document, verify::describe(&verification));
        let text = format!(
            "`{}` is installed in `{}`\n{}previous   {}\n",
            self.bundle.display(),
            self.slot_dir.display(),
            verify::text(&verification),
            previous.as_deref().unwrap_or("none"),
        );
        output.result(&text, &document)?;
        Ok(Answer::Yes)
    }
}
