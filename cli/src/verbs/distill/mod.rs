//! `dram distill`: a teacher, data and a recipe -> a student.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "distill")]
mod training;

/// Distil the student of a recipe: teacher and data -> student.onnx
#[derive(Debug, Args)]
#[cfg_attr(not(feature = "distill"), allow(dead_code))]
pub(crate) struct Distill {
    /// What to distil, and how
    recipe: PathBuf,

    /// Folder for the student, its report and its checkpoints
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Continue from the checkpoint in the folder
    #[arg(long)]
    resume: bool,

    /// Train the same student without a teacher too, to see what the teacher brought
    #[arg(long)]
    baseline: bool,

    /// Draw everything random from this seed instead of the recipe's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Which process of a co-distillation this is, from 0
    #[arg(long, value_name = "N")]
    worker: Option<usize>,

    /// Where trainings compute: `cpu`, or a GPU as `cuda` or `cuda:N`, in a build that has the feature `cuda`
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
}

#[cfg(not(feature = "distill"))]
impl Distill {
    pub(crate) fn call(&self, _: &crate::output::Output) -> anyhow::Result<crate::Answer> {
        anyhow::bail!(
            "this `dram` runs students and makes none: training was left out of the build; \
             `cargo build --release -p dram-cli --features distill` puts it in"
        )
    }
}
