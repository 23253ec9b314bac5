//! One file a verb: its flags, its call into the libraries, its two forms of output.

pub(crate) mod bench;
pub(crate) mod boards;
#[cfg(feature = "tract")]
pub(crate) mod check;
#[cfg(feature = "tract")]
pub(crate) mod compare;
#[cfg(feature = "tract")]
pub(crate) mod distill;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod fit;
#[cfg(feature = "tract")]
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod keygen;
#[cfg(feature = "tract")]
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod verify;

use dram_runtime::session::Operators;
use dram_runtime::{Session, Task};

/// Whether the model answers texts, not only tensors.
fn takes_text(session: &Session) -> bool {
    session.manifest().tokenizer.is_some() && session.manifest().task != Task::Raw
}

/// What runs a graph, for people: `mixture, 37 operators on our kernels and 12 on tract`.
fn executor(name: &str, operators: Operators) -> String {
    let Operators { kernels, tract } = operators;
    match (kernels, tract) {
        (kernels, 0) => format!("{name}, {kernels} operators"),
        (0, tract) => format!("{name}, {tract} operators"),
        _ => format!("{name}, {kernels} operators on our kernels and {tract} on tract"),
    }
}
