//! `dram keygen`: a key to sign bundles with.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::trust;
use serde_json::json;

use crate::Answer;
use crate::output::Output;

/// Make a key pair: the private key in KEY, which only you can read, the public one in KEY.pub
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Where the private key goes; an existing file is never overwritten
    key: PathBuf,
}

impl Keygen {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let (path, public_key) = trust::keygen(&self.key)?;
        let (private, public) = (self.key.display(), path.display());
        let text = format!(
            "private key  {private} (keep it secret, and keep a copy)\npublic key   {public}\n{public_key}\n"
        );
        let document = json!({
            "private_key_file": private.to_string(),
            "public_key_file": public.to_string(),
            "public_key": public_key.to_string(),
        });
        output.result(&text, &document)?;
        Ok(Answer::Yes)
    }
}
