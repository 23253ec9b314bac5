//! What a distillation tells its caller while it runs.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::exam::Measure;

/// The parts of a distillation, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The teacher is fine-tuned on the labels.
    Teacher,
    /// The teacher is asked about every example, and its answers are kept.
    Answers,
    /// The student learns from the answers.
    Student,
    /// The same student learns without a teacher, for comparison.
    Baseline,
}

impl Stage {
    /// The lower-case name used in files, reports and messages.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Teacher => "teacher",
            Stage::Answers => "answers",
            Stage::Student => "student",
            Stage::Baseline => "baseline",
        }
    }
}

/// Something that has just happened. Epochs and steps are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// A batch is done.
    Step {
        /// Who learns.
        stage: Stage,
        /// The running pass over the data.
        epoch: usize,
        /// Passes in this stage.
        epochs: usize,
        /// Batches done in this pass.
        step: usize,
        /// Batches a pass.
        steps: usize,
        /// Mean loss of this pass so far.
        loss: f64,
        /// Speed of that batch.
        examples_per_second: f64,
        /// Until the student is done, at the speed so far.
        seconds_left: f64,
    },
    /// The teacher has been asked about a batch.
    Asked {
        /// Batches done.
        step: usize,
        /// Batches in all.
        steps: usize,
        /// Until the student is done, at the speed so far.
        seconds_left: f64,
    },
    /// A pass over the data is done, and measured.
    Epoch {
        /// Who learns.
        stage: Stage,
        /// The pass that ended.
        epoch: usize,
        /// Passes in this stage.
        epochs: usize,
        /// Mean loss of the pass.
        loss: f64,
        /// What was measured after it, 1 at best.
        score: f64,
        /// What that figure is.
        measure: Measure,
        /// Until the student is done, at the speed so far.
        seconds_left: f64,
    },
    /// A finished stage with the same inputs was found in the output folder.
    Reused {
        /// The stage that need not run.
        stage: Stage,
    },
}

/// The caller's callback and an estimate of the time left. Work is counted in multiply-adds:
/// tokens times parameters of the layers, three times that for a training step.
pub(crate) struct Watch<'a> {
    tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    started: Instant,
    done: f64,
    left: f64,
}

impl<'a> Watch<'a> {
    /// Starts now, with `work` before it.
    pub(crate) fn new(
        work: f64,
        tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Watch<'a> {
        Watch { tell, started: Instant::now(), done: 0.0, left: work }
    }

    /// Work has been done.
    pub(crate) fn did(&mut self, work: f64) {
        self.done += work;
        self.left -= work;
    }

    /// Work turned out to be done already.
    pub(crate) fn skip(&mut self, work: f64) {
        self.left -= work;
    }

    /// Time until all work is done, at the speed so far; 0 before any work is done.
    pub(crate) fn seconds_left(&self) -> f64 {
        let speed = self.done / self.started.elapsed().as_secs_f64();
        if speed > 0.0 { (self.left / speed).max(0.0) } else { 0.0 }
    }

    /// Passes `progress` on; [`ControlFlow::Break`] is the caller's wish to stop.
    pub(crate) fn tell(&mut self, progress: Progress) -> ControlFlow<()> {
        (self.tell)(progress)
    }
}
