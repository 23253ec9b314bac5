//! One network in the middle of a lesson, with its optimizer and what it is compared through.

use burn::module::{Module, Param, ParamGroup, ParamId};
use burn::nn::Linear;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, Device, Tensor, TensorData};

use super::{Course, Former, Lesson, Who, WordEmbeddings};
use crate::checkpoint::PupilState;
use crate::clip::clip;
use crate::error::{Error, Result};
use crate::interface::{Mode, Sizes, Student, arrays};
use crate::recipe::Rounding;
use crate::rounding::Arithmetic;
use crate::seed::Random;
use crate::weights::{Array, Weights};

/// Parameter ids of the projections start here, far above those of any network.
const FIRST_PROJECTION: u64 = 1 << 32;

/// What is trained: the network, and the projections that are thrown away afterwards.
#[derive(Module, Debug)]
pub(super) struct Trainee<S: Module> {
    pub(super) network: S,
    /// One for each pair of layers whose token vectors are compared.
    pub(super) hidden: Vec<Linear>,
    /// One for each teacher whose kept embeddings are of another width.
    pub(super) embeddings: Vec<Linear>,
}

/// A trainee, its optimizer, and the weights that it leaves behind.
pub(super) struct Pupil<S: Student> {
    pub(super) trainee: Trainee<S>,
    optimizer: ModuleOptimizer,
    /// The weights with the best measurement so far; those it started from before the first pass.
    pub(super) best: Weights<S::Sizes>,
    /// Itself as it was, where that teaches it.
    pub(super) past: Option<Past<S>>,
}

/// A pupil as it was, without gradients.
pub(super) struct Past<S: Student> {
    pub(super) weights: Weights<S::Sizes>,
    pub(super) network: S,
}

impl<S: Student> Past<S> {
    pub(super) fn new(weights: Weights<S::Sizes>, device: &Device) -> Past<S> {
        Past { network: S::new(&weights, device), weights }
    }
}

impl<S: Student> Trainee<S> {
    /// `weights` on `device`, with new projections for `course`.
    fn new(
        weights: &Weights<S::Sizes>,
        course: &Course<S>,
        seed: u64,
        device: &Device,
    ) -> Trainee<S> {
        let network = S::new(weights, device);
        let network = match course.words {
            WordEmbeddings::Frozen => network.with_frozen_words(),
            WordEmbeddings::Trained => network,
        };
        let width = weights.sizes().width();
        let mut next = FIRST_PROJECTION;
        let mut projection = |input: usize, output: usize| {
            let mut random = Random::new(seed, "projection", (next - FIRST_PROJECTION) as usize);
            let scale = 1.0 / (input as f32).sqrt();
            let value = |place: usize| match input == output {
                true => f32::from(u8::from(place / output == place % output)),
                false => scale * random.normal(),
            };
            let weight = (0..input * output).map(value).collect();
            next += 2;
            Linear {
                weight: parameter(weight, [input, output], next, device),
                bias: Some(parameter(vec![0.0; output], [output], next + 1, device)),
            }
        };
        let pairs = course.losses.hidden.as_ref().map_or(0, |hidden| hidden.layers.len());
        let hidden = (0..pairs).map(|_| projection(width, width)).collect();
        let others = other_widths(course, width);
        let embeddings = others.into_iter().map(|other| projection(width, other)).collect();
        Trainee { network, hidden, embeddings }
    }
}

/// The widths of kept embeddings that differ from `width`, in the order of the teachers.
fn other_widths<S: Student>(course: &Course<S>, width: usize) -> Vec<usize> {
    let widths = course.teachers.iter().filter_map(|teaching| match teaching.who {
        Who::Answers(answers) => answers.embeddings.as_ref().map(|array| array.shape[1]),
        _ => None,
    });
    match course.losses.embedding {
        Some(_) => widths.filter(|&other| other != width).collect(),
        None => Vec::new(),
    }
}

fn parameter<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    id: u64,
    device: &Device,
) -> Param<Tensor<D>> {
    let mut parameter = Param::from_data(TensorData::new(values, shape), device);
    parameter.id = ParamId::from(id);
    parameter
}

impl<S: Student> Pupil<S> {
    pub(super) fn new(
        lesson: &Lesson<S>,
        course: &Course<S>,
        first: Weights<S::Sizes>,
        device: &Device,
    ) -> Pupil<S> {
        Pupil {
            trainee: Trainee::new(&first, course, lesson.seed, device),
            optimizer: optimizer(lesson),
            past: match course.former() {
                Some(Former::Average(_)) => Some(Past::new(first.clone(), lesson.device)),
                _ => None,
            },
            best: first,
        }
    }

    pub(super) fn resume(
        lesson: &Lesson<S>,
        course: &Course<S>,
        state: PupilState<S::Sizes>,
        device: &Device,
    ) -> Result<Pupil<S>> {
        let record = Bytes::from_bytes_vec(state.optimizer);
        let fault =
            |reason: String| Error::Checkpoint { path: lesson.checkpoint.to_owned(), reason };
        let optimizer =
            optimizer(lesson).from_bytes(record).map_err(|error| fault(error.to_string()))?;
        let mut trainee = Trainee::new(&state.weights, course, lesson.seed, device);
        for (name, parts) in
            [("hidden", &mut trainee.hidden), ("embeddings", &mut trainee.embeddings)]
        {
            for (index, part) in parts.iter_mut().enumerate() {
                let array = |kind: &str| {
                    let name = format!("{name}.{index}.{kind}");
                    let array = state.projections.get(&name);
                    array.cloned().ok_or_else(|| fault(format!("it lacks `{name}`")))
                };
                restore(&mut part.weight, array("weight")?, device);
                part.bias.iter_mut().try_for_each(|bias| {
                    restore(bias, array("bias")?, device);
                    Ok::<(), Error>(())
                })?;
            }
        }
        let past = state.former.map(|weights| Past::new(weights, lesson.device));
        Ok(Pupil { trainee, optimizer, best: state.best, past })
    }

    pub(super) fn state(&self, lesson: &Lesson<S>) -> Result<PupilState<S::Sizes>> {
        let record = self.optimizer.into_bytes().map_err(|error| Error::Checkpoint {
            path: lesson.checkpoint.to_owned(),
            reason: error.to_string(),
        })?;
        let mut projections = arrays(&self.trainee);
        projections.retain(|name, _| !name.starts_with("network."));
        Ok(PupilState {
            weights: self.weights(),
            best: self.best.clone(),
            former: self.past.as_ref().map(|past| past.weights.clone()),
            projections,
            optimizer: record.to_vec(),
        })
    }

    /// The weights as they are now.
    pub(super) fn weights(&self) -> Weights<S::Sizes> {
        self.trainee.network.weights(self.best.sizes())
    }

    /// One step down `gradients`, which are cut to the recipe's norm first.
    pub(super) fn step(
        mut self,
        lesson: &Lesson<S>,
        course: &Course<S>,
        rate: f64,
        gradients: GradientsParams,
    ) -> Pupil<S> {
        let gradients = clip(gradients, &self.trainee, lesson.training.clip_norm);
        self.trainee = self.optimizer.step(rate, self.trainee, gradients);
        if let (Some(Former::Average(decay)), Some(past)) = (course.former(), &mut self.past) {
            past.weights.move_towards(&self.trainee.network.weights(self.best.sizes()), decay);
            past.network = S::new(&past.weights, lesson.device);
        }
        self
    }
}

/// In what numbers a pupil computes in pass `epoch`.
pub(super) fn mode(int8: Option<Rounding>, epoch: usize) -> Mode {
    let rounded = int8.is_some_and(|rounding| epoch >= rounding.after_epochs);
    let arithmetic = if rounded { Arithmetic::Int8 } else { Arithmetic::F32 };
    Mode { arithmetic, ..Mode::default() }
}

fn restore<const D: usize>(parameter: &mut Param<Tensor<D>>, array: Array, device: &Device) {
    let id = parameter.id;
    *parameter = Param::from_data(TensorData::new(array.values, array.shape), device);
    parameter.id = id;
}

/// AdamW with decay on matrices and kernels only.
fn optimizer(lesson: &Lesson<impl Student>) -> ModuleOptimizer {
    // The default epsilon of 1e-5 is larger than the gradients of a fine-tuning.
    let plain = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0);
    let decaying = plain.clone().with_weight_decay(lesson.training.weight_decay);
    let matrices = ParamGroup::from_regex(r"weight$").expect("a valid pattern");
    plain.init().with_group(matrices, decaying.build(), None)
}
