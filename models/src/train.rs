//! The training loop that teacher and student share: one lesson, from first weights to trained ones.

use std::path::Path;
use std::time::Instant;

use burn::module::{Module, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};

use crate::answers::{Answers, ask};
use crate::batches::{Batch, Examples};
use crate::checkpoint::{Checkpoint, Epoch, Position, Trained};
use crate::clip::clip;
use crate::encoder::{Encoder, Said};
use crate::error::{Error, Result};
use crate::losses;
use crate::progress::{Progress, Stage, Watch};
use crate::recipe::{Losses, Training};
use crate::schedule::learning_rate;
use crate::seed::Random;
use crate::weights::{Array, Weights};

/// What is learned, from what, and how; none of it changes during a training.
pub(crate) struct Lesson<'a> {
    pub(crate) stage: Stage,
    pub(crate) training: &'a Training,
    pub(crate) seed: u64,
    pub(crate) train: &'a Examples,
    pub(crate) validation: &'a Examples,
    pub(crate) objective: Objective<'a>,
    /// Everything that the result depends on, hashed.
    pub(crate) key: &'a str,
    /// Where an unfinished training is kept.
    pub(crate) checkpoint: &'a Path,
}

/// What the loss compares with.
pub(crate) enum Objective<'a> {
    /// The labels alone. The word embeddings stay as they are: a fine-tuning that moves them gains
    /// nothing, and costs a third of the time with a vocabulary of 30,522.
    Labels,
    /// The labels and what a teacher says about the same examples.
    Teacher(&'a Answers, &'a Losses),
}

/// Whether an unfinished training in the output folder is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Start from the beginning; an unfinished training is overwritten.
    No,
    /// Continue where the last checkpoint stands, bit for bit; without one, start.
    Yes,
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
        Resume::Yes => Checkpoint::load(lesson.checkpoint, lesson.key)?,
        Resume::No => None,
    };
    let mut learner = match found {
        Some(checkpoint) => Learner::resume(lesson, checkpoint)?,
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
    /// Multiply-adds of one pass: three for each weight and token, one where only measured.
    pub(crate) fn work_per_epoch(&self, encoder_parameters: usize) -> f64 {
        (3 * self.train.tokens() + self.validation.tokens()) as f64 * encoder_parameters as f64
    }

    fn work_done(&self, learner: &Learner) -> f64 {
        let epoch = self.work_per_epoch(learner.best.architecture().encoder_parameters());
        let steps = self.train.len().div_ceil(self.training.batch);
        epoch * (learner.position.epoch as f64 + learner.position.step as f64 / steps as f64)
    }

    fn order(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = Random::new(self.seed, self.stage.name(), epoch);
        self.train.shuffled(self.training.batch, &mut random)
    }

    fn loss(&self, said: Said, batch: &Batch, device: &Device) -> Tensor<1> {
        let hard = self.hard(said.logits.clone(), batch, device);
        let (answers, weights) = match self.objective {
            Objective::Labels => return hard,
            Objective::Teacher(answers, weights) => (answers, weights),
        };
        let taught = |array: &Array| {
            let rows = array.rows(&batch.rows);
            Tensor::<2>::from_data(TensorData::new(rows.values, rows.shape), device)
        };
        let soft = losses::soft(said.logits, taught(&answers.logits), weights.temperature);
        let embedding = losses::embedding(said.embeddings, taught(&answers.embeddings));
        soft.mul_scalar(weights.soft)
            + hard.mul_scalar(weights.hard)
            + embedding.mul_scalar(weights.embedding)
    }

    /// Over the rows that have a label.
    fn hard(&self, logits: Tensor<2>, batch: &Batch, device: &Device) -> Tensor<1> {
        let label = |&row: &usize| self.train.labels.get(row).map(|&label| label as i64);
        let labels: Vec<Option<i64>> = batch.rows.iter().map(label).collect();
        let shape = [batch.rows.len(), 1];
        let known = labels.iter().map(|label| if label.is_some() { 1.0 } else { 0.0 }).collect();
        let known = TensorData::new::<f32, _>(known, shape);
        let labels = labels.iter().map(|label| label.unwrap_or(0)).collect();
        let labels = TensorData::new::<i64, _>(labels, shape);
        losses::hard(
            logits,
            Tensor::<2, Int>::from_data(labels, device),
            Tensor::<2>::from_data(known, device),
        )
    }

    fn encoder(&self, weights: &Weights, device: &Device) -> Encoder {
        let encoder = Encoder::new(weights, device);
        match self.objective {
            Objective::Labels => encoder.with_frozen_words(),
            Objective::Teacher(..) => encoder,
        }
    }

    /// AdamW with decay on the matrices only.
    fn optimizer(&self) -> ModuleOptimizer {
        // The default epsilon of 1e-5 is larger than the gradients of a fine-tuning.
        let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
        let decaying = plain.clone().with_weight_decay(self.training.weight_decay);
        let matrices = ParamGroup::from_regex(r"weight$").expect("a valid pattern");
        plain.init().with_group(matrices, decaying.build(), None)
    }
}

/// An encoder in the middle of a lesson.
struct Learner {
    encoder: Encoder,
    optimizer: ModuleOptimizer,
    position: Position,
    best: Weights,
    device: Device,
}

impl Learner {
    fn new(lesson: &Lesson, first: Weights) -> Learner {
        let device = Device::flex().autodiff();
        Learner {
            encoder: lesson.encoder(&first, &device),
            optimizer: lesson.optimizer(),
            position: Position::default(),
            best: first,
            device,
        }
    }

    fn resume(lesson: &Lesson, checkpoint: Checkpoint) -> Result<Learner> {
        let device = Device::flex().autodiff();
        let record = Bytes::from_bytes_vec(checkpoint.optimizer);
        let optimizer = lesson.optimizer().from_bytes(record).map_err(|error| {
            Error::Checkpoint { path: lesson.checkpoint.to_owned(), reason: error.to_string() }
        })?;
        Ok(Learner {
            encoder: lesson.encoder(&checkpoint.weights, &device),
            optimizer,
            position: checkpoint.position,
            best: checkpoint.best,
            device,
        })
    }

    fn save(&self, lesson: &Lesson) -> Result<()> {
        let record = self.optimizer.into_bytes().map_err(|error| Error::Checkpoint {
            path: lesson.checkpoint.to_owned(),
            reason: error.to_string(),
        })?;
        let checkpoint = Checkpoint {
            key: lesson.key.to_owned(),
            position: self.position.clone(),
            weights: self.encoder.weights(self.best.architecture()),
            best: self.best.clone(),
            optimizer: record.to_vec(),
        };
        checkpoint.save(lesson.checkpoint)
    }

    /// What is left of the running pass, then its measurement.
    fn epoch(mut self, lesson: &Lesson, watch: &mut Watch) -> Result<Learner> {
        let order = lesson.order(self.position.epoch);
        let parameters = self.best.architecture().encoder_parameters() as f64;
        for rows in order.iter().skip(self.position.step) {
            let started = Instant::now();
            let batch = lesson.train.batch(rows);
            self = self.step(lesson, &batch, order.len())?;
            self.position.seconds += started.elapsed().as_secs_f64();
            watch.did((3 * lesson.train.tokens() / order.len()) as f64 * parameters);
            if watch.tell(self.step_done(lesson, order.len(), watch)).is_break() {
                self.save(lesson)?;
                return Err(Error::Interrupted { checkpoint: lesson.checkpoint.to_owned() });
            }
        }
        self.measure(lesson, order.len());
        watch.did(lesson.validation.tokens() as f64 * parameters);
        if watch.tell(self.epoch_done(lesson, watch)).is_break() {
            self.save(lesson)?;
            return Err(Error::Interrupted { checkpoint: lesson.checkpoint.to_owned() });
        }
        Ok(self)
    }

    fn step(mut self, lesson: &Lesson, batch: &Batch, steps: usize) -> Result<Learner> {
        let Training { epochs, warmup, learning_rate: peak, clip_norm, .. } = *lesson.training;
        let step = self.position.epoch * steps + self.position.step;
        let rate = learning_rate(step, epochs * steps, warmup, peak);
        let said = self.encoder.forward(batch, &self.device);
        let loss = lesson.loss(said, batch, &self.device);
        let value: f32 = loss.clone().into_scalar();
        if !value.is_finite() {
            let (stage, epoch) = (lesson.stage.name(), self.position.epoch + 1);
            return Err(Error::Diverged { stage, epoch, loss: value });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.encoder);
        let gradients = clip(gradients, &self.encoder, clip_norm);
        self.encoder = self.optimizer.step(rate, self.encoder, gradients);
        self.position.step += 1;
        self.position.loss_sum += value;
        Ok(self)
    }

    fn measure(&mut self, lesson: &Lesson, steps: usize) {
        let started = Instant::now();
        let answers = ask(&self.encoder.valid(), lesson.validation, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        });
        let answers = answers.expect("nobody stops it");
        let accuracy = answers.accuracy(&lesson.validation.labels).accuracy as f32;
        let Position { epoch, step, loss_sum, seconds, history } = &mut self.position;
        if history.iter().all(|earlier| earlier.accuracy < accuracy) {
            self.best = self.encoder.weights(self.best.architecture());
        }
        history.push(Epoch { loss: *loss_sum / steps as f32, accuracy });
        (*epoch, *step, *loss_sum) = (*epoch + 1, 0, 0.0);
        *seconds += started.elapsed().as_secs_f64();
    }

    fn step_done(&self, lesson: &Lesson, steps: usize, watch: &Watch) -> Progress {
        Progress::Step {
            stage: lesson.stage,
            epoch: self.position.epoch + 1,
            epochs: lesson.training.epochs,
            step: self.position.step,
            steps,
            loss: f64::from(self.position.loss_sum / self.position.step as f32),
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
            accuracy: f64::from(last.accuracy),
            seconds_left: watch.seconds_left(),
        }
    }
}
