//! The whole path: fine-tune the teacher, keep its answers, train the student, write it out.

mod schemes;
mod teachers;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor;

use crate::artefacts;
use crate::device::Device;
use crate::error::Result;
use crate::inputs::Inputs;
use crate::progress::{Progress, Watch};
use crate::recipe::{Losses, Recipe};
use crate::report::Report;
use crate::stages::Stages;
use crate::train::{Course, Resume, WordEmbeddings};

/// How a recipe is run; what comes out is the recipe's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether an unfinished training in the output folder is continued.
    pub resume: Resume,
    /// Whether the same student is trained without a teacher, too.
    pub baseline: Baseline,
    /// Which of the processes of a co-distillation this is, counted from 0.
    pub worker: Option<usize>,
    /// Where trainings compute.
    pub device: Device,
}

/// Whether the same student is trained without a teacher, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// No.
    Skip,
    /// On the labels alone, from the teacher as it was published, for as many steps. Where there are no
    /// labels it is the student before any training.
    Train,
}

impl Default for Options {
    /// From the beginning, without a baseline, alone, on the processor.
    fn default() -> Options {
        Options { resume: Resume::No, baseline: Baseline::Skip, worker: None, device: Device::Cpu }
    }
}

/// Distils the student of `recipe` into the folder `output`, which is created where it is missing.
///
/// A finished stage whose inputs are unchanged is found in `output` and used again; `options` say
/// whether an unfinished one is continued. `tell` hears of every batch and may stop the run, which
/// then leaves a checkpoint. The same recipe, data and teacher give the same student on the same
/// kind of CPU with the same number of threads; but for co-distillation, where it depends on what the
/// other processes had to say, and when. A GPU sums in another order each time.
///
/// Written, each whole or not at all: `student.onnx`, `tokenizer.json`, `labels.txt` where there are labels,
/// `golden.json`, `metrics.jsonl`, `curves.svg`, `report.json`, `report.md`, and `checkpoints/`.
///
/// Training is bound by memory traffic on the system allocator; a binary that raises glibc's
/// `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` before it calls this saves a tenth to a third of the
/// time.
///
/// # Errors
/// [`Error`](crate::Error); [`Error::Interrupted`](crate::Error::Interrupted) where `tell` said stop.
pub fn distill(
    recipe: &Recipe,
    output: &Path,
    options: Options,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let device = options.device.open()?;
    let inputs = Inputs::load(recipe)?;
    let mut watch = Watch::new(inputs.work(recipe), tell);
    let stages = Stages { output, resume: options.resume };
    let run = Run { recipe, inputs: &inputs, stages, options, device };
    let teacher = run.teacher(&mut watch)?;
    let asked = match &teacher {
        Some(teacher) => Some(run.ask(teacher, &mut watch)?),
        None => None,
    };
    let further = run.ask_further(&mut watch)?;
    let learned = run.learn(teacher, asked, &further, &mut watch)?;
    artefacts::write(recipe, &inputs, &learned, output)
}

/// A distillation under way.
struct Run<'a> {
    recipe: &'a Recipe,
    inputs: &'a Inputs,
    stages: Stages<'a>,
    options: Options,
    /// Where its trainings compute.
    device: tensor::Device,
}

/// A course of `losses` without teachers.
fn course<'a>(losses: Losses) -> Course<'a> {
    let words = WordEmbeddings::Trained;
    Course { losses, teachers: Vec::new(), exits: None, int8: None, words }
}
