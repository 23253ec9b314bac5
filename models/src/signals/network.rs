//! The network over signals: a front end that turns raw numbers into maps, convolutions, a mean, one
//! linear head. Its graph is written by `export.rs`; the two change together.
//!
//! One-dimensional signals are maps of height 1, so that one kind of convolution serves motion, sound
//! and images. Blocks are those of He et al. 2016 (ResNet), normalized as by Ioffe and Szegedy 2015.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::signals::front::{Front, FrontEnd, Maps};
use crate::signals::weights::Weights;
use crate::weights::Array;

/// Added to the variance in every normalization.
pub(crate) const NORM_EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics.
const NORM_MOMENTUM: f64 = 0.1;

/// The sizes of a network over signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Convolutional {
    /// What it is given, and the maps that are made of it.
    pub front: Front,
    /// Its convolutions, in order.
    pub blocks: Vec<Block>,
    /// Classes.
    pub labels: usize,
}

/// One block of convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// What it is made of.
    pub kind: Kind,
    /// Channels that it gives.
    pub channels: usize,
    /// Height and width of its kernels, both odd: half of each is the padding.
    pub kernel: [usize; 2],
    /// Steps of its first convolution.
    pub stride: [usize; 2],
}

/// What a block is made of. Each convolution is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A convolution and a rectifier.
    Plain,
    /// A convolution, a rectifier and a second convolution, whose result is added to the block's input
    /// before the last rectifier. Where channels or stride change, the input goes through a convolution
    /// of one pixel.
    Residual,
}

/// One convolution of a network, its normalization aside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Convolution {
    /// The path of its parameters.
    pub(crate) name: String,
    /// Output channels, input channels, height, width.
    pub(crate) shape: [usize; 4],
    pub(crate) stride: [usize; 2],
}

/// The convolutions of one block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Convolutions {
    pub(crate) first: Convolution,
    pub(crate) second: Option<Convolution>,
    pub(crate) shortcut: Option<Convolution>,
}

impl Convolutional {
    /// All parameters that are trained, as they stand in the graph: normalizations are folded away.
    pub fn parameters(&self) -> usize {
        let convolutions = self.convolutions().into_iter().flat_map(Convolutions::all);
        let sizes = convolutions.map(|it| it.shape.iter().product::<usize>() + it.shape[0]);
        sizes.sum::<usize>() + (self.embedding() + 1) * self.labels
    }

    /// Multiply-adds of the convolutions and the head for one signal.
    pub fn multiply_adds(&self) -> usize {
        let mut maps = self.front.maps();
        let mut work = 0;
        for convolutions in self.convolutions() {
            let Convolutions { first, second, shortcut } = &convolutions;
            let after = first.over(maps);
            work += first.work(maps) + shortcut.as_ref().map_or(0, |it| it.work(maps));
            work += second.as_ref().map_or(0, |it| it.work(after));
            maps = after;
        }
        work + self.embedding() * self.labels
    }

    /// Width of what the head reads.
    pub(crate) fn embedding(&self) -> usize {
        self.blocks.last().map_or(self.front.maps().channels, |block| block.channels)
    }

    /// The convolutions of every block.
    pub(crate) fn convolutions(&self) -> Vec<Convolutions> {
        let mut channels = self.front.maps().channels;
        let each = self.blocks.iter().enumerate().map(|(index, block)| {
            let Block { kind, channels: to, kernel: [height, width], stride } = *block;
            let from = std::mem::replace(&mut channels, to);
            let convolution = |part: &str, shape, stride| Convolution {
                name: format!("blocks.{index}.{part}"),
                shape,
                stride,
            };
            let residual = kind == Kind::Residual;
            let changes = from != to || stride != [1, 1];
            Convolutions {
                first: convolution("first", [to, from, height, width], stride),
                second: residual.then(|| convolution("second", [to, to, height, width], [1, 1])),
                shortcut: (residual && changes)
                    .then(|| convolution("shortcut", [to, from, 1, 1], stride)),
            }
        });
        each.collect()
    }

    /// Names and shapes of all parameters.
    pub(crate) fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let channels = self.front.maps().channels;
        let mut layout: Vec<_> =
            ["front.scale", "front.shift"].map(|name| (name.to_owned(), vec![channels])).into();
        for convolution in self.convolutions().into_iter().flat_map(Convolutions::all) {
            let Convolution { name, shape, .. } = convolution;
            layout.push((format!("{name}.weight"), shape.to_vec()));
            for part in ["gamma", "beta", "running_mean", "running_var"] {
                layout.push((format!("{name}.norm.{part}"), vec![shape[0]]));
            }
        }
        layout.push(("head.weight".to_owned(), vec![self.embedding(), self.labels]));
        layout.push(("head.bias".to_owned(), vec![self.labels]));
        layout
    }
}

impl Convolution {
    /// Rows and columns of padding on each side.
    pub(crate) fn padding(&self) -> [usize; 2] {
        [self.shape[2] / 2, self.shape[3] / 2]
    }

    fn over(&self, maps: Maps) -> Maps {
        let [channels, _, height, width] = self.shape;
        // With odd kernels and half of them as padding: the extent over the stride, rounded up.
        let extent = |extent: usize, kernel: usize, stride: usize| {
            (extent + 2 * (kernel / 2) - kernel) / stride + 1
        };
        Maps {
            channels,
            height: extent(maps.height, height, self.stride[0]),
            width: extent(maps.width, width, self.stride[1]),
        }
    }

    fn work(&self, maps: Maps) -> usize {
        let after = self.over(maps);
        self.shape.iter().product::<usize>() * after.height * after.width
    }
}

impl Convolutions {
    fn all(self) -> impl Iterator<Item = Convolution> {
        [Some(self.first), self.second, self.shortcut].into_iter().flatten()
    }
}

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

impl Network {
    /// A network with these weights on `device`. Equal layouts give equal parameter ids, so an
    /// optimizer's saved state fits whatever network is built later.
    pub(crate) fn new(weights: &Weights, device: &Device) -> Network {
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

    /// Logits `[rows, labels]` of `batch` `[rows, ...]`, computed on `device`, which must be the
    /// network's.
    pub(crate) fn forward(&self, batch: &Array, device: &Device) -> Tensor<2> {
        let mut x = self.front.forward(batch, device);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let [rows, channels, height, width] = x.dims();
        let means = x.reshape([rows, channels, height * width]).mean_dim(2).squeeze_dim::<2>(2);
        self.head.forward(means)
    }

    /// The parameters as they are now; `sizes` are those it was built with.
    pub(crate) fn weights(&self, sizes: &Convolutional) -> Weights {
        let mut collect = Collect::default();
        // Running statistics reach their place only in a snapshot.
        self.valid().visit(&mut collect);
        Weights::new(sizes.clone(), collect.arrays).expect("a network keeps its layout")
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
    weights: &'a Weights,
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
