//! One file a verb: its flags, its call into the libraries, its two forms of output.

pub(crate) mod bench;
pub(crate) mod boards;
pub(crate) mod check;
pub(crate) mod distill;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod fit;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod keygen;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod verify;

use dram_runtime::{Session, Task};

/// Whether the model answers texts, not only tensors.
fn takes_text(session: &Session) -> bool {
    session.manifest().tokenizer.is_some() && session.manifest().task != Task::Raw
}
