//! Operators over images `[batch, rows, columns, channels]`, or `[batch, columns, channels]` where there is
//! one row: convolutions, pooling, and functions of one number.

mod compute;
mod conv;
mod parse;

pub(super) use parse::conv_inputs;
#[cfg(feature = "tract")]
pub(crate) use parse::window_of;

use super::{Element, Needs, NetworkWork, Work, surplus};
use crate::kernels::{
    PANEL, Pointwise, Pooling, RowScale, Slide, Window, patch_len, quantized_width,
};
use crate::manifest::Extent;

/// A node over images; extents lie in the bundle.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each node, of which most are convolutions")]
pub(crate) enum Grid {
    /// An image, and perhaps a residual like the result, to an image.
    Conv(Conv),
    /// What a window takes of an image; all of it where there is none.
    Pool(Pooling, Option<Window>),
    /// Each element by itself, or by its channel.
    Pointwise(Stage),
    /// An image, and a factor for each channel `[batch, 1, 1, channels]`, to their product.
    Scale,
}

/// A convolution and what it does to its sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    pub(crate) window: Window,
    /// Channels of the image, and of the result.
    pub(crate) channels: usize,
    pub(crate) n: usize,
    pub(crate) weights: Weights,
    /// Where the weights are int8.
    pub(crate) int8: Option<Int8>,
    pub(crate) bias: Extent,
    pub(crate) stage: Stage,
    /// What each channel of the result is multiplied with last, where nothing is added.
    pub(crate) factors: Option<Extent>,
    /// Whether a residual is added before the function.
    pub(crate) residual_first: bool,
    /// How the result is rounded, where it is u8.
    pub(crate) y: Option<RowScale>,
}

/// The elements of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

/// The elements of a result.
#[derive(Debug)]
pub(crate) enum Results<'a> {
    F32(&'a mut [f32]),
    U8(&'a mut [u8]),
}

/// The packed weights of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights {
    /// Panels of each group, as a linear layer of `taps * channels / groups` inputs has them.
    Dense { panels: Extent, groups: usize },
    /// `[taps, channels]`.
    Depthwise(Extent),
}

/// What stands beside int8 weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int8 {
    pub(crate) scales: Extent,
    /// Sums of the columns of panels.
    pub(crate) column_sums: Option<Extent>,
    /// How the image is rounded, where that was calibrated; else in a range of its own.
    pub(crate) x: Option<RowScale>,
}

/// A function of one number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) pointwise: Pointwise<'static>,
    /// Slopes of the channels, in place of its function.
    pub(crate) slopes: Option<Extent>,
}

impl Stage {
    /// The number itself.
    pub(crate) const NONE: Stage = Stage { pointwise: Pointwise::NONE, slopes: None };
}

/// The parts of an image's shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) batch: usize,
    pub(crate) grid: [usize; 2],
    pub(crate) channels: usize,
}

impl Image {
    /// Those of a shape of rank three or four.
    pub(crate) fn of(shape: &[usize]) -> Option<Image> {
        match *shape {
            [batch, columns, channels] => Some(Image { batch, grid: [1, columns], channels }),
            [batch, rows, columns, channels] => {
                Some(Image { batch, grid: [rows, columns], channels })
            }
            _ => None,
        }
    }
}

impl Grid {
    /// The shape of the result for an image of shape `x`; `None` where they do not belong together.
    pub(crate) fn output(&self, x: &[usize]) -> Option<Vec<usize>> {
        let channels = match self {
            Grid::Pointwise(Stage { slopes, .. }) => {
                let fits = slopes.is_none_or(|slopes| {
                    x.last().is_some_and(|&width| slopes.bytes == 4 * width as u64)
                });
                return fits.then(|| x.to_vec());
            }
            Grid::Scale => return Image::of(x).map(|_| x.to_vec()),
            Grid::Conv(conv) => conv.n,
            Grid::Pool(..) => *x.last()?,
        };
        let [rows, columns] = self.slide(x)?.places();
        let mut shape = vec![x[0], rows, columns, channels];
        if x.len() == 3 {
            shape.remove(1);
        }
        Some(shape)
    }

    /// The window over the grid of an image of shape `x`.
    fn slide(&self, x: &[usize]) -> Option<Slide> {
        let image = Image::of(x)?;
        let window = match self {
            Grid::Conv(conv) if image.channels != conv.channels => return None,
            Grid::Conv(conv) => conv.window,
            Grid::Pool(_, Some(window)) => *window,
            Grid::Pool(_, None) => Window { kernel: image.grid, ..Window::CELL },
            Grid::Pointwise(_) | Grid::Scale => Window::CELL,
        };
        window.over(image.grid)
    }

    /// The arithmetic of a run on an image of shape `x` that lies as `element` says.
    pub(crate) fn work(&self, x: &[usize], element: Element) -> Work {
        let Some(output) = self.output(x) else { return Work::default() };
        let (read, written) = (x.iter().product::<usize>(), output.iter().product::<usize>());
        let Grid::Conv(conv) = self else {
            let network = match self {
                Grid::Pool(_, window) => {
                    let pooled = window.map_or(read, |window| window.taps() * written) as u64;
                    NetworkWork { pooled, ..NetworkWork::default() }
                }
                _ => NetworkWork { f32_values: (read + written) as u64, ..NetworkWork::default() },
            };
            return Work { network, ..Work::default() };
        };
        let macs = (written * conv.terms()) as u64;
        let int8_macs = if conv.int8.is_some() { macs } else { 0 };
        let network = conv.work(read, written);
        let surplus = surplus::of_conv(conv, (read, element), written);
        let all = Work { macs, int8_macs, surplus, network, ..Work::default() };
        Work { conv_macs: macs, int8_conv_macs: int8_macs, ..all }
    }

    /// The scratch of a run on an image of shape `x` by `threads`.
    pub(crate) fn needs(&self, x: &[usize], threads: usize) -> Needs {
        let Grid::Conv(conv) = self else { return Needs::default() };
        let patch = conv.patch() * threads;
        match conv.int8 {
            None => Needs { patch, ..Needs::default() },
            Some(_) => {
                let quantized = x.iter().product();
                Needs { quantized, patch_bytes: patch, ..Needs::default() }
            }
        }
    }

    /// Whether the result is u8.
    pub(crate) fn is_rounded(&self) -> bool {
        matches!(self, Grid::Conv(conv) if conv.y.is_some())
    }
}

impl Conv {
    /// Products that one sum adds.
    pub(crate) fn terms(&self) -> usize {
        match self.weights {
            Weights::Dense { groups, .. } => self.window.taps() * self.channels / groups,
            Weights::Depthwise(_) => self.window.taps(),
        }
    }

    /// Whether the cells under a window have to be brought together before they are multiplied.
    pub(crate) fn gathers(&self) -> bool {
        match self.weights {
            Weights::Dense { groups, .. } => groups > 1 || self.window != Window::CELL,
            Weights::Depthwise(_) => false,
        }
    }

    /// What a run does that reads an image of `read` numbers and writes one of `written`.
    fn work(&self, read: usize, written: usize) -> NetworkWork {
        let (layers, written_values) = (1, written as u64);
        let all = match self.int8 {
            None => NetworkWork { layers, f32_values: written_values, ..NetworkWork::default() },
            Some(int8) => {
                // An image without a known range is gone through twice before it is u8.
                let rounded = if int8.x.is_none() { 2 * read as u64 } else { 0 };
                let int8_values = rounded + written_values;
                NetworkWork { layers, int8_values, ..NetworkWork::default() }
            }
        };
        let Weights::Dense { groups, .. } = self.weights else {
            let macs = (written * self.terms()) as u64;
            return match self.int8 {
                None => NetworkWork { f32_depthwise_macs: macs, ..all },
                Some(_) => NetworkWork { int8_depthwise_macs: macs, ..all },
            };
        };
        let rows = written / self.n * groups;
        let macs = (rows * self.terms() * (self.n / groups).next_multiple_of(PANEL)) as u64;
        let all = match self.int8 {
            None => NetworkWork { f32_panel_macs: macs, ..all },
            Some(_) => NetworkWork { int8_panel_macs: macs, ..all },
        };
        if !self.gathers() {
            return all;
        }
        let Window { kernel, dilations, .. } = self.window;
        let lines = if groups == 1 && dilations[1] == 1 { kernel[0] } else { self.window.taps() };
        let (gathered, gathered_pieces) = ((rows * self.terms()) as u64, (rows * lines) as u64);
        NetworkWork { gathered, gathered_pieces, ..all }
    }

    /// Elements of scratch that gathering takes, for one thread.
    fn patch(&self) -> usize {
        match (self.weights, self.int8) {
            (Weights::Depthwise(_), _) => 0,
            (_, None) => patch_len(self.terms()),
            (_, Some(_)) => patch_len(quantized_width(self.terms())),
        }
    }
}
