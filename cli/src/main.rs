//! The `dram` command: flags -> calls into the libraries -> results on stdout.
//!
//! The libraries print nothing and read no environment; all of that is here. Exit codes: 0 yes,
//! 1 no (does not fit, gate missed, findings), 2 error.

mod arguments;
mod calibration;
mod machine;
mod output;
mod process;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use dram_runtime::allocator::CountingAllocator;

use arguments::Arguments;
use output::Output;

/// Counts what the heap holds, and refuses to pass the limit that `--ram` sets.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// What a verb found out; its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It works, it fits, it passes.
    Yes,
    /// It does not, and the result says why.
    No,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match arguments.verb.call(&output) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever read our results has read enough.
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(if is_refusal(&error) { 1 } else { 2 })
        }
    }
}

/// Whether `error` is the answer "no" to a question that was understood.
fn is_refusal(error: &anyhow::Error) -> bool {
    use dram_runtime::Error::{Gate, OverBudget, Untrusted};
    matches!(error.downcast_ref(), Some(OverBudget(_) | Gate { .. } | Untrusted { .. }))
}
