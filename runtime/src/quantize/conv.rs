//! `dram.Conv(x, weight, bias, residual, slopes, factors)` to its stored forms: `dram.ConvF32` and `dram.ConvInt8` with
//! the panels of a linear layer for each group, or `dram.DepthwiseF32` and `dram.DepthwiseInt8` where each
//! channel is a group of its own.

use super::{Packed, finite};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Graph, Node};
use crate::kernels::{
    MOST_INT8_INPUTS, PANEL, column_sums, pack_f32 as panels_f32, pack_i8, pad_columns,
    quantize_columns,
};
use crate::tensor::Tensor;

pub(super) fn pack_f32(graph: &Graph, node: Node) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let Layer { n, groups, inputs, taps, .. } = layer;
    if layer.is_depthwise() {
        let constants = vec![
            ("weights", Tensor::from_f32(&[taps, n], &layer.group(0, n))),
            ("bias", Tensor::from_f32(&[n], &layer.bias)),
        ];
        return Ok(layer.stored("DepthwiseF32", node, constants));
    }
    let (terms, columns) = (taps * inputs, n / groups);
    let parts = 0..groups;
    let panels: Vec<f32> = parts
        .clone()
        .flat_map(|group| panels_f32(&layer.group(group * columns, columns), terms, columns))
        .collect();
    let bias: Vec<f32> =
        parts.flat_map(|group| pad_columns(&layer.bias[group * columns..][..columns])).collect();
    let shape = [groups, columns.div_ceil(PANEL), terms, PANEL];
    let constants = vec![
        ("panels", Tensor::from_f32(&shape, &panels)),
        ("bias", Tensor::from_f32(&[bias.len()], &bias)),
    ];
    Ok(layer.stored("ConvF32", node, constants))
}

pub(super) fn pack_int8(graph: &Graph, node: Node) -> Result<Packed> {
    let layer = Layer::of(graph, &node)?;
    let Layer { n, groups, inputs, taps, .. } = layer;
    if layer.is_depthwise() {
        let (weights, scales) = quantize_columns(&layer.group(0, n), taps, n);
        let constants = vec![
            ("weights", Tensor::from_i8(&[taps, n], &weights)),
            ("scales", Tensor::from_f32(&[n], &scales)),
            ("bias", Tensor::from_f32(&[n], &layer.bias)),
        ];
        return Ok(layer.stored("DepthwiseInt8", node, constants));
    }
    let (terms, columns) = (taps * inputs, n / groups);
    let (mut panels, mut sums, mut scales, mut bias) = (vec![], vec![], vec![], vec![]);
    for first in (0..n).step_by(columns) {
        let (weights, steps) = quantize_columns(&layer.group(first, columns), terms, columns);
        panels.extend(pack_i8(&weights, terms, columns).expect("rounding keeps within ±127"));
        sums.extend(column_sums(&weights, terms, columns));
        scales.extend(pad_columns(&steps));
        bias.extend(pad_columns(&layer.bias[first..][..columns]));
    }
    let shape = [groups, columns.div_ceil(PANEL), terms.div_ceil(4), PANEL, 4];
    let all = [sums.len()];
    let constants = vec![
        ("panels", Tensor::from_i8(&shape, &panels)),
        ("column_sums", Tensor::from_i32(&all, &sums)),
        ("scales", Tensor::from_f32(&all, &scales)),
        ("bias", Tensor::from_f32(&all, &bias)),
    ];
    Ok(layer.stored("ConvInt8", node, constants))
}

/// Whether sums of int8 products of such weights fit 32 bits.
pub(super) fn fits_int8(weight: &Tensor) -> bool {
    let shape = weight.shape();
    shape.len() == 4 && shape[1..].iter().product::<usize>() <= MOST_INT8_INPUTS
}

/// A convolution's weights as ONNX has them, `[n, inputs, taps]`, where `inputs` are the channels of a group.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    n: usize,
    groups: usize,
    inputs: usize,
    taps: usize,
}

impl Layer {
    fn of(graph: &Graph, node: &Node) -> Result<Layer> {
        let name = node.input(1).unwrap_or_default();
        let weight = finite(graph, name)?;
        let refuse = |expected: &str, got: String| Err(Error::graph(node.place(), expected, got));
        let &[n, inputs, rows, columns] = graph.initializers[name].shape() else {
            return refuse("weights of rank 4", format!("`{name}` of another rank"));
        };
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if weight.is_empty() || groups == 0 || !n.is_multiple_of(groups) {
            return refuse("outputs in whole groups", format!("{n} in {groups}"));
        }
        let bias = match node.input(2) {
            Some(bias) => finite(graph, bias)?,
            None => vec![0.0; n],
        };
        if bias.len() != n {
            return refuse("a bias an output", format!("{} for {n}", bias.len()));
        }
        Ok(Layer { weight, bias, n, groups, inputs, taps: rows * columns })
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.inputs == 1 && self.n == self.groups
    }

    /// The weights of outputs `first..first + count`, `[taps, inputs, count]`.
    fn group(&self, first: usize, count: usize) -> Vec<f32> {
        let Layer { inputs, taps, .. } = *self;
        let output = |tap: usize, input: usize, n: usize| {
            self.weight[((first + n) * inputs + input) * taps + tap]
        };
        let terms = (0..taps).flat_map(|tap| (0..inputs).map(move |input| (tap, input)));
        terms.flat_map(|(tap, input)| (0..count).map(move |n| output(tap, input, n))).collect()
    }

    fn stored(&self, op: &str, node: Node, constants: Vec<(&str, Tensor)>) -> Packed {
        // Named after the output: two layers may share one weight, yet differ in bias.
        let name = |part: &str| format!("{}.{part}", node.output());
        let named: Vec<(String, Tensor)> =
            constants.into_iter().map(|(part, tensor)| (name(part), tensor)).collect();
        let mut inputs = vec![node.input(0).unwrap_or_default().to_owned()];
        inputs.extend(named.iter().map(|(name, _)| name.clone()));
        inputs.extend(node.inputs.iter().skip(3).cloned());
        let stored = Node { op: op.to_owned(), inputs, ..node }
            .with("channels", Attribute::Int((self.inputs * self.groups) as i64))
            .with("n", Attribute::Int(self.n as i64));
        (stored, named)
    }
}
