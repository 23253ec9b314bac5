//! The `dram` command: flags -> calls into the libraries -> results on stdout.
//!
//! The libraries print nothing and read no environment; all of that is here. Exit codes: 0 yes,
//! 1 no (does not fit, gate missed, findings), 2 error.

mod arguments;
mod calibration;
mod machine;
mod malloc;
mod opening;
mod output;
mod process;
mod verbs;

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Parser;
use dram_runtime::allocator::{CountingAllocator, Refusal};
use dram_runtime::heap::HeapCounter;
use dram_runtime::plan::Size;

use arguments::Arguments;
use output::Output;

/// Counts what the heap holds, and refuses to pass the limit that `--ram` sets.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::refusing(end_over_budget);

/// The counts of the allocator, as the library reads them.
const HEAP: HeapCounter = HeapCounter {
    current_bytes: || ALLOCATOR.current_bytes(),
    peak_bytes: || ALLOCATOR.peak_bytes(),
    restart_peak: || ALLOCATOR.restart_peak(),
};

/// Whether the result is to be JSON, for what ends the process in the middle.
static JSON: AtomicBool = AtomicBool::new(false);

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
    JSON.store(arguments.json, Relaxed);
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

/// Says that the budget is used up, and ends the process: whoever wanted memory cannot go on.
fn end_over_budget(refusal: Refusal) {
    let Refusal { wanted_bytes, current_bytes, limit_bytes } = refusal;
    let (wanted, current) = (Size(wanted_bytes), Size(current_bytes));
    match limit_bytes {
        u64::MAX => end(&format_args!(
            "out of memory: the heap holds {current}, and the system has no {wanted} more; send smaller inputs, \
             or free memory for it"
        )),
        limit => end(&format_args!(
            "out of memory: the heap holds {current} of {} that it may take, {wanted} more was asked for; allow \
             more with `--ram`, or send smaller inputs",
            Size(limit)
        )),
    }
}

thread_local! {
    /// Whether this thread is saying why the process ends.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// Ends the process in the middle of whatever it does, with this error.
fn end(error: &dyn Display) -> ! {
    // Ending takes some memory too.
    ALLOCATOR.set_limit(u64::MAX);
    match ENDS.replace(true) {
        false => Output::new(JSON.load(Relaxed)).error(error),
        // The system has not even that: what was being said is cut off.
        true => drop(io::stderr().write_all(b"dram: out of memory\n")),
    }
    std::process::exit(2)
}

/// Whether `error` is the answer "no" to a question that was understood.
fn is_refusal(error: &anyhow::Error) -> bool {
    use dram_runtime::Error::{Gate, OverBudget, Untrusted};
    matches!(error.downcast_ref(), Some(OverBudget(_) | Gate { .. } | Untrusted { .. }))
}
