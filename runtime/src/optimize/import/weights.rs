//! Constants of integers become the floats that they stand for, and the products and lookups that read
//! them are marked: `DequantizeLinear(q, scale, zero_point)`, also in blocks, and
//! `(Cast(q) - zero_point) · scale` as it is written out.
//!
//! Refused: integers, scales or zero points that are no constants; results that are outputs of the graph.

use std::collections::BTreeSet;

use super::dequantize::{Steps, dequantized};
use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::optimize::pattern::View;
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut floats: BTreeSet<String> = BTreeSet::new();
    let mut index = 0;
    while index < graph.nodes.len() {
        let view = View::new(graph);
        let node = view.node(index);
        let is_output = graph.outputs.iter().any(|output| output.name == node.output());
        let value = dequantize(&view, node).or_else(|| spelled_out(&view, node));
        match value.filter(|_| !is_output) {
            Some(value) => {
                let node = graph.nodes.remove(index);
                floats.insert(node.output().to_owned());
                graph.initializers.insert(node.output().to_owned(), value);
            }
            None => index += 1,
        }
    }
    let count = floats.len();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let reads = |place: usize| node.input(place).is_some_and(|name| floats.contains(name));
        match node.op.as_str() {
            "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" if node.is_onnx() && reads(0) => {
                floats.insert(node.output().to_owned());
            }
            "MatMul" | "Gemm" | "Conv" if node.is_onnx() && reads(1) => mark(graph, index),
            "Gather" if node.is_onnx() && reads(0) => mark(graph, index),
            _ => {}
        }
    }
    count
}

fn mark(graph: &mut Graph, index: usize) {
    let node = std::mem::take(&mut graph.nodes[index]);
    graph.nodes[index] = marks::quantized(node);
}

fn dequantize(view: &View, node: &Node) -> Option<Tensor> {
    if !node.is("DequantizeLinear") {
        return None;
    }
    let zero_point = match node.input(2) {
        None => None,
        Some(name) => Some(view.constant(name)?),
    };
    let steps = Steps {
        scale: view.constant(node.input(1)?)?,
        zero_point,
        axis: node.int("axis", 1),
        block: usize::try_from(node.int("block_size", 0)).ok()?,
    };
    dequantized(view.constant(node.input(0)?)?, steps)
}

/// `Cast(q) · scale` or `(Cast(q) - zero_point) · scale` of constants, the scale broadcast over `q`.
fn spelled_out(view: &View, node: &Node) -> Option<Tensor> {
    if !node.is("Mul") {
        return None;
    }
    view.both_orders(node)?.into_iter().find_map(|(steps, scale)| {
        let scale = view.constant(scale)?;
        let steps = match view.written_by(steps, "Sub") {
            None => integers(view, steps)?,
            Some(sub) => {
                let zero_point = view.constant(sub.input(1)?)?;
                spread(&integers(view, sub.input(0)?)?, zero_point, |q, zero| q - zero)?
            }
        };
        spread(&steps, scale, |steps, scale| steps * scale)
    })
}

/// The 8-bit integers of a `Cast` to f32, as floats.
fn integers(view: &View, value: &str) -> Option<Tensor> {
    let cast = view.written_by(value, "Cast").filter(|cast| cast.int("to", 0) == 1)?;
    let constant = view.constant(cast.input(0)?)?;
    let narrow = matches!(constant.dtype(), DType::I8 | DType::U8);
    let values = super::dequantize::whole(constant).filter(|_| narrow)?;
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Some(Tensor::from_f32(constant.shape(), &values))
}

/// `f` of each element of `a` and the one of `b` that it meets when `b` is broadcast over `a`.
fn spread(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Option<Tensor> {
    let (values, other, shape) = (a.to_f32()?, b.to_f32()?, a.shape());
    let lead = shape.len().checked_sub(b.shape().len())?;
    let fits = shape[lead..].iter().zip(b.shape()).all(|(&a, &b)| b == a || b == 1);
    if !fits {
        return None;
    }
    let meets = |mut index: usize| {
        let (mut place, mut step) = (0, 1);
        for (&extent, &own) in shape[lead..].iter().zip(b.shape()).rev() {
            place += if own == 1 { 0 } else { index % extent * step };
            (index, step) = (index / extent, step * own);
        }
        place
    };
    let result = values.iter().enumerate().map(|(index, &value)| f(value, other[meets(index)]));
    Some(Tensor::from_f32(shape, &result.collect::<Vec<f32>>()))
}
