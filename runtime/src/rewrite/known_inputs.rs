//! Inputs whose values decide shapes: their values become constants of the graph before tract sees it.
//!
//! The inputs stay where they are, but nothing reads them any more.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Node};
use crate::shapes::Fact;

/// Positions of the inputs whose values, not only their shapes, tract must know to compile `graph`.
pub(crate) fn deciding(graph: &Graph) -> Vec<usize> {
    let names = deciding_names(graph);
    let inputs = graph.inputs.iter().enumerate();
    inputs.filter(|(_, input)| names.contains(&input.name)).map(|(index, _)| index).collect()
}

/// `graph` with the values of its inputs as constants, where `facts`, in their order, know them.
pub(crate) fn fix<'a>(graph: &'a Graph, facts: &[Fact]) -> Cow<'a, Graph> {
    if facts.iter().all(|fact| fact.value.is_none()) {
        return Cow::Borrowed(graph);
    }
    let mut graph = graph.clone();
    for (index, fact) in facts.iter().enumerate() {
        let Some(value) = &fact.value else { continue };
        let input = graph.inputs[index].name.clone();
        let constant = format!("{input}/known");
        let renamed = BTreeMap::from([(input, constant.clone())]);
        graph.nodes.iter_mut().for_each(|node| node.rename_reads(&renamed));
        graph.initializers.insert(constant, value.clone());
    }
    Cow::Owned(graph)
}

/// The values from around `graph`, and its inputs, that decide shapes within it.
fn deciding_names(graph: &Graph) -> BTreeSet<String> {
    let mut deciding = BTreeSet::new();
    // Backwards, every reader of a value comes before its writer.
    for node in graph.nodes.iter().rev() {
        // Shapes are known without the values.
        let carries = !matches!(node.op.as_str(), "Shape" | "Size")
            && node.outputs.iter().any(|output| deciding.contains(output));
        let operands = deciding_operands(node);
        let read = node.inputs.iter().enumerate();
        let read = read.filter(|(place, _)| carries || operands.contains(place));
        deciding.extend(read.map(|(_, name)| name.clone()));
        deciding.extend(node.subgraphs().flat_map(|subgraph| {
            let mut names = deciding_names(subgraph);
            names.retain(|name| !subgraph.inputs.iter().any(|input| input.name == *name));
            names
        }));
    }
    let made: BTreeSet<&String> = graph.nodes.iter().flat_map(|node| &node.outputs).collect();
    deciding.retain(|name| {
        !name.is_empty() && !made.contains(name) && !graph.initializers.contains_key(name)
    });
    deciding
}

/// The operands of which tract wants the values: those that decide a shape, and those that it makes
/// part of the operator (scales and zero points, axes, modes).
fn deciding_operands(node: &Node) -> &'static [usize] {
    if !node.is_onnx() {
        return &[];
    }
    match node.op.as_str() {
        "Reshape" | "Expand" | "Tile" | "Unsqueeze" | "Squeeze" | "Split" | "TopK" | "CumSum"
        | "CumProd" | "Trilu" | "CenterCropPad" | "AffineGrid" | "Upsample" | "Compress" => &[1],
        reduce if reduce.starts_with("Reduce") => &[1],
        "ConstantOfShape" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => &[0],
        "DFT" | "OneHot" | "QuantizeLinear" | "DequantizeLinear" | "Col2Im" => &[1, 2],
        "Pad" | "Resize" | "STFT" => &[1, 2, 3],
        "MaxUnpool" => &[2],
        "Range" => &[0, 1, 2],
        "Slice" | "BatchNormalization" => &[1, 2, 3, 4],
        "MelWeightMatrix" => &[0, 1, 2, 3, 4],
        "QLinearMatMul" => &[1, 2, 4, 5, 6, 7],
        "LSTM" | "GRU" | "RNN" => &[4],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;
    use crate::graph::{Dim, ValueSpec};
    use crate::tensor::{DType, Tensor};

    /// `y = Reshape(x, Min(n x 1, Shape(x)))`.
    fn graph() -> Graph {
        Graph {
            name: "reshape".to_owned(),
            opsets: [(String::new(), 17)].into(),
            inputs: vec![
                ValueSpec::new("x", DType::F32, &[Dim::Fixed(6)]),
                ValueSpec::new("n", DType::I64, &[Dim::Fixed(2)]),
            ],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes: vec![
                Node::new("Shape", &["x"], &["all"]),
                Node::new("Mul", &["n", "one"], &["m"]),
                Node::new("Min", &["m", "all"], &["shape"]),
                Node::new("Reshape", &["x", "shape"], &["y"]),
            ],
            initializers: [("one".to_owned(), Tensor::from_i64(&[2], &[1, 1]))].into(),
            ..Graph::default()
        }
    }

    #[test]
    fn values_are_followed_through_arithmetic_but_not_through_shape() {
        assert_eq!(deciding(&graph()), [1]);
    }

    #[test]
    fn a_fixed_value_decides_the_shape() {
        let graph = graph();
        let x = Tensor::from_f32(&[6], &[0.0; 6]);
        let n = Tensor::from_i64(&[2], &[2, 3]);
        let known = Fact { value: Some(n.clone()), ..Fact::of(&n) };
        let fixed = fix(&graph, &[Fact::of(&x), known]);
        let y = engine::evaluate(&fixed, &[x, n]).unwrap().remove(0);
        assert_eq!(y.shape(), [2, 3]);
    }
}
