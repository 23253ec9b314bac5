//! All pupils of a lesson, step by step: they see the same batches at the same time.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};

use super::loss::{Truth, loss};
use super::masked::Masked;
use super::pupil::{Past, Pupil, Trainee, mode};
use super::taught::taught;
use super::{Course, Former, Lesson, Who};
use crate::answers::{Answers, ask};
use crate::checkpoint::{Checkpoint, Epoch, Position, Trained};
use crate::error::{Error, Result};
use crate::interface::{Batched, Dataset, Keep, Mode, Said, Sizes, Student};
use crate::progress::{Progress, Watch};
use crate::schedule::learning_rate;
use crate::seed::Random;
use crate::weights::Weights;

/// The pupils of a lesson, somewhere between its first step and its last.
pub(super) struct Class<'a, S: Student> {
    lesson: &'a Lesson<'a, S>,
    pupils: Vec<Pupil<S>>,
    position: Position,
    device: Device,
}

impl<'a, S: Student> Class<'a, S> {
    pub(super) fn new(lesson: &'a Lesson<'a, S>, first: Vec<Weights<S::Sizes>>) -> Class<'a, S> {
        let device = lesson.device.clone().autodiff();
        let pupils = lesson.courses.iter().zip(first);
        let pupils: Vec<Pupil<S>> =
            pupils.map(|(course, first)| Pupil::new(lesson, course, first, &device)).collect();
        let position = Position::new(pupils.len());
        Class { lesson, pupils, position, device }
    }

    pub(super) fn resume(
        lesson: &'a Lesson<'a, S>,
        checkpoint: Checkpoint<S::Sizes>,
    ) -> Result<Class<'a, S>> {
        let device = lesson.device.clone().autodiff();
        let pupils = lesson.courses.iter().zip(checkpoint.pupils);
        let pupils = pupils.map(|(course, state)| Pupil::resume(lesson, course, state, &device));
        let pupils = pupils.collect::<Result<_>>()?;
        Ok(Class { lesson, pupils, position: checkpoint.position, device })
    }

    pub(super) fn save(&self) -> Result<()> {
        let pupils = self.pupils.iter().map(|pupil| pupil.state(self.lesson));
        let checkpoint = Checkpoint {
            key: self.lesson.key.to_owned(),
            position: self.position.clone(),
            pupils: pupils.collect::<Result<_>>()?,
        };
        checkpoint.save(self.lesson.checkpoint)
    }

    pub(super) fn finish(self) -> Vec<Trained<S::Sizes>> {
        let Position { histories, seconds, .. } = self.position;
        let pupils = self.pupils.into_iter().zip(histories);
        pupils.map(|(pupil, history)| Trained { weights: pupil.best, history, seconds }).collect()
    }

    /// Whether all passes are done, or enough of them brought nothing.
    pub(super) fn is_done(&self) -> bool {
        let training = self.lesson.training;
        let late = |patience: usize| {
            let stale = self.position.histories.iter().zip(&self.lesson.courses);
            let mut stale = stale.map(|(history, course)| without_gain(history, course));
            self.position.epoch > 0 && stale.all(|stale| stale >= patience)
        };
        self.position.epoch >= training.epochs || training.patience.is_some_and(late)
    }

    /// Multiply-adds so far.
    pub(super) fn work_done(&self) -> f64 {
        let steps = self.lesson.train.len().div_ceil(self.lesson.training.batch);
        self.work_per_epoch()
            * (self.position.epoch as f64 + self.position.step as f64 / steps as f64)
    }

    /// Multiply-adds of the passes that will not be run any more.
    pub(super) fn work_left(&self) -> f64 {
        self.work_per_epoch() * (self.lesson.training.epochs - self.position.epoch) as f64
    }

    fn work_per_epoch(&self) -> f64 {
        self.pupils.iter().map(|pupil| self.lesson.work_per_epoch(pupil.best.sizes())).sum()
    }

    /// Multiply-adds of all pupils for one unit of what they read.
    fn work_per_unit(&self) -> f64 {
        self.pupils.iter().map(|pupil| pupil.best.sizes().work()).sum()
    }

    /// What is left of the running pass, then its measurement.
    pub(super) fn epoch(&mut self, watch: &mut Watch) -> Result<()> {
        let lesson = self.lesson;
        let order = lesson.order(self.position.epoch);
        let work = self.work_per_unit();
        for rows in order.iter().skip(self.position.step) {
            let started = Instant::now();
            self.exchange(order.len())?;
            self.step(rows, order.len())?;
            let seconds = started.elapsed().as_secs_f64();
            self.position.seconds += seconds;
            watch.did((3 * lesson.train.units() / order.len()) as f64 * work);
            let rate = rows.len() as f64 / seconds;
            let progress = self.step_done(order.len(), rate, watch);
            self.told(watch.tell(progress))?;
        }
        self.measure(order.len());
        watch.did(lesson.exam.examples().units() as f64 * work);
        let progress = self.epoch_done(watch);
        self.told(watch.tell(progress))
    }

    fn told(&self, flow: ControlFlow<()>) -> Result<()> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.save()?;
                Err(Error::Interrupted { checkpoint: self.lesson.checkpoint.to_owned() })
            }
        }
    }

    /// Leaves a checkpoint for other processes and listens to theirs, where it is time for it.
    fn exchange(&self, steps: usize) -> Result<()> {
        let step = self.position.epoch * steps + self.position.step;
        for (course, pupil) in self.lesson.courses.iter().zip(&self.pupils) {
            for teaching in &course.teachers {
                if let Who::Workers(workers) = teaching.who {
                    workers.exchange(step, || pupil.weights())?;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, rows: &[usize], steps: usize) -> Result<()> {
        let lesson = self.lesson;
        let training = lesson.training;
        let (step, all) =
            (self.position.epoch * steps + self.position.step, training.epochs * steps);
        let rate = learning_rate(step, all, training.warmup, training.learning_rate);
        let part = rows.len().div_ceil(training.parts.unwrap_or(1));
        let mut sums: Vec<GradientsAccumulator<Trainee<S>>> =
            self.pupils.iter().map(|_| GradientsAccumulator::new()).collect();
        for (index, part) in rows.chunks(part).enumerate() {
            let share = part.len() as f64 / rows.len() as f64;
            let losses = self.losses(part, step, index);
            for (pupil, loss) in losses.iter().enumerate() {
                let value: f32 = loss.clone().into_scalar();
                if !value.is_finite() {
                    let (stage, epoch) = (lesson.stage.name(), self.position.epoch + 1);
                    return Err(Error::Diverged { stage, epoch, loss: value });
                }
                self.position.loss_sums[pupil] += value * share as f32;
            }
            let sum = losses.into_iter().reduce(|a, b| a + b).expect("a class has pupils");
            let mut gradients = sum.mul_scalar(share).backward();
            for (pupil, sum) in self.pupils.iter().zip(&mut sums) {
                let gradients = GradientsParams::from_module(&mut gradients, &pupil.trainee);
                sum.accumulate(&pupil.trainee, gradients);
            }
        }
        let pupils = std::mem::take(&mut self.pupils).into_iter().zip(&lesson.courses).zip(sums);
        let step =
            |((pupil, course), mut sum): ((Pupil<S>, &Course<S>), GradientsAccumulator<_>)| {
                pupil.step(lesson, course, rate, sum.grads())
            };
        self.pupils = pupils.map(step).collect();
        self.position.step += 1;
        Ok(())
    }

    /// What each pupil loses on part `part` of the examples of step `step`.
    fn losses(&self, rows: &[usize], step: usize, part: usize) -> Vec<Tensor<1>> {
        let (lesson, device) = (self.lesson, &self.device);
        let mut batch = lesson.train.batch(rows);
        let masked = self.hide(&mut batch, step, part);
        let truth = Truth::new(&batch, rows, lesson.train.labels(), masked, device);
        let said: Vec<Said> = self.forward(&batch);
        let progress = self.progress();
        let each = lesson.courses.iter().zip(&self.pupils).zip(&said);
        let lost = |((course, pupil), own): ((&Course<S>, &Pupil<S>), &Said)| {
            let taught = taught(course, pupil, &said, (&batch, rows), progress, device);
            loss(course, &pupil.trainee, own, &taught, &truth, progress)
        };
        each.map(lost).collect()
    }

    fn forward(&self, batch: &<S::Examples as Dataset>::Batch) -> Vec<Said> {
        let courses = &self.lesson.courses;
        let inside =
            |course: &Course<S>| course.losses.looks_inside() || course.losses.words.is_some();
        let keep = if courses.iter().any(inside) { Keep::Layers } else { Keep::Answers };
        let said = |(course, pupil): (&Course<S>, &Pupil<S>)| {
            let mode = mode(course.int8, self.position.epoch);
            let mode = Mode { keep, ..mode };
            pupil.trainee.network.forward(batch, &self.device, mode)
        };
        courses.iter().zip(&self.pupils).map(said).collect()
    }

    /// Hides words of `batch` where any pupil is to guess them.
    fn hide(&self, batch: &mut impl Batched, step: usize, part: usize) -> Option<Masked> {
        let words = self.lesson.courses.iter().find_map(|course| course.losses.words)?;
        let mask = self.lesson.mask?;
        let mut random = Random::new(self.lesson.seed, &format!("masked/{part}"), step);
        batch.hide(words.share, mask, &mut random)
    }

    /// How much of the training is behind when this pass begins, 0 to 1.
    fn progress(&self) -> f64 {
        self.position.epoch as f64 / (self.lesson.training.epochs - 1).max(1) as f64
    }

    fn measure(&mut self, steps: usize) {
        let started = Instant::now();
        let epoch = self.position.epoch;
        let loss_sums =
            std::mem::replace(&mut self.position.loss_sums, vec![0.0; self.pupils.len()]);
        for (index, pupil) in self.pupils.iter_mut().enumerate() {
            let course = &self.lesson.courses[index];
            let mode = mode(course.int8, epoch);
            let (weights, network) = match (course.former(), &pupil.past) {
                (Some(Former::Average(_)), Some(past)) => {
                    (past.weights.clone(), past.network.clone())
                }
                _ => (pupil.weights(), pupil.trainee.network.valid()),
            };
            let exam = self.lesson.exam;
            let answers: Option<Answers> =
                ask(&network, self.lesson.device, exam.examples(), mode, &mut |_, _| {
                    ControlFlow::Continue(())
                });
            let score = exam.grade(&answers.expect("nobody stops it")) as f32;
            let history = &mut self.position.histories[index];
            if comparable(history, course).iter().all(|earlier| earlier.score < score) {
                pupil.best = weights;
            }
            history.push(Epoch { loss: loss_sums[index] / steps as f32, score });
            let every = match course.former() {
                Some(Former::Snapshot(every)) => every,
                Some(Former::Progressive(_)) => 1,
                Some(Former::Average(_)) | None => usize::MAX,
            };
            if (epoch + 1).is_multiple_of(every) {
                pupil.past = Some(Past::new(pupil.weights(), self.lesson.device));
            }
        }
        let Position { epoch, step, seconds, .. } = &mut self.position;
        (*epoch, *step) = (*epoch + 1, 0);
        *seconds += started.elapsed().as_secs_f64();
    }

    fn step_done(&self, steps: usize, examples_per_second: f64, watch: &Watch) -> Progress {
        let last = self.position.loss_sums.last().copied().unwrap_or_default();
        Progress::Step {
            stage: self.lesson.stage,
            epoch: self.position.epoch + 1,
            epochs: self.lesson.training.epochs,
            step: self.position.step,
            steps,
            loss: f64::from(last / self.position.step as f32),
            examples_per_second,
            seconds_left: watch.seconds_left(),
        }
    }

    fn epoch_done(&self, watch: &Watch) -> Progress {
        let history = self.position.histories.last().and_then(|history| history.last());
        let last = history.expect("an epoch was just measured");
        Progress::Epoch {
            stage: self.lesson.stage,
            epoch: self.position.epoch,
            epochs: self.lesson.training.epochs,
            loss: f64::from(last.loss),
            score: f64::from(last.score),
            measure: self.lesson.exam.measure(),
            seconds_left: watch.seconds_left(),
        }
    }
}

/// The passes that were measured in the numbers that the next one is measured in. What f32 scored says
/// nothing about int8.
fn comparable<'a, S: Student>(history: &'a [Epoch], course: &Course<S>) -> &'a [Epoch] {
    match course.int8 {
        Some(rounding) if history.len() >= rounding.after_epochs => {
            &history[rounding.after_epochs..]
        }
        _ => history,
    }
}

/// Passes since the best one.
fn without_gain<S: Student>(history: &[Epoch], course: &Course<S>) -> usize {
    let history = comparable(history, course);
    let best = history.iter().map(|epoch| epoch.score).fold(f32::NEG_INFINITY, f32::max);
    let place = history.iter().position(|epoch| epoch.score >= best);
    place.map_or(0, |place| history.len() - 1 - place)
}

#[cfg(test)]
mod tests {
    use super::super::WordEmbeddings;
    use super::*;
    use crate::encoder::Encoder;
    use crate::recipe::{Losses, Rounding};

    #[test]
    fn gain_is_counted_within_one_arithmetic() {
        let course = |int8| Course::<Encoder> {
            losses: Losses::labels(),
            teachers: Vec::new(),
            exits: None,
            int8,
            words: WordEmbeddings::Trained,
        };
        let history: Vec<Epoch> =
            [0.5, 0.9, 0.6, 0.7, 0.7].map(|score| Epoch { loss: 1.0, score }).into();
        assert_eq!(without_gain(&history, &course(None)), 3);
        assert_eq!(without_gain(&history, &course(Some(Rounding { after_epochs: 2 }))), 1);
        assert_eq!(without_gain(&history, &course(Some(Rounding { after_epochs: 5 }))), 0);
    }
}
