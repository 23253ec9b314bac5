//! What nodes over images and their constants say, checked once.

use super::{Conv, Grid, Int8, Stage, Weights};
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::kernels::{Function, MOST_INT8_INPUTS, PANEL, Padding, Pointwise, Pooling, Window};
use crate::manifest::Extent;
use crate::operators::parse::Stored;
use crate::tensor::DType;

/// Largest extent of a kernel, stride, dilation or padding: beyond it products of extents could overflow.
const MOST: i64 = 1 << 20;

/// Where the residual and the slopes stand among the inputs of a stored convolution; factors follow them.
pub(in crate::operators) fn conv_inputs(op: &str) -> (usize, usize) {
    match op {
        "ConvInt8" => (5, 6),
        "DepthwiseInt8" => (4, 5),
        _ => (3, 4),
    }
}

/// A convolution without what it does to its sums.
struct Layer {
    window: Window,
    channels: usize,
    n: usize,
    weights: Weights,
    int8: Option<Int8>,
    bias: Extent,
}

impl Stored<'_> {
    /// The operator over images that the node is; `None` where its name is that of none.
    pub(in crate::operators) fn grid(&self) -> Result<Option<Grid>> {
        Ok(Some(match self.node.op.as_str() {
            "ConvF32" | "ConvInt8" => Grid::Conv(self.conv()?),
            "DepthwiseF32" | "DepthwiseInt8" => Grid::Conv(self.depthwise()?),
            "Pool" => Grid::Pool(self.pooling()?, Some(self.window()?)),
            "GlobalPool" => Grid::Pool(self.pooling()?, None),
            "Pointwise" => Grid::Pointwise(self.stage(1)?),
            "Scale" => Grid::Scale,
            _ => return Ok(None),
        }))
    }

    fn conv(&self) -> Result<Conv> {
        let window = self.window()?;
        let (channels, n, groups) =
            (self.extent("channels")?, self.extent("n")?, self.extent("group")?);
        if !channels.is_multiple_of(groups) || !n.is_multiple_of(groups) {
            return Err(self.refuse("channels and `n` in whole groups", format!("group {groups}")));
        }
        let count = (n / groups).div_ceil(PANEL);
        let terms = window.taps().checked_mul(channels / groups);
        let terms =
            terms.ok_or_else(|| self.refuse("a window that fits memory", "a larger one"))?;
        let columns = [groups * count * PANEL];
        let (panels, int8, bias) = if self.is_int8() {
            if terms > MOST_INT8_INPUTS {
                let expected = format!("at most {MOST_INT8_INPUTS} terms");
                return Err(self.refuse(expected, terms.to_string()));
            }
            let panels =
                self.shaped(1, DType::I8, &[groups, count, terms.div_ceil(4), PANEL, 4])?;
            let column_sums = Some(self.shaped(2, DType::I32, &columns)?);
            let scales = self.shaped(3, DType::F32, &columns)?;
            let int8 = Int8 { scales, column_sums, x: self.range("x")? };
            (panels, Some(int8), self.shaped(4, DType::F32, &columns)?)
        } else {
            let panels = self.shaped(1, DType::F32, &[groups, count, terms, PANEL])?;
            (panels, None, self.shaped(2, DType::F32, &columns)?)
        };
        let weights = Weights::Dense { panels, groups };
        self.finished(Layer { window, channels, n, weights, int8, bias })
    }

    fn depthwise(&self) -> Result<Conv> {
        let (window, channels) = (self.window()?, self.extent("channels")?);
        let dtype = if self.is_int8() { DType::I8 } else { DType::F32 };
        let weights = Weights::Depthwise(self.shaped(1, dtype, &[window.taps(), channels])?);
        let (int8, bias) = match self.is_int8() {
            true => {
                let scales = self.shaped(2, DType::F32, &[channels])?;
                let int8 = Int8 { scales, column_sums: None, x: self.range("x")? };
                (Some(int8), self.shaped(3, DType::F32, &[channels])?)
            }
            false => (None, self.shaped(2, DType::F32, &[channels])?),
        };
        if window.taps() > MOST_INT8_INPUTS {
            return Err(self.refuse(format!("at most {MOST_INT8_INPUTS} taps"), "more"));
        }
        self.finished(Layer { window, channels, n: channels, weights, int8, bias })
    }

    fn is_int8(&self) -> bool {
        self.node.op.ends_with("Int8")
    }

    fn finished(&self, layer: Layer) -> Result<Conv> {
        let Layer { window, channels, n, weights, int8, bias } = layer;
        let (residual, slopes) = conv_inputs(&self.node.op);
        let stage = self.stage(slopes)?;
        if stage.slopes.is_some() {
            self.shaped(slopes, DType::F32, &[n])?;
        }
        let factors = match (self.node.input(slopes + 1), self.node.input(residual)) {
            (None, _) => None,
            (Some(_), None) => Some(self.shaped(slopes + 1, DType::F32, &[n])?),
            (Some(_), Some(residual)) => {
                return Err(self.refuse("no residual beside factors", format!("`{residual}`")));
            }
        };
        let residual_first = match self.node.string("residual", "after") {
            "before" => true,
            "after" => false,
            other => return Err(self.refuse("a residual `before` or `after`", other)),
        };
        let y = self.range("y")?;
        Ok(Conv { window, channels, n, weights, int8, bias, stage, factors, residual_first, y })
    }

    fn pooling(&self) -> Result<Pooling> {
        match self.node.string("pooling", "") {
            "max" => Ok(Pooling::Max),
            "mean" => Ok(Pooling::Mean),
            "mean_of_all" => Ok(Pooling::MeanOfAll),
            other => Err(self.refuse("pooling max, mean or mean_of_all", other)),
        }
    }

    fn window(&self) -> Result<Window> {
        window_of(self.node)
    }

    /// The function of one number, whose slopes are the constant `slopes`.
    fn stage(&self, slopes: usize) -> Result<Stage> {
        let number = |name: &str| {
            let value = self.node.float(name, f32::NAN);
            match value.is_nan() {
                true => Err(self.refuse(format!("a number `{name}`"), "none")),
                false => Ok(value),
            }
        };
        let mut vector = None;
        let function = match self.node.string("activation", "none") {
            "none" => Function::Identity,
            "clip" => Function::Clip { least: number("alpha")?, most: number("beta")? },
            "leaky_relu" => Function::LeakyRelu(number("alpha")?),
            "prelu" => {
                let (extent, shape) = self.constant(slopes, DType::F32)?;
                if shape.len() != 1 {
                    return Err(self.refuse("a slope a channel", format!("{shape:?}")));
                }
                vector = Some(extent);
                Function::Identity
            }
            "hard_sigmoid" => {
                Function::HardSigmoid { alpha: number("alpha")?, beta: number("beta")? }
            }
            "hard_swish" => Function::HardSwish { alpha: number("alpha")?, beta: number("beta")? },
            "sigmoid" => Function::Sigmoid,
            "silu" => Function::Silu,
            "gelu" => Function::Gelu,
            "gelu_tanh" => Function::GeluTanh,
            "tanh" => Function::Tanh,
            other => return Err(self.refuse("an activation that our kernels cover", other)),
        };
        let (scale, shift) = (self.node.float("scale", 1.0), self.node.float("shift", 0.0));
        Ok(Stage { pointwise: Pointwise { function, scale, shift }, slopes: vector })
    }
}

/// The window that a node over images says.
pub(crate) fn window_of(node: &Node) -> Result<Window> {
    let [rows, columns] = extents(node, "kernel", 1)?;
    let padding = match node.string("padding", "fixed") {
        "fixed" => {
            let [above, left, below, right] = extents(node, "pads", 0)?;
            Padding::Fixed { before: [above, left], after: [below, right] }
        }
        "same_upper" => Padding::SameUpper,
        "same_lower" => Padding::SameLower,
        other => {
            let expected = "padding fixed, same_upper or same_lower";
            return Err(Error::graph(node.place(), expected, other));
        }
    };
    Ok(Window {
        kernel: [rows, columns],
        strides: extents(node, "strides", 1)?,
        dilations: extents(node, "dilations", 1)?,
        padding,
    })
}

/// N integers from `least` up.
fn extents<const N: usize>(node: &Node, name: &str, least: i64) -> Result<[usize; N]> {
    let values = node.ints(name).unwrap_or_default();
    let fits = values.len() == N && values.iter().all(|value| (least..=MOST).contains(value));
    let expected = || format!("`{name}` of {N} numbers from {least} to {MOST}");
    match (fits, values.first_chunk::<N>()) {
        (true, Some(values)) => Ok(values.map(|value| value as usize)),
        _ => Err(Error::graph(node.place(), expected(), format!("{values:?}"))),
    }
}
