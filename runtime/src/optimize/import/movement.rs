//! Integers that are only moved are moved as floats: `DequantizeLinear(Reshape(q))` becomes
//! `Reshape(DequantizeLinear(q))`, so that what was quantized and what is dequantized stand side by side.
//! The same for `Transpose`, `Squeeze`, `Unsqueeze`, `Flatten`, `Slice`, `Gather`, `Expand` and `MaxPool`.
//!
//! Refused: scales that belong to an axis, and constants.

use crate::graph::{Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};

const MOVES: [&str; 9] = [
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Slice",
    "Gather",
    "Expand",
    "MaxPool",
];

pub(super) fn run(graph: &mut Graph) -> usize {
    // Each round moves past one operator at least, and there are not more of them than nodes.
    let most = graph.nodes.len();
    let rounds = (0..most).map(|_| rewrite_all(graph, find));
    rounds.take_while(|&rewrites| rewrites > 0).sum()
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    if !node.is("DequantizeLinear") || view.constant(node.input(1)?)?.len() != 1 {
        return None;
    }
    let moved = view.writer(node.input(0)?)?;
    let moves = moved.is_onnx() && MOVES.contains(&moved.op.as_str()) && moved.outputs.len() == 1;
    let source = moved.input(0).filter(|source| moves && view.constant(source).is_none())?;
    let float = format!("{}.unmoved", node.output());
    let mut dequantize = Node { outputs: vec![float.clone()], name: float.clone(), ..node.clone() };
    source.clone_into(&mut dequantize.inputs[0]);
    let mut after =
        Node { outputs: node.outputs.clone(), name: node.output().to_owned(), ..moved.clone() };
    after.inputs[0] = float;
    Some(Rewrite { nodes: vec![dequantize, after], ..Rewrite::new(index, node.clone()) })
}
