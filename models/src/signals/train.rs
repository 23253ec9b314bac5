//! One training: from first weights to trained ones.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use burn::module::{Module, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};

use crate::clip::clip;
use crate::error::{Error, Result};
use crate::exam::Measure;
use crate::losses;
use crate::progress::{Progress, Stage, Watch};
use crate::schedule::learning_rate;
use crate::seed::Random;
use crate::signals::answers::{accuracy, ask};
use crate::signals::examples::Signals;
use crate::signals::memory::{Epoch, Position, Trained, Unfinished};
use crate::signals::network::Network;
use crate::signals::recipe::{Targets, Training};
use crate::signals::weights::Weights;
use crate::train::Resume;
use crate::weights::Array;

/// What is learned, from what, and how; none of it changes during a training.
pub(crate) struct Lesson<'a> {
    pub(crate) stage: Stage,
    pub(crate) training: &'a Training,
    pub(crate) seed: u64,
    pub(crate) train: &'a Signals,
    pub(crate) validation: &'a Signals,
    pub(crate) objective: Objective<'a>,
    /// Everything that the result depends on, hashed.
    pub(crate) key: String,
    /// Where an unfinished training is kept.
    pub(crate) checkpoint: PathBuf,
}

/// What the loss compares with.
#[derive(Clone, Copy)]
pub(crate) enum Objective<'a> {
    /// The labels alone.
    Labels,
    /// The labels, and a teacher's logits for the same examples, `[examples, labels]`.
    Teacher(&'a Array, Targets),
}

/// Trains `first` on `lesson`.
///
/// # Errors
/// [`Error::Interrupted`] where the caller said stop, after a checkpoint; [`Error::Diverged`];
/// [`Error::Checkpoint`] where there is none to continue from.
pub(crate) fn train(
    lesson: &Lesson,
    first: Weights,
    resume: Resume,
    watch: &mut Watch,
) -> Result<Trained> {
    let found = match resume {
        Resume::Yes => Unfinished::load(&lesson.checkpoint, &lesson.key)?,
        Resume::No => None,
    };
    let mut learner = match found {
        Some(unfinished) => Learner::resume(lesson, unfinished)?,
        None => Learner::new(lesson, first),
    };
    watch.skip(lesson.work_done(&learner));
    while learner.position.epoch < lesson.training.epochs {
        learner = learner.epoch(lesson, watch)?;
        learner.save(lesson)?;
    }
    let Position { history, seconds, .. } = learner.position;
    Ok(Trained { weights: learner.best, history, seconds })
}

impl Lesson<'_> {
    /// Multiply-adds of one pass of a network that takes so many for one example: three times as many
    /// for what it learns from as for what it is only measured on.
    pub(crate) fn work_per_epoch(&self, multiply_adds: usize) -> f64 {
        (3 * self.train.len() + self.validation.len()) as f64 * multiply_adds as f64
    }

    fn work_done(&self, learner: &Learner) -> f64 {
        let epoch = self.work_per_epoch(learner.best.sizes().multiply_adds());
        let steps = self.order(learner.position.epoch).len();
        epoch * (learner.position.epoch as f64 + learner.position.step as f64 / steps as f64)
    }

    fn order(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = Random::new(self.seed, self.stage.name(), epoch);
        self.train.shuffled(self.training.batch, &mut random)
    }

    fn loss(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> Tensor<1> {
        let hard = self.hard(logits.clone(), rows, device);
        let Objective::Teacher(answers, targets) = self.objective else { return hard };
        let Array { shape, values } = answers.rows(rows);
        let taught = Tensor::<2>::from_data(TensorData::new(values, shape), device);
        let soft = losses::soft(logits, taught, targets.temperature);
        soft.mul_scalar(targets.soft) + hard.mul_scalar(targets.hard)
    }

    /// Over the rows that have a label.
    fn hard(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> Tensor<1> {
        let label = |&row: &usize| self.train.labels().get(row).map(|&label| label as i64);
        let labels: Vec<Option<i64>> = rows.iter().map(label).collect();
        let shape = [rows.len(), 1];
        let known = labels.iter().map(|label| f32::from(u8::from(label.is_some()))).collect();
        let known = TensorData::new::<f32, _>(known, shape);
        let labels = labels.iter().map(|label| label.unwrap_or(0)).collect();
        let labels = TensorData::new::<i64, _>(labels, shape);
        losses::hard(
            logits,
            Tensor::<2, Int>::from_data(labels, device),
            Tensor::<2>::from_data(known, device),
        )
    }

    /// AdamW with decay on kernels and matrices only.
    fn optimizer(&self) -> ModuleOptimizer {
        let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
        let decaying = plain.clone().with_weight_decay(self.training.weight_decay);
        let kernels = ParamGroup::from_regex(r"weight$").expect("a valid pattern");
        plain.init().with_group(kernels, decaying.build(), None)
    }
}

/// A network in the middle of a lesson.
struct Learner {
    network: Network,
    optimizer: ModuleOptimizer,
    position: Position,
    best: Weights,
    device: Device,
}

impl Learner {
    fn new(lesson: &Lesson, first: Weights) -> Learner {
        let device = Device::flex().autodiff();
        Learner {
            network: Network::new(&first, &device),
            optimizer: lesson.optimizer(),
            position: Position::default(),
            best: first,
            device,
        }
    }

    fn resume(lesson: &Lesson, unfinished: Unfinished) -> Result<Learner> {
        let device = Device::flex().autodiff();
        let record = Bytes::from_bytes_vec(unfinished.optimizer);
        let optimizer = lesson.optimizer().from_bytes(record).map_err(|error| {
            Error::Checkpoint { path: lesson.checkpoint.clone(), reason: error.to_string() }
        })?;
        Ok(Learner {
            network: Network::new(&unfinished.weights, &device),
            optimizer,
            position: unfinished.position,
            best: unfinished.best,
            device,
        })
    }

    fn save(&self, lesson: &Lesson) -> Result<()> {
        let record = self.optimizer.into_bytes().map_err(|error| Error::Checkpoint {
            path: lesson.checkpoint.clone(),
            reason: error.to_string(),
        })?;
        let unfinished = Unfinished {
            position: self.position.clone(),
            weights: self.network.weights(self.best.sizes()),
            best: self.best.clone(),
            optimizer: record.to_vec(),
        };
        unfinished.save(&lesson.checkpoint, &lesson.key)
    }

    /// What is left of the running pass, then its measurement.
    fn epoch(mut self, lesson: &Lesson, watch: &mut Watch) -> Result<Learner> {
        let order = lesson.order(self.position.epoch);
        let work = self.best.sizes().multiply_adds() as f64;
        for rows in order.iter().skip(self.position.step) {
            let started = Instant::now();
            self = self.step(lesson, rows, order.len())?;
            let seconds = started.elapsed().as_secs_f64();
            self.position.seconds += seconds;
            watch.did((3 * rows.len()) as f64 * work);
            let rate = rows.len() as f64 / seconds;
            if watch.tell(self.step_done(lesson, order.len(), rate, watch)).is_break() {
                return Err(self.interrupted(lesson));
            }
        }
        self.measure(lesson, order.len());
        watch.did(lesson.validation.len() as f64 * work);
        match watch.tell(self.epoch_done(lesson, watch)) {
            ControlFlow::Continue(()) => Ok(self),
            ControlFlow::Break(()) => Err(self.interrupted(lesson)),
        }
    }

    fn step(mut self, lesson: &Lesson, rows: &[usize], steps: usize) -> Result<Learner> {
        let Training { epochs, warmup, learning_rate: peak, clip_norm, .. } = *lesson.training;
        let step = self.position.epoch * steps + self.position.step;
        let rate = learning_rate(step, epochs * steps, warmup, peak);
        let logits = self.network.forward(&lesson.train.batch(rows), &self.device);
        let loss = lesson.loss(logits, rows, &self.device);
        let value: f32 = loss.clone().into_scalar();
        if !value.is_finite() {
            let (stage, epoch) = (lesson.stage.name(), self.position.epoch + 1);
            return Err(Error::Diverged { stage, epoch, loss: value });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let gradients = clip(gradients, &self.network, clip_norm);
        self.network = self.optimizer.step(rate, self.network, gradients);
        self.position.step += 1;
        self.position.loss_sum += value;
        Ok(self)
    }

    fn measure(&mut self, lesson: &Lesson, steps: usize) {
        let started = Instant::now();
        let Lesson { validation, .. } = lesson;
        let logits = ask(&self.network.valid(), validation, &mut |_, _| ControlFlow::Continue(()));
        let logits = logits.expect("nobody stops it");
        let accuracy = accuracy(&logits, validation.labels()).accuracy as f32;
        let Position { epoch, step, loss_sum, seconds, history } = &mut self.position;
        if history.iter().all(|earlier| earlier.accuracy < accuracy) {
            self.best = self.network.weights(self.best.sizes());
        }
        history.push(Epoch { loss: *loss_sum / steps as f32, accuracy });
        (*epoch, *step, *loss_sum) = (*epoch + 1, 0, 0.0);
        *seconds += started.elapsed().as_secs_f64();
    }

    fn interrupted(&self, lesson: &Lesson) -> Error {
        match self.save(lesson) {
            Ok(()) => Error::Interrupted { checkpoint: lesson.checkpoint.clone() },
            Err(error) => error,
        }
    }

    fn step_done(&self, lesson: &Lesson, steps: usize, rate: f64, watch: &Watch) -> Progress {
        Progress::Step {
            stage: lesson.stage,
            epoch: self.position.epoch + 1,
            epochs: lesson.training.epochs,
            step: self.position.step,
            steps,
            loss: f64::from(self.position.loss_sum / self.position.step as f32),
            examples_per_second: rate,
            seconds_left: watch.seconds_left(),
        }
    }

    fn epoch_done(&self, lesson: &Lesson, watch: &Watch) -> Progress {
        let last = self.position.history.last().expect("an epoch was just measured");
        Progress::Epoch {
            stage: lesson.stage,
            epoch: self.position.epoch,
            epochs: lesson.training.epochs,
            loss: f64::from(last.loss),
            score: f64::from(last.accuracy),
            measure: Measure::Accuracy,
            seconds_left: watch.seconds_left(),
        }
    }
}
