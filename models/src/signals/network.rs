//! The network over signals: a front end that turns raw numbers into maps, convolutions, a mean, one
//! linear head. Its graph is written by `export.rs`; the two change together.
//!
//! One-dimensional signals are maps of height 1, so that one kind of convolution serves motion, sound
//! and images. Blocks are those of He et al. 2016 (ResNet), normalized as by Ioffe and Szegedy 2015.

use burn::module::{Module, Param, ParamId, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use dram_runtime::graph::Graph;

use crate::interface::{Mode, Said, Student};
use crate::signals::examples::Signals;
use crate::signals::export;
use crate::signals::front::FrontEnd;
use crate::signals::sizes::{Convolution, Convolutional, Convolutions};
use crate::weights::{Array, Weights};

/// Added to the variance in every normalization.
pub(crate) const NORM_EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics.
const NORM_MOMENTUM: f64 = 0.1;

/// A network whose parameters live on a device. Field names are the names in [`Weights`].
#[derive(Module, Debug)]
pub(crate) struct Network {
    front: FrontEnd,
    blocks: Vec<Blocks>,
    head: Linear,
}

#[derive(Module, Debug)]
struct Blocks {
    first: Normalized,
    second: Option<Normalized>,
    shortcut: Option<Normalized>,
}

/// A convolution without bias, then a normalization.
#[derive(Module, Debug)]
struct Normalized {
    weight: Param<Tensor<4>>,
    norm: BatchNorm,
    #[module(skip)]
    stride: [usize; 2],
    #[module(skip)]
    padding: [usize; 2],
}

impl Student for Network {
    type Sizes = Convolutional;
    type Examples = Signals;

    fn new(weights: &Weights<Convolutional>, device: &Device) -> Network {
        let sizes = weights.sizes();
        let mut build = Build { weights, device, parameters: 0 };
        Network {
            front: FrontEnd::new(
                &sizes.front,
                build.parameter("front.scale"),
                build.parameter("front.shift"),
                device,
            ),
            blocks: sizes.convolutions().iter().map(|block| build.block(block)).collect(),
            head: Linear {
                weight: build.parameter("head.weight"),
                bias: Some(build.parameter("head.bias")),
            },
        }
    }

    fn forward(&self, batch: &Array, device: &Device, _mode: Mode) -> Said {
        let mut x = self.front.forward(batch, device);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let [rows, channels, height, width] = x.dims();
        let means = x.reshape([rows, channels, height * width]).mean_dim(2).squeeze_dim::<2>(2);
        let logits = vec![self.head.forward(means.clone())];
        Said { logits, embeddings: means, states: Vec::new() }
    }

    fn graph(name: &str, weights: &Weights<Convolutional>, metadata: &[(&str, String)]) -> Graph {
        export::graph(name, weights, metadata)
    }
}

impl Blocks {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let first = relu(self.first.forward(x.clone()));
        let Some(second) = &self.second else { return first };
        let past = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(second.forward(first) + past)
    }
}

impl Normalized {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new(self.stride, self.padding, [1, 1], 1);
        self.norm.forward(conv2d(x, self.weight.val(), None, options))
    }
}

/// Builds the parts of a network, numbering its parameters from 1.
struct Build<'a> {
    weights: &'a Weights<Convolutional>,
    device: &'a Device,
    parameters: u64,
}

impl Build<'_> {
    fn block(&mut self, block: &Convolutions) -> Blocks {
        Blocks {
            first: self.normalized(&block.first),
            second: block.second.as_ref().map(|it| self.normalized(it)),
            shortcut: block.shortcut.as_ref().map(|it| self.normalized(it)),
        }
    }

    fn normalized(&mut self, convolution: &Convolution) -> Normalized {
        let Convolution { name, shape, stride } = convolution;
        let config =
            BatchNormConfig::new(shape[0]).with_epsilon(NORM_EPSILON).with_momentum(NORM_MOMENTUM);
        let mut norm = config.init(self.device);
        norm.gamma = self.parameter(&format!("{name}.norm.gamma"));
        norm.beta = self.parameter(&format!("{name}.norm.beta"));
        let mut running = |part: &str| {
            let running: Param<Tensor<1>> = self.parameter(&format!("{name}.norm.{part}"));
            RunningState::from_record(running.no_grad())
        };
        norm.running_mean = running("running_mean");
        norm.running_var = running("running_var");
        Normalized {
            weight: self.parameter(&format!("{name}.weight")),
            norm,
            stride: *stride,
            padding: convolution.padding(),
        }
    }

    fn parameter<const D: usize>(&mut self, name: &str) -> Param<Tensor<D>> {
        let Array { shape, values } = self.weights.get(name).clone();
        let mut parameter = Param::from_data(TensorData::new(values, shape), self.device);
        self.parameters += 1;
        parameter.id = ParamId::from(self.parameters);
        parameter
    }
}
