//! A graph that another tool quantized, to the float graph that it stands for.
//!
//! Integer weights become the floats that they stand for, and the nodes that read them are marked
//! ([`super::marks`]): with the range of their activations where the file has one. The passes then find what
//! they find in any float graph, and `quantize` turns the marked nodes into our integer ones: weights
//! that lie on a grid of at most 255 steps keep their integers. Nothing stays in f32 with rounding
//! on top.
//!
//! What is not kept: activations that no integer node reads are not rounded. That is nearer to the float model.

mod dequantize;
mod integer;
mod movement;
mod nbits;
mod pairs;
mod qlinear;
mod weights;

use crate::graph::{Graph, Node};
use crate::optimize::{Pass, constants};
use crate::tensor::DType;

/// The passes in order. Operators of integers first, because the others know pairs only; dequantized
/// values move up to what was quantized before pairs are sought; weights before pairs, because a
/// pair gives its range to the nodes that are marked.
const PASSES: [Pass; 6] =
    [qlinear::run, integer::run, nbits::run, weights::run, movement::run, pairs::run];

/// Runs all passes; returns how many rewrites they made. Leaves a graph alone that nobody quantized.
pub(crate) fn run(graph: &mut Graph) -> usize {
    let narrow = |value: Option<&str>| {
        let constant = value.and_then(|value| graph.initializers.get(value));
        constant.is_some_and(|constant| matches!(constant.dtype(), DType::I8 | DType::U8))
    };
    let concerns = |node: &Node| {
        let quantized = ["QuantizeLinear", "QLinear", "DynamicQuantizeLinear", "DequantizeLinear"];
        quantized.iter().any(|prefix| node.op.starts_with(prefix))
            || matches!(node.op.as_str(), "QGemm" | "MatMulNBits" | "MatMulInteger")
            || node.is("Cast") && narrow(node.input(0))
    };
    if !graph.nodes.iter().any(concerns) {
        return 0;
    }
    constants::run(graph);
    let rewrites = PASSES.iter().map(|pass| pass(graph)).sum();
    graph.remove_dead();
    rewrites
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
