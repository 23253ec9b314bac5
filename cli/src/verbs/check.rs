//! `dram check`: every reason why a model will not run, all at once.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::Budget;
use dram_runtime::plan::Size;
use dram_runtime::session::{self, Options};
use serde_json::json;

use crate::Answer;
use crate::opening::Patience;
use crate::output::Output;
use crate::verbs::boards;

/// List every operator that will not run, all at once
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// An ONNX file or a bundle
    model: PathBuf,

    /// Also check that it fits this board (see `dram boards`)
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,

    #[command(flatten)]
    patience: Patience,
}

impl Check {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let board = self.board.as_deref().map(boards::named).transpose()?;
        let _opening = self.patience.begin(&[&self.model], None)?;
        let mut findings = dram_runtime::inspect::check(&self.model)?;
        // A model that does not load has no plan.
        if let (Some(board), true) = (board, findings.is_empty()) {
            let usable = board.ram_usable_bytes.value;
            let admitted =
                Budget::bytes(usable).admit(&session::plans(&self.model, &Options::default())?);
            findings.extend(admitted.err().map(|refusal| format!("{}: {refusal}", board.name)));
        }
        let place = board.map_or(String::new(), |board| {
            format!(" on {} ({} usable)", board.name, Size(board.ram_usable_bytes.value))
        });
        let model = self.model.display();
        let text = match &findings[..] {
            [] => format!("`{model}` runs{place}\n"),
            findings => {
                format!("`{model}` does not run{place}:\n  - {}\n", findings.join("\n  - "))
            }
        };
        let runs = findings.is_empty();
        output.result(&text, &json!({ "runs": runs, "findings": findings }))?;
        Ok(if runs { Answer::Yes } else { Answer::No })
    }
}
