//! The encoder that is trained: a BERT with masked mean pooling and linear heads on it.
//!
//! The exporter writes the same function as a graph; `export.rs` and this file change together.
//! Devlin et al. 2019 (BERT), Reimers and Gurevych 2019 (mean pooling).

use burn::module::{Module, Param, ParamId};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use dram_runtime::graph::Graph;

use crate::batches::{Batch, Examples};
use crate::export::{self, Outputs};
use crate::interface::{Attention, Keep, Mode, Said, State, Student};
use crate::rounding::{self, Arithmetic};
use crate::weights::{Architecture, Array, NORM_EPSILON, Weights};

/// An encoder whose parameters live on a device. Field names are the names in [`Weights`].
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    head: Option<Linear>,
    exits: Vec<Linear>,
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

impl Student for Encoder {
    type Sizes = Architecture;
    type Examples = Examples;

    fn new(weights: &Weights, device: &Device) -> Encoder {
        let Architecture { heads, layers, labels, exits, .. } = weights.architecture();
        let mut build = Build { weights, device, parameters: 0 };
        Encoder {
            words: Embedding { weight: build.parameter("words.weight") },
            positions: Embedding { weight: build.parameter("positions.weight") },
            norm: build.norm("norm"),
            layers: (0..layers).map(|layer| build.layer(layer)).collect(),
            head: (labels > 0).then(|| build.linear("head")),
            exits: (0..exits).map(|exit| build.linear(&format!("exits.{exit}"))).collect(),
            heads,
        }
    }

    fn with_frozen_words(mut self) -> Encoder {
        self.words = self.words.no_grad();
        self
    }

    /// Every linear layer sees `[batch * tokens, width]`: on this backend a matrix product of
    /// three axes takes twice the time.
    fn forward(&self, batch: &Batch, device: &Device, mode: Mode) -> Said {
        let [rows, tokens] = [batch.rows.len(), batch.tokens];
        let ids =
            Tensor::<2, Int>::from_data(TensorData::new(batch.ids.clone(), [rows, tokens]), device);
        let mask = batch.mask(device);
        let positions = self.positions.weight.val().narrow(0, 0, tokens).unsqueeze::<3>();
        let words = self.looked_up(ids, mode.arithmetic);
        let hidden = words.dims()[2];
        let bias = batch.bias(device);
        let mut x = self.norm.forward((words + positions).reshape([rows * tokens, hidden]));
        let mut states = Vec::new();
        if mode.keep == Keep::Layers {
            states.push(State { hidden: x.clone(), attention: None });
        }
        let mut logits = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let attention;
            (x, attention) = layer.forward(x, &bias, self.heads, mode);
            if mode.keep == Keep::Layers {
                states.push(State { hidden: x.clone(), attention });
            }
            if let Some(exit) = self.exits.get(index) {
                logits.push(mode.arithmetic.linear(exit, mean(x.clone(), &mask)));
            }
        }
        let embeddings = mean(x, &mask);
        let head = self.head.as_ref();
        logits.extend(head.map(|head| mode.arithmetic.linear(head, embeddings.clone())));
        Said { logits, embeddings, states }
    }

    fn graph(name: &str, weights: &Weights, metadata: &[(&str, String)]) -> Graph {
        export::graph(name, weights, Outputs::Student, metadata)
    }

    fn guesses(&self, hidden: Tensor<2>) -> Option<Tensor<2>> {
        Some(hidden.matmul(self.words.weight.val().swap_dims(0, 1)))
    }
}

impl Encoder {
    /// The same encoder without the layer `layer`.
    pub(crate) fn without(mut self, layer: usize) -> Encoder {
        self.layers.remove(layer);
        self
    }

    fn looked_up(&self, ids: Tensor<2, Int>, arithmetic: Arithmetic) -> Tensor<3> {
        let words = self.words.forward(ids);
        match arithmetic {
            Arithmetic::F32 => words,
            Arithmetic::Int8 => {
                let [rows, tokens, hidden] = words.dims();
                let flat = words.reshape([rows * tokens, hidden]);
                rounding::symmetric(flat, 1).reshape([rows, tokens, hidden])
            }
        }
    }
}

/// Mean of the rows of `x` `[batch * tokens, hidden]` that `mask` `[batch, tokens]` keeps: `[batch, hidden]`.
fn mean(x: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
    let ([batch, tokens], [_, hidden]) = (mask.dims(), x.dims());
    let kept = x.reshape([batch, tokens, hidden]) * mask.clone().reshape([batch, tokens, 1]);
    kept.sum_dim(1).squeeze_dim::<2>(1) / mask.clone().sum_dim(1)
}

impl Layer {
    /// `x` is `[batch * tokens, hidden]`, `bias` `[batch, 1, 1, tokens]`.
    fn forward(
        &self,
        x: Tensor<2>,
        bias: &Tensor<4>,
        heads: usize,
        mode: Mode,
    ) -> (Tensor<2>, Option<Attention>) {
        let ([rows, _], [batch, .., tokens]) = (x.dims(), bias.dims());
        let linear = |part: &Linear, x: Tensor<2>| mode.arithmetic.linear(part, x);
        let split = |part: &Linear| {
            let flat = linear(part, x.clone());
            let width = flat.dims()[1] / heads;
            flat.reshape([batch, tokens, heads, width]).swap_dims(1, 2)
        };
        let (queries, keys, values) = (split(&self.query), split(&self.key), split(&self.value));
        let width = queries.dims()[3];
        let scale = 1.0 / (width as f64).sqrt();
        let keep =
            (mode.keep == Keep::Layers).then(|| (queries.clone(), keys.clone(), values.clone()));
        let scores = mode.arithmetic.scores(queries, keys).mul_scalar(scale);
        let kept = keep.map(|(queries, keys, values)| {
            let scores = scores.clone();
            Attention { queries, keys, values, scores }
        });
        let attention = mode.arithmetic.attended(scores, bias.clone(), values);
        let merged = attention.swap_dims(1, 2).reshape([rows, heads * width]);
        let x = self.attention_norm.forward(linear(&self.attended, merged) + x);
        let wide = gelu(linear(&self.expand, x.clone()));
        (self.feed_forward_norm.forward(linear(&self.contract, wide) + x), kept)
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
