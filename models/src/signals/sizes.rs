//! How large a network over signals is, block by block, and what that costs.

use serde::{Deserialize, Serialize};

use crate::interface::Sizes;
use crate::signals::front::{Front, Maps};

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
        sizes.sum::<usize>() + (self.width() + 1) * self.labels
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
        work + self.width() * self.labels
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
}

impl Sizes for Convolutional {
    fn layout(&self) -> Vec<(String, Vec<usize>)> {
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
        layout.push(("head.weight".to_owned(), vec![self.width(), self.labels]));
        layout.push(("head.bias".to_owned(), vec![self.labels]));
        layout
    }

    fn work(&self) -> f64 {
        self.multiply_adds() as f64
    }

    fn width(&self) -> usize {
        self.blocks.last().map_or(self.front.maps().channels, |block| block.channels)
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
