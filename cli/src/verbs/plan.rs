//! `dram plan`: peak RAM by part, known before anything is loaded.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dram_runtime::plan::{self, Size};
use dram_runtime::session::{self, Options};
use dram_runtime::{Budget, Error};
use serde_json::json;

use crate::opening::Patience;
use crate::output::{Output, table};
use crate::verbs::boards;
use crate::{Answer, HEAP};

/// Show peak RAM by part; exit code 1 where it does not fit
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// An ONNX file or a bundle
    file: PathBuf,

    /// Fit it into what this board leaves to applications (see `dram boards`)
    #[arg(long, value_name = "BOARD", conflicts_with = "ram")]
    board: Option<String>,

    /// Fit it into this: `64MiB`, `512KiB`
    #[arg(long, value_name = "SIZE")]
    ram: Option<Budget>,

    /// Threads that compute
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,

    /// Longest sequence, in tokens
    #[arg(long, value_name = "N")]
    seq: Option<NonZeroUsize>,

    #[command(flatten)]
    patience: Patience,
}

impl Plan {
    pub(crate) fn call(&self, output: &Output) -> Result<Answer> {
        let board = self.board.as_deref().map(boards::named).transpose()?;
        let on_board = board.map(|board| Budget::bytes(board.ram_usable_bytes.value));
        let budget = self.ram.or(on_board);
        let sequence = self.seq.map(NonZeroUsize::get);
        let options =
            Options { threads: self.threads, sequence, heap: Some(HEAP), ..Options::default() };
        let _opening = self.patience.begin(&[&self.file], None)?;
        let plans = session::plans(&self.file, &options)?;
        let plan = plans[0];
        let refusal = match budget.unwrap_or(Budget::UNLIMITED).admit(&plans) {
            Ok(()) => None,
            Err(refusal @ Error::OverBudget(_)) => Some(refusal.to_string()),
            Err(error) => return Err(error.into()),
        };

        let mut text = parts(&plans);
        if let Some(board) = board {
            let (usable, all) = (board.ram_usable_bytes, board.ram_bytes.value);
            let [of, usable_size] = [Size(all), Size(usable.value)];
            let known = usable.known;
            text += &format!("\n{}: {usable_size} of {of} usable ({known})\n", board.name);
        }
        text += &match (&refusal, budget) {
            (Some(refusal), _) => format!("does not fit: {refusal}\n"),
            (None, Some(budget)) => {
                let left = budget.ram_bytes() - plan.peak_bytes();
                format!("fits: {} left of {}\n", Size(left), Size(budget.ram_bytes()))
            }
            (None, None) => String::new(),
        };
        output.result(
            &text,
            &json!({
                "peak_bytes": plan.peak_bytes(),
                "weights_bytes": plan.weights_bytes,
                "activations_bytes": plan.activations_bytes,
                "scratch_bytes": plan.scratch_bytes,
                "tokenizer_bytes": plan.tokenizer_bytes,
                "seq": plan.sequence,
                "threads": self.threads,
                "board": board.map(|board| board.id),
                "budget_bytes": budget.map(Budget::ram_bytes),
                "fits": refusal.is_none(),
                "refusal": refusal,
            }),
        )?;
        Ok(if refusal.is_none() { Answer::Yes } else { Answer::No })
    }
}

/// A row for each part, a column for each sequence length.
fn parts(plans: &[plan::Plan]) -> String {
    let row = |name: &str, cell: &dyn Fn(&plan::Plan) -> String| {
        std::iter::once(name.to_owned()).chain(plans.iter().map(cell)).collect::<Vec<_>>()
    };
    let bytes =
        |name: &str, part: fn(&plan::Plan) -> u64| row(name, &|plan| Size(part(plan)).to_string());
    let mut rows = vec![
        bytes("weights", |plan| plan.weights_bytes),
        bytes("activations", |plan| plan.activations_bytes),
        bytes("scratch", |plan| plan.scratch_bytes),
        bytes("tokenizer", |plan| plan.tokenizer_bytes),
        bytes("peak", plan::Plan::peak_bytes),
    ];
    if plans.iter().any(|plan| plan.sequence.is_some()) {
        let tokens =
            |plan: &plan::Plan| plan.sequence.map_or(String::new(), |tokens| tokens.to_string());
        rows.insert(0, row("tokens", &tokens));
    }
    table(&rows)
}
