//! What training asks of whoever learns: an encoder of texts, a network over signals.
//!
//! A [`Student`] says the same function twice: as the trainer computes it, and as the graph that leaves.
//! Before a student is written, the two are held to each other in the runtime.

use std::collections::BTreeMap;
use std::fmt::Debug;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use dram_runtime::graph::Graph;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::features::Tokens;
use crate::rounding::Arithmetic;
use crate::seed::Random;
use crate::train::{Mask, Masked};
use crate::weights::{Array, Weights};

/// Numbers that decide which parameters a network has.
pub(crate) trait Sizes: Debug + Clone + PartialEq + Serialize + DeserializeOwned {
    /// Names and shapes of all parameters.
    fn layout(&self) -> Vec<(String, Vec<usize>)>;

    /// Multiply-adds for one [unit](Dataset::units) of what it learns from, about.
    fn work(&self) -> f64;

    /// Width of the vector that the head reads.
    fn width(&self) -> usize;
}

/// A network that can be trained here and run elsewhere.
pub(crate) trait Student: Module + ModuleDisplay {
    /// What decides its parameters.
    type Sizes: Sizes;
    /// What it learns from.
    type Examples: Dataset;

    /// A network with these weights on `device`. Equal layouts give equal parameter ids, so an
    /// optimizer's saved state fits whatever network is built later.
    fn new(weights: &Weights<Self::Sizes>, device: &Device) -> Self;

    /// What it says about `batch`, computed on `device`, which must be the network's.
    fn forward(
        &self,
        batch: &<Self::Examples as Dataset>::Batch,
        device: &Device,
        mode: Mode,
    ) -> Said;

    /// The function of [`Student::forward`] with these weights as the graph `name`; `metadata` becomes
    /// properties of the model.
    fn graph(name: &str, weights: &Weights<Self::Sizes>, metadata: &[(&str, String)]) -> Graph;

    /// The same network with its word embeddings left out of training, where it has any.
    fn with_frozen_words(self) -> Self {
        self
    }

    /// `[rows, words]`: how well each word fits the token vectors `hidden` `[rows, hidden]`; none where it
    /// knows no words.
    fn guesses(&self, _hidden: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    /// The parameters as they are now; `sizes` are those it was built with. The network must be one that is
    /// trained.
    fn weights(&self, sizes: &Self::Sizes) -> Weights<Self::Sizes> {
        // Running statistics reach their place only in a snapshot.
        Weights::new(sizes.clone(), arrays(&self.valid())).expect("a network keeps its layout")
    }
}

/// Examples in the order of their rows; those after the last label have none.
pub(crate) trait Dataset {
    /// Some of them, side by side.
    type Batch: Batched;

    /// How many there are.
    fn len(&self) -> usize;

    /// The index of the label of each.
    fn labels(&self) -> &[usize];

    /// What the work on all of them is counted in: tokens, or examples of one size.
    fn units(&self) -> usize;

    /// The examples `rows`.
    fn batch(&self, rows: &[usize]) -> Self::Batch;

    /// All of them, a batch at a time, as they are asked about fastest.
    fn in_turn(&self) -> Vec<Vec<usize>>;

    /// All of them in random order, `size` at a time.
    fn shuffled(&self, size: usize, random: &mut Random) -> Vec<Vec<usize>>;
}

/// Examples side by side. What is said here is said of texts; signals have neither tokens nor words.
pub(crate) trait Batched {
    /// Which tokens count.
    fn tokens(&self, _device: &Device) -> Option<Tokens> {
        None
    }

    /// Hides a `share` of the words, to be guessed; `mask` stands for a hidden one.
    fn hide(&mut self, _share: f64, _mask: Mask, _random: &mut Random) -> Option<Masked> {
        None
    }
}

/// How a forward pass is computed and what of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mode {
    pub(crate) arithmetic: Arithmetic,
    pub(crate) keep: Keep,
}

/// What of a forward pass is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Keep {
    /// The answers.
    #[default]
    Answers,
    /// What every layer made of the tokens, too.
    Layers,
}

/// What a network says about a batch.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// `[batch, labels]` of each early exit, then of the head; empty where there is no head.
    pub(crate) logits: Vec<Tensor<2>>,
    /// What the head reads, `[batch, width]`: the mean of the token vectors, or of each map.
    pub(crate) embeddings: Tensor<2>,
    /// The embedding layer's state, then each layer's; empty unless they are kept.
    pub(crate) states: Vec<State>,
}

/// What a layer made of the tokens.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// `[batch * tokens, hidden]`.
    pub(crate) hidden: Tensor<2>,
    /// None for the embedding layer.
    pub(crate) attention: Option<Attention>,
}

/// The inside of an attention block, each `[batch, heads, tokens, ..]`.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) queries: Tensor<4>,
    pub(crate) keys: Tensor<4>,
    pub(crate) values: Tensor<4>,
    /// Scaled, without the mask.
    pub(crate) scores: Tensor<4>,
}

/// Every parameter of `module` by its path.
pub(crate) fn arrays(module: &impl Module) -> BTreeMap<String, Array> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.arrays
}

/// Reads every parameter of a module under its path.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    arrays: BTreeMap<String, Array>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().try_to_vec().expect("parameters are f32");
        self.arrays.insert(self.path.join("."), Array { shape, values });
    }
}
