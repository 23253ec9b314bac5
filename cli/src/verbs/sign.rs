//! `dram sign`: a signature into a bundle's header.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::trust;
use serde_json::json;

use crate::Answer;
use crate::output::Output;

/// Sign a bundle; an earlier signature is replaced, nothing else changes
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The bundle
    bundle: PathBuf,

    /// The private key that `dram keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Sign {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let signer = trust::sign(&self.bundle, &self.key)?;
        let text = format!("`{}` is signed by {signer}\n", self.bundle.display());
        output.result(&text, &json!({ "signed_by": signer.to_string() }))?;
        Ok(Answer::Yes)
    }
}
