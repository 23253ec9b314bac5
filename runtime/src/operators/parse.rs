//! Everything that a kernel relies on, checked once: constants of the right type and extent. What passes
//! can then run without looking again.

use super::array::Operand;
use super::grid::{Grid, conv_inputs};
use super::{Attention, Embedding, Int8, Linear, Narrow, Norm, Operator, Rows, Table};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::{Attribute, DRAM_DOMAIN, Node};
use crate::kernels::{Activation, GROUPS, PANEL, RowScale};
use crate::manifest::Extent;
use crate::tensor::DType;

impl Operator {
    /// The operator that `node` is, with its constants in `bundle`; `None` for a node that our kernels do
    /// not compute.
    ///
    /// # Errors
    /// [`Error::Graph`] where a node of the domain `dram` is unknown or contradicts its kernel.
    pub(crate) fn of(bundle: &Bundle, node: &Node) -> Result<Option<Operator>> {
        let stored = Stored { bundle, node };
        if node.domain != DRAM_DOMAIN {
            return Ok(stored.layer_norm());
        }
        if let Some(grid) = stored.grid()? {
            return Ok(Some(Operator::Grid(grid)));
        }
        Ok(Some(match node.op.as_str() {
            "Embed" => stored.embed(None, 2)?,
            "EmbedInt8" => stored.embed(Some(2), 3)?,
            "GatherInt8" => Operator::Gather(stored.table(1, Some(2))?),
            "LinearF32" | "LinearF16" | "LinearInt8" | "LinearInt4" => stored.linear()?,
            "Attention" | "AttentionInt8" => Operator::Attention(Attention {
                heads: stored.extent("heads")?,
                int8: node.op == "AttentionInt8",
            }),
            "Gelu" => Operator::Gelu,
            "MeanPool" => Operator::MeanPool,
            "FirstToken" => Operator::FirstToken,
            "L2Normalize" => Operator::L2Normalize,
            _ => return Err(stored.refuse("an operator that our kernels cover", "another")),
        }))
    }

    /// The values that `node`, which this operator was made of, reads: its inputs without the constants.
    pub(crate) fn values<'a>(&self, node: &'a Node) -> Vec<&'a str> {
        let indices: &[usize] = match self {
            Operator::Embed(_)
            | Operator::Gather(_)
            | Operator::LayerNorm(_)
            | Operator::Gelu
            | Operator::FirstToken
            | Operator::L2Normalize => &[0],
            Operator::Linear(Linear { narrow: Some(Narrow::Int4(..)), .. }) => &[0, 6],
            Operator::Linear(layer) if layer.int8.is_some() => &[0, 5],
            Operator::Linear(_) => &[0, 3],
            Operator::Attention(_) | Operator::MeanPool => &[0, 1],
            Operator::Grid(Grid::Conv(_)) => &[0, conv_inputs(&node.op).0],
            Operator::Grid(Grid::Scale) => &[0, 1],
            Operator::Grid(_) => &[0],
        };
        indices.iter().filter_map(|&index| node.input(index)).collect()
    }
}

/// A node and the bundle that its constants lie in.
pub(super) struct Stored<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) node: &'a Node,
}

impl Stored<'_> {
    pub(super) fn refuse(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::graph(self.node.place(), expected, got)
    }

    fn embed(&self, scales: Option<usize>, positions: usize) -> Result<Operator> {
        let words = self.table(1, scales)?;
        let (positions, shape) = self.constant(positions, DType::F32)?;
        match shape[..] {
            [longest, width] if longest > 0 && width == words.width => {
                Ok(Operator::Embed(Embedding { words, positions, longest }))
            }
            _ => Err(self.refuse(format!("positions [n, {}]", words.width), format!("{shape:?}"))),
        }
    }

    fn table(&self, rows: usize, scales: Option<usize>) -> Result<Table> {
        let dtype = if scales.is_some() { DType::I8 } else { DType::F32 };
        let (rows, shape) = self.constant(rows, dtype)?;
        let [count, width] = shape[..] else {
            return Err(self.refuse("a table [rows, width]", format!("{shape:?}")));
        };
        if count == 0 || width == 0 {
            return Err(self.refuse("a table with elements", format!("{shape:?}")));
        }
        let scales = scales.map(|scales| self.vector(scales, count)).transpose()?;
        Ok(Table { rows, scales, width })
    }

    /// ONNX's operator over the last axis with constant gamma and beta; tract has any other.
    fn layer_norm(&self) -> Option<Operator> {
        let node = self.node;
        let plain =
            node.is("LayerNormalization") && node.int("axis", -1) == -1 && node.outputs.len() == 1;
        let (gamma, shape) = plain.then(|| self.constant(1, DType::F32).ok())??;
        let width = shape.first().copied().filter(|&width| width > 0 && shape.len() == 1)?;
        let beta = self.vector(2, width).ok()?;
        let epsilon = node.float("epsilon", 1e-5);
        Some(Operator::LayerNorm(Norm { gamma, beta, epsilon, width }))
    }

    fn linear(&self) -> Result<Operator> {
        let (k, n) = (self.extent("k")?, self.extent("n")?);
        let count = n.div_ceil(PANEL);
        let columns = count * PANEL;
        let int8 = || -> Result<Int8> {
            Ok(Int8 {
                column_sums: self.shaped(2, DType::I32, &[columns])?,
                scales: self.shaped(3, DType::F32, &[columns])?,
                rows: self.rows()?,
            })
        };
        let quads = k.div_ceil(4);
        let (panels, bias, int8, narrow) = match self.node.op.as_str() {
            "LinearInt8" => {
                (self.shaped(1, DType::I8, &[count, quads, PANEL, 4])?, 4, Some(int8()?), None)
            }
            "LinearInt4" => {
                let panels = self.shaped(1, DType::U8, &[count, quads, 2 * PANEL])?;
                let group = self.group()?;
                let multipliers = self.shaped(5, DType::U8, &[count, k.div_ceil(group), PANEL])?;
                (panels, 4, Some(int8()?), Some(Narrow::Int4(multipliers, group)))
            }
            "LinearF16" => {
                (self.shaped(1, DType::F16, &[count, k, PANEL])?, 2, None, Some(Narrow::F16))
            }
            _ => (self.shaped(1, DType::F32, &[count, k, PANEL])?, 2, None, None),
        };
        let bias = self.shaped(bias, DType::F32, &[columns])?;
        let activation = self.activation()?;
        Ok(Operator::Linear(Linear { k, n, panels, bias, int8, narrow, activation }))
    }

    /// Inputs that share a multiplier: `block_size`, as ONNX names it.
    fn group(&self) -> Result<usize> {
        let size = self.node.int("block_size", 32);
        let known = GROUPS.into_iter().find(|&group| usize::try_from(size) == Ok(group));
        known.ok_or_else(|| self.refuse("a `block_size` of 8, 16 or 32", size.to_string()))
    }

    /// The ranges of the input's rows: `x_range`, `row` or `tensor`, where none is calibrated.
    fn rows(&self) -> Result<Rows> {
        match (self.range("x")?, self.node.string("x_range", "row")) {
            (Some(range), "row") => Ok(Rows::Calibrated(range)),
            (None, "row") => Ok(Rows::Each),
            (None, "tensor") => Ok(Rows::Together),
            (_, other) => Err(self.refuse("`x_range` row, or tensor without `x_scale`", other)),
        }
    }

    /// The range that the value `name` is rounded in, where it was calibrated: `x_scale` and `x_zero_point`, or
    /// neither.
    pub(super) fn range(&self, name: &str) -> Result<Option<RowScale>> {
        let (scale, zero_point) = (format!("{name}_scale"), format!("{name}_zero_point"));
        let attribute = |name: &str| self.node.attributes.get(name);
        match (attribute(&scale), attribute(&zero_point)) {
            (None, None) => Ok(None),
            (Some(&Attribute::Float(step)), Some(&Attribute::Int(zero)))
                if step.is_normal() && step > 0.0 && u8::try_from(zero).is_ok() =>
            {
                Ok(Some(RowScale { scale: step, zero_point: zero as u8 }))
            }
            _ => {
                let expected =
                    format!("`{scale}` above 0 with `{zero_point}` 0 to 255, or neither");
                Err(self.refuse(expected, "others"))
            }
        }
    }

    /// The constant that is input `index`, which must have that type and shape.
    pub(super) fn shaped(&self, index: usize, dtype: DType, expected: &[usize]) -> Result<Extent> {
        let (extent, shape) = self.constant(index, dtype)?;
        if shape != expected {
            let expected = format!("input {index} of {dtype} {expected:?}");
            return Err(self.refuse(expected, format!("{shape:?}")));
        }
        Ok(extent)
    }

    /// A positive integer attribute.
    pub(super) fn extent(&self, name: &str) -> Result<usize> {
        let value = self.node.int(name, 0);
        usize::try_from(value)
            .ok()
            .filter(|&extent| extent > 0)
            .ok_or_else(|| self.refuse(format!("`{name}` above 0"), value.to_string()))
    }

    fn activation(&self) -> Result<Activation> {
        match self.node.string("activation", "none") {
            "none" => Ok(Activation::None),
            "gelu" => Ok(Activation::Gelu),
            "gelu_polynomial" => Ok(Activation::GeluPolynomial),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            other => {
                Err(self.refuse("activation none, gelu, gelu_polynomial, relu or tanh", other))
            }
        }
    }

    pub(super) fn constant(&self, index: usize, dtype: DType) -> Result<(Extent, Vec<usize>)> {
        let name = self.node.input(index).unwrap_or_default();
        let (extent, shape) = self.bundle.constant(name, dtype)?;
        Ok((extent, shape.to_vec()))
    }

    /// The axes that an operator of ONNX names, in its attribute or, from opset 13 on, its second input.
    pub(super) fn axes(&self) -> Option<Vec<i64>> {
        self.node.ints("axes").map(<[i64]>::to_vec).or_else(|| self.integers(1))
    }

    /// The constant integers that are input `index`.
    pub(super) fn integers(&self, index: usize) -> Option<Vec<i64>> {
        let (extent, _) = self.constant(index, DType::I64).ok()?;
        Some(bytemuck::cast_slice(self.bundle.section(extent)).to_vec())
    }

    /// What input `index` is: a computed value, or a constant in f32; `None` for another constant.
    pub(super) fn operand(&self, index: usize) -> Option<Operand> {
        let name = self.node.input(index)?;
        let known = &self.bundle.manifest().tensors;
        if !known.iter().any(|tensor| tensor.name == name) {
            return Some(Operand::Value);
        }
        let (extent, shape) = self.constant(index, DType::F32).ok()?;
        Some(Operand::Constant(extent, shape))
    }

    /// An f32 constant of `width` elements.
    fn vector(&self, index: usize, width: usize) -> Result<Extent> {
        let (extent, shape) = self.constant(index, DType::F32)?;
        match extent.bytes == (width * size_of::<f32>()) as u64 {
            true => Ok(extent),
            false => Err(self.refuse(format!("{width} elements"), format!("{shape:?}"))),
        }
    }
}
