//! Nodes whose inputs are all constant are computed once, here.
//!
//! Refused: operators that draw random numbers or carry subgraphs, and results that are much
//! larger than what they were made from (an `Expand` of a scalar), which would only cost storage.

use crate::engine;
use crate::graph::{Graph, Node, ValueSpec};
use crate::optimize::pattern::View;
use crate::tensor::{DType, Tensor};

/// A folded constant may be this much larger than its inputs together, in bytes.
const GROWTH_BYTES: usize = 64 * 1024;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        match fold(&View::new(graph), index) {
            Some(values) => {
                let node = graph.nodes.remove(index);
                graph.initializers.extend(node.outputs.into_iter().zip(values));
                count += 1;
            }
            None => index += 1,
        }
    }
    count
}

fn fold(view: &View, index: usize) -> Option<Vec<Tensor>> {
    let node = view.node(index);
    let is_output = |name: &String| view.graph.outputs.iter().any(|output| output.name == *name);
    let foldable = node.is_onnx()
        && !node.op.starts_with("Random")
        && !matches!(node.op.as_str(), "Multinomial" | "Bernoulli")
        && node.subgraphs().next().is_none()
        && !node.inputs.is_empty()
        && node.outputs.iter().all(|output| !output.is_empty() && !is_output(output));
    if !foldable {
        return None;
    }
    let part = alone(view, node)?;
    // What tract cannot evaluate here it may still run as part of the whole: leave it.
    let values = engine::evaluate(&part, &[]).ok()?;
    let bytes = |tensors: &mut dyn Iterator<Item = &Tensor>| -> usize {
        tensors.map(|tensor| tensor.bytes().len()).sum()
    };
    let grown = bytes(&mut values.iter()) > bytes(&mut part.initializers.values()) + GROWTH_BYTES;
    (!grown).then_some(values)
}

/// `node` as a graph of its own, where all its inputs are constants.
fn alone(view: &View, node: &Node) -> Option<Graph> {
    let names = node.inputs.iter().filter(|name| !name.is_empty());
    let initializers = names.map(|name| Some((name.clone(), view.constant(name)?.clone())));
    Some(Graph {
        name: node.place(),
        opsets: view.graph.opsets.clone(),
        outputs: node.outputs.iter().map(|name| ValueSpec::new(name, DType::F32, &[])).collect(),
        initializers: initializers.collect::<Option<_>>()?,
        nodes: vec![node.clone()],
        ..Graph::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::pattern::by_hand::{after, graph, scalar};
    use super::*;
    use crate::graph::Attribute;

    #[test]
    fn what_depends_on_constants_alone_is_computed_once() {
        let nodes = vec![
            Node::new("Transpose", &["w"], &["wt"]).with("perm", Attribute::Ints(vec![1, 0])),
            Node::new("Mul", &["wt", "half"], &["scaled"]),
            Node::new("MatMul", &["x", "scaled"], &["y"]),
        ];
        let weight = Tensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let (operators, graph) =
            after(run, graph(nodes, vec![("w", weight), ("half", scalar(0.5))]));
        assert_eq!(operators, ["MatMul"]);
        assert_eq!(graph.initializers["scaled"].to_f32(), Some(vec![0.5, 1.5, 1.0, 2.0]));
    }

    #[test]
    fn a_constant_that_would_swell_the_file_stays_an_operator() {
        let nodes = vec![
            Node::new("Expand", &["zero", "shape"], &["large"]),
            Node::new("Add", &["x", "large"], &["y"]),
        ];
        let shape = Tensor::from_i64(&[2], &[1024, 1024]);
        let (operators, _) =
            after(run, graph(nodes, vec![("zero", scalar(0.0)), ("shape", shape)]));
        assert_eq!(operators, ["Expand", "Add"]);
    }

    #[test]
    fn a_small_file_cannot_ask_for_a_terabyte() {
        for (operator, sizes) in
            [("Pad", [1 << 36, 0, 0, 1]), ("Expand", [1, 1 << 10, 1 << 20, 1 << 10])]
        {
            let nodes = vec![
                Node::new(operator, &["one", "sizes"], &["large"]),
                Node::new("Add", &["x", "large"], &["y"]),
            ];
            let one = Tensor::from_f32(&[1, 1], &[1.0]);
            let sizes = Tensor::from_i64(&[4], &sizes);
            let (operators, _) = after(run, graph(nodes, vec![("one", one), ("sizes", sizes)]));
            assert_eq!(operators, [operator, "Add"]);
        }
    }
}
