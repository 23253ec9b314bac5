//! The encoder that is trained: a BERT with masked mean pooling and one linear head.
//!
//! The exporter writes the same function as a graph; `export.rs` and this file change together.
//! Devlin et al. 2019 (BERT), Reimers and Gurevych 2019 (mean pooling).

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::batches::Batch;
use crate::weights::{Architecture, Array, NORM_EPSILON, Weights};

/// Added to the scores of padding before the softmax; e^-10000 is zero in f32.
pub(crate) const MASKED_SCORE: f32 = -1e4;

/// An encoder whose parameters live on a device. Field names are the names in [`Weights`].
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    head: Linear,
    #[module(skip)]
    heads: usize,
}

#[derive(Module, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attention_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    feed_forward_norm: LayerNorm,
}

/// What an encoder says about a batch.
pub(crate) struct Said {
    /// `[batch, labels]`.
    pub(crate) logits: Tensor<2>,
    /// Mean of the token vectors, `[batch, hidden]`.
    pub(crate) embeddings: Tensor<2>,
}

impl Encoder {
    /// An encoder with these weights on `device`. Equal layouts give equal parameter ids, so an
    /// optimizer's saved state fits whatever encoder is built later.
    pub(crate) fn new(weights: &Weights, device: &Device) -> Encoder {
        let Architecture { heads, layers, .. } = weights.architecture();
        let mut build = Build { weights, device, parameters: 0 };
        Encoder {
            words: Embedding { weight: build.parameter("words.weight") },
            positions: Embedding { weight: build.parameter("positions.weight") },
            norm: build.norm("norm"),
            layers: (0..layers).map(|layer| build.layer(layer)).collect(),
            head: build.linear("head"),
            heads,
        }
    }

    /// The same encoder with its word embeddings left out of training.
    pub(crate) fn with_frozen_words(mut self) -> Encoder {
        self.words = self.words.no_grad();
        self
    }

    /// The parameters as they are now; `architecture` is the one it was built with.
    pub(crate) fn weights(&self, architecture: Architecture) -> Weights {
        let mut collect = Collect::default();
        self.visit(&mut collect);
        Weights::new(architecture, collect.arrays).expect("an encoder keeps its layout")
    }

    /// Logits and embeddings of `batch`, computed on `device`, which must be the encoder's.
    pub(crate) fn forward(&self, batch: &Batch, device: &Device) -> Said {
        let shape = [batch.rows.len(), batch.tokens];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(batch.ids.clone(), shape), device);
        let mask = Tensor::<2>::from_data(TensorData::new(batch.mask.clone(), shape), device);
        let embeddings = self.embed(ids, mask);
        Said { logits: self.head.forward(embeddings.clone()), embeddings }
    }

    /// Every linear layer sees `[batch * tokens, width]`: on this backend a matrix product of
    /// three axes takes twice the time.
    fn embed(&self, ids: Tensor<2, Int>, mask: Tensor<2>) -> Tensor<2> {
        let [batch, tokens] = ids.dims();
        let positions = self.positions.weight.val().narrow(0, 0, tokens).unsqueeze::<3>();
        let words = self.words.forward(ids);
        let hidden = words.dims()[2];
        let bias = (mask.clone() - 1.0).mul_scalar(-MASKED_SCORE).reshape([batch, 1, 1, tokens]);
        let mut x = self.norm.forward((words + positions).reshape([batch * tokens, hidden]));
        for layer in &self.layers {
            x = layer.forward(x, &bias, self.heads);
        }
        let kept = x.reshape([batch, tokens, hidden]) * mask.clone().reshape([batch, tokens, 1]);
        kept.sum_dim(1).squeeze_dim::<2>(1) / mask.sum_dim(1)
    }
}

impl Layer {
    /// `x` is `[batch * tokens, hidden]`, `bias` `[batch, 1, 1, tokens]`.
    fn forward(&self, x: Tensor<2>, bias: &Tensor<4>, heads: usize) -> Tensor<2> {
        let ([rows, hidden], [batch, .., tokens]) = (x.dims(), bias.dims());
        let width = hidden / heads;
        let split = |part: &Linear| {
            part.forward(x.clone()).reshape([batch, tokens, heads, width]).swap_dims(1, 2)
        };
        let scale = 1.0 / (width as f64).sqrt();
        let scores = split(&self.query).matmul(split(&self.key).swap_dims(2, 3)).mul_scalar(scale);
        let attention = softmax(scores + bias.clone(), 3).matmul(split(&self.value));
        let merged = attention.swap_dims(1, 2).reshape([rows, hidden]);
        let x = self.attention_norm.forward(self.attended.forward(merged) + x);
        let wide = gelu(self.expand.forward(x.clone()));
        self.feed_forward_norm.forward(self.contract.forward(wide) + x)
    }
}

/// Builds the parts of an encoder, numbering its parameters from 1.
struct Build<'a> {
    weights: &'a Weights,
    device: &'a Device,
    parameters: u64,
}

impl Build<'_> {
    fn layer(&mut self, layer: usize) -> Layer {
        let name = |part| format!("layers.{layer}.{part}");
        Layer {
            query: self.linear(&name("query")),
            key: self.linear(&name("key")),
            value: self.linear(&name("value")),
            attended: self.linear(&name("attended")),
            attention_norm: self.norm(&name("attention_norm")),
            expand: self.linear(&name("expand")),
            contract: self.linear(&name("contract")),
            feed_forward_norm: self.norm(&name("feed_forward_norm")),
        }
    }

    fn linear(&mut self, name: &str) -> Linear {
        Linear {
            weight: self.parameter(&format!("{name}.weight")),
            bias: Some(self.parameter(&format!("{name}.bias"))),
        }
    }

    fn norm(&mut self, name: &str) -> LayerNorm {
        let gamma = self.parameter(&format!("{name}.gamma"));
        let width = gamma.val().dims()[0];
        let mut norm = LayerNormConfig::new(width).with_epsilon(NORM_EPSILON).init(self.device);
        norm.gamma = gamma;
        norm.beta = Some(self.parameter(&format!("{name}.beta")));
        norm
    }

    fn parameter<const D: usize>(&mut self, name: &str) -> Param<Tensor<D>> {
        let Array { shape, values } = self.weights.get(name).clone();
        let mut parameter = Param::from_data(TensorData::new(values, shape), self.device);
        self.parameters += 1;
        parameter.id = ParamId::from(self.parameters);
        parameter
    }
}

/// Reads every parameter of a module under its path.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    arrays: std::collections::BTreeMap<String, Array>,
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
