//! The whole path: train the teacher, keep its answers, train the student, write it out.

mod artefacts;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use burn::tensor::Device;

use crate::answers::{Each, ask};
use crate::checkpoint;
use crate::distill::{Baseline, Options};
use crate::error::Result;
use crate::exam::Exam;
use crate::inputs::hash;
use crate::interface::{Dataset, Mode, Student};
use crate::progress::{Progress, Stage, Watch};
use crate::recipe::{Losses, Training};
use crate::signals::examples::Signals;
use crate::signals::first::first;
use crate::signals::front::Moments;
use crate::signals::network::Network;
use crate::signals::recipe::{Copies, Learner, Recipe};
use crate::signals::report::Report;
use crate::signals::sizes::Convolutional;
use crate::signals::sources::{self, Recordings};
use crate::stages::{Asked, Stages, json};
use crate::train::{Course, Lesson, Teaching, Who, WordEmbeddings};

/// A finished training of a network over signals.
type Trained = checkpoint::Trained<Convolutional>;

/// Distils the student of `recipe` into the folder `output`, which is created where it is missing.
///
/// A finished stage whose inputs are unchanged is found in `output` and used again; `options` say whether
/// an unfinished one is continued, but `worker` has no meaning here. `tell` hears of every batch and may
/// stop the run, which then leaves a checkpoint. The same recipe and data give the same student on the same
/// kind of CPU with the same number of threads.
///
/// Written, each whole or not at all: `student.onnx`, `labels.txt`, `golden.json`, `metrics.jsonl`,
/// `curves.svg`, `report.json`, `report.md`, `checkpoints/`, and as arrays with labels beside them what it
/// was measured on, `validation.npy`, and a few of the training examples, `calibration.npy`.
///
/// # Errors
/// [`Error`](crate::Error); [`Error::Interrupted`](crate::Error::Interrupted) where `tell` said stop.
pub fn distill(
    recipe: &Recipe,
    output: &Path,
    options: Options,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let baseline = options.baseline;
    let run = Run::new(recipe, output, options)?;
    let mut watch = Watch::new(run.work(baseline), tell);
    let teacher = run.teach(&mut watch)?;
    let answers = run.ask(&teacher, &mut watch)?;
    let student = run.learn(&teacher, &answers, &mut watch)?;
    let baseline = match baseline {
        Baseline::Skip => None,
        Baseline::Train => Some(run.learn_alone(&mut watch)?),
    };
    run.write(&Learned { teacher, asking: answers.seconds, student, baseline })
}

/// What the stages gave.
struct Learned {
    teacher: Trained,
    asking: f64,
    student: Trained,
    baseline: Option<Trained>,
}

/// A distillation under way.
struct Run<'a> {
    recipe: &'a Recipe,
    stages: Stages<'a>,
    options: Options,
    /// Where its trainings compute.
    device: Device,
    /// The recordings and the copies that keep their label.
    labelled: Signals,
    /// The same, and mixtures.
    asked: Signals,
    exam: Exam<Signals>,
    moments: Moments,
    train_blake3: String,
    validation_blake3: String,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a Recipe, output: &'a Path, options: Options) -> Result<Run<'a>> {
        let device = options.device.open()?;
        let split = sources::read(recipe)?;
        let [train_blake3, validation_blake3] = [&split.train, &split.validation].map(identity);
        let (train, validation) = (Rc::new(split.train), Rc::new(split.validation));
        let signals =
            |recordings, copies| Signals::new(recordings, &recipe.data, copies, recipe.seed);
        let none = Copies { labelled: 0, mixed: 0 };
        Ok(Run {
            moments: Moments::of(&recipe.data.front(), &signals(&train, none)),
            labelled: signals(&train, Copies { mixed: 0, ..recipe.copies }),
            asked: signals(&train, recipe.copies),
            exam: Exam::Labels(signals(&validation, none)),
            recipe,
            stages: Stages { output, resume: options.resume },
            options,
            device,
            train_blake3,
            validation_blake3,
        })
    }

    /// Multiply-adds of all stages.
    fn work(&self, baseline: Baseline) -> f64 {
        let Recipe { teacher, student, .. } = self.recipe;
        let work = |learner: &Learner| self.recipe.sizes(learner).multiply_adds() as f64;
        let passes = |training: &Training, train: &Signals| {
            (training.epochs * (3 * train.len() + self.exam.examples().len())) as f64
        };
        let alone = match baseline {
            Baseline::Skip => 0.0,
            Baseline::Train => passes(&self.training_alone(), &self.labelled) * work(student),
        };
        passes(&teacher.training, &self.labelled) * work(teacher)
            + self.asked.len() as f64 * work(teacher)
            + passes(&student.training, &self.asked) * work(student)
            + alone
    }

    fn teach(&self, watch: &mut Watch) -> Result<Trained> {
        let Recipe { teacher, copies, .. } = self.recipe;
        let settings = json(&(teacher, copies.labelled));
        let key = self.key(Stage::Teacher, &settings);
        self.train(Stage::Teacher, (teacher, "teacher"), &teacher.training, None, &key, watch)
    }

    fn learn(&self, teacher: &Trained, answers: &Asked, watch: &mut Watch) -> Result<Trained> {
        let Recipe { student, losses, copies, .. } = self.recipe;
        let settings = json(&(student, losses, copies)) + &hash(&teacher.weights.parts());
        let key = self.key(Stage::Student, &settings);
        let taught = Some(answers);
        self.train(Stage::Student, (student, "student"), &student.training, taught, &key, watch)
    }

    fn learn_alone(&self, watch: &mut Watch) -> Result<Trained> {
        let Recipe { student, copies, .. } = self.recipe;
        let training = self.training_alone();
        let settings = json(&(student, &training, copies.labelled));
        let key = self.key(Stage::Baseline, &settings);
        self.train(Stage::Baseline, (student, "student"), &training, None, &key, watch)
    }

    /// As many steps as with a teacher, over the examples that have labels.
    fn training_alone(&self) -> Training {
        let training = &self.recipe.student.training;
        let passes = (training.epochs * self.asked.len()).div_ceil(self.labelled.len());
        Training { epochs: passes, ..training.clone() }
    }

    /// A network that learns from the labels or, where there are `answers`, from those.
    fn train(
        &self,
        stage: Stage,
        (learner, who): (&Learner, &str),
        training: &Training,
        answers: Option<&Asked>,
        key: &str,
        watch: &mut Watch,
    ) -> Result<Trained> {
        let taught =
            answers.map(|asked| Teaching { who: Who::Answers(&asked.answers), weight: 1.0 });
        let (train, losses) = match taught {
            None => (&self.labelled, Losses::labels()),
            Some(_) => (&self.asked, self.recipe.losses.terms()),
        };
        let course = Course {
            losses,
            teachers: taught.into_iter().collect(),
            exits: None,
            int8: None,
            words: WordEmbeddings::Trained,
        };
        let lesson: Lesson<Network> = Lesson {
            stage,
            training,
            seed: self.recipe.seed,
            train,
            exam: &self.exam,
            courses: vec![course],
            mask: None,
            key,
            checkpoint: &self.stages.checkpoint(stage, "unfinished"),
            device: &self.device,
        };
        let sizes = self.recipe.sizes(learner);
        let first = || Ok(vec![first(&sizes, &self.moments, who, self.recipe.seed)]);
        let trained = self.stages.learn(&lesson, first, watch)?;
        Ok(trained.into_iter().next().expect("one for each course"))
    }

    fn ask(&self, teacher: &Trained, watch: &mut Watch) -> Result<Asked> {
        let settings = json(&self.recipe.copies) + &hash(&teacher.weights.parts());
        let key = self.key(Stage::Answers, &settings);
        let work = self.asked.len() as f64 * teacher.weights.sizes().multiply_adds() as f64;
        let network = Network::new(&teacher.weights, &self.device);
        let ask =
            |each: &mut Each| Ok(ask(&network, &self.device, &self.asked, Mode::default(), each));
        self.stages.ask(&key, work, ask, watch)
    }

    /// What a stage with these settings depends on, hashed.
    fn key(&self, stage: Stage, settings: &str) -> String {
        let recipe = json(&(&self.recipe.data, self.recipe.seed));
        let parts = [stage.name(), &recipe, settings, &self.train_blake3, &self.validation_blake3];
        hash(&parts.map(str::as_bytes))
    }
}

fn identity(recordings: &Recordings) -> String {
    let values = bytemuck::cast_slice(&recordings.signals.values);
    hash(&[values, json(&recordings.labels).as_bytes()])
}
