//! The training that teachers and students share: one lesson, from first weights to trained ones.
//!
//! ```text
//! lesson ─▶ class: every step, every pupil ─▶ pupil: an encoder and its optimizer
//!            │                                 loss: what it is held to
//!            └─ taught: what those who teach say about the batch, without gradients
//! ```

mod class;
mod loss;
mod masked;
mod pupil;
mod taught;
mod workers;

use std::path::Path;

use burn::tensor::Device;

use crate::answers::Answers;
use crate::checkpoint::{Checkpoint, Trained};
use crate::encoder::Encoder;
use crate::error::Result;
use crate::exam::Exam;
use crate::interface::{Dataset, Sizes, Student};
use crate::progress::{Stage, Watch};
use crate::recipe::{Exits, Losses, Rounding, Training};
use crate::seed::Random;
use crate::weights::Weights;

use class::Class;
pub(crate) use masked::{Mask, Masked};
pub(crate) use workers::Workers;

/// What is learned, from what, and how; none of it changes during a training.
pub(crate) struct Lesson<'a, S: Student = Encoder> {
    pub(crate) stage: Stage,
    pub(crate) training: &'a Training,
    pub(crate) seed: u64,
    pub(crate) train: &'a S::Examples,
    pub(crate) exam: &'a Exam<S::Examples>,
    /// One a pupil. They see the same batches, and may learn from each other.
    pub(crate) courses: Vec<Course<'a, S>>,
    /// What stands for a hidden word, where words are guessed.
    pub(crate) mask: Option<Mask>,
    /// Everything that the result depends on, hashed.
    pub(crate) key: &'a str,
    /// Where an unfinished training is kept.
    pub(crate) checkpoint: &'a Path,
    /// Where it computes. All networks that teach must be there.
    pub(crate) device: &'a Device,
}

/// What one pupil is held to.
pub(crate) struct Course<'a, S: Student = Encoder> {
    pub(crate) losses: Losses,
    pub(crate) teachers: Vec<Teaching<'a, S>>,
    pub(crate) exits: Option<Exits>,
    pub(crate) int8: Option<Rounding>,
    pub(crate) words: WordEmbeddings,
}

/// Someone who teaches, and how much that counts.
pub(crate) struct Teaching<'a, S: Student = Encoder> {
    pub(crate) who: Who<'a, S>,
    pub(crate) weight: f64,
}

/// Someone who teaches.
pub(crate) enum Who<'a, S: Student = Encoder> {
    /// A finished model, by its kept answers about the training examples.
    Answers(&'a Answers),
    /// A finished network, by what it makes of each batch inside.
    Inside(&'a S),
    /// Another pupil of the class, as it is in this step.
    Peer(usize),
    /// The pupil as it was.
    Former(Former),
    /// The same pupil in other processes.
    Workers(&'a Workers<S>),
}

/// As it was when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Former {
    /// A moving average of its weights that keeps this share in each step. It is what is measured and
    /// delivered (Tarvainen and Valpola 2017).
    Average(f64),
    /// At the last pass whose number this divides.
    Snapshot(usize),
    /// One pass ago; counts for a share that grows evenly to this, at the cost of the labels (Kim et al.
    /// 2021, PS-KD).
    Progressive(f64),
}

/// Whether a training moves the word embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordEmbeddings {
    /// They stay as they are: a fine-tuning that moves them gains nothing, and costs a third of the
    /// time with a vocabulary of 30,522.
    Frozen,
    /// They are trained like everything else.
    Trained,
}

/// Whether an unfinished training in the output folder is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Start from the beginning; an unfinished training is overwritten.
    No,
    /// Continue where the last checkpoint stands, bit for bit; without one, start.
    Yes,
}

/// Trains `first`, one for each course of `lesson`, and returns them in that order.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) where the caller said stop, after a checkpoint;
/// [`Error::Diverged`](crate::Error::Diverged); [`Error::Checkpoint`](crate::Error::Checkpoint) where
/// there is none to continue from.
pub(crate) fn train<S: Student>(
    lesson: &Lesson<S>,
    first: Vec<Weights<S::Sizes>>,
    resume: Resume,
    watch: &mut Watch,
) -> Result<Vec<Trained<S::Sizes>>> {
    let found = match resume {
        Resume::Yes => Checkpoint::load(lesson.checkpoint, lesson.key)?,
        Resume::No => None,
    };
    let mut class = match found {
        Some(checkpoint) => Class::resume(lesson, checkpoint)?,
        None => Class::new(lesson, first),
    };
    watch.skip(class.work_done());
    while !class.is_done() {
        class.epoch(watch)?;
        class.save()?;
    }
    watch.skip(class.work_left());
    Ok(class.finish())
}

impl<S: Student> Lesson<'_, S> {
    /// Multiply-adds of one pass of a pupil of `sizes`: three times as many for what it learns from as for
    /// what it is only measured on.
    pub(crate) fn work_per_epoch(&self, sizes: &S::Sizes) -> f64 {
        (3 * self.train.units() + self.exam.examples().units()) as f64 * sizes.work()
    }

    /// The rows of each step of pass `epoch`.
    fn order(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = Random::new(self.seed, self.stage.name(), epoch);
        self.train.shuffled(self.training.batch, &mut random)
    }
}

impl<S: Student> Course<'_, S> {
    /// How its pupil relates to its own past, where that teaches.
    fn former(&self) -> Option<Former> {
        self.teachers.iter().find_map(|teaching| match teaching.who {
            Who::Former(former) => Some(former),
            _ => None,
        })
    }
}
