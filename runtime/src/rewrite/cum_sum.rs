//! `CumSum` of i64 values is computed in f64, which is exact while the sums stay below 2^53.
//!
//! tract reads a cast to i64 as a cast to its type for dimensions, which its `CumSum` does not take.
//! Refused: values whose type does not follow from the nodes before; those keep their `CumSum`.

use crate::graph::{Attribute, Graph, Node};
use crate::tensor::DType;

/// ONNX's numbers for the element types (`TensorProto.DataType`).
const I64: i64 = 7;
const F64: i64 = 11;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for index in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[index];
        if !node.is("CumSum") || !node.input(0).is_some_and(|value| is_i64(graph, value)) {
            continue;
        }
        let (value, sum) = (node.inputs[0].clone(), node.output().to_owned());
        let [wide, wide_sum] = ["wide", "wide_sum"].map(|part| format!("{sum}/{part}"));
        let cast = |from: &str, to: &str, dtype: i64| {
            Node::new("Cast", &[from], &[to]).with("to", Attribute::Int(dtype))
        };
        let mut summed = node.clone();
        summed.name.clone_from(&wide_sum);
        summed.inputs[0].clone_from(&wide);
        summed.outputs[0].clone_from(&wide_sum);
        let nodes = [cast(&value, &wide, F64), summed, cast(&wide_sum, &sum, I64)];
        graph.nodes.splice(index..=index, nodes);
        count += 1;
    }
    count
}

/// Whether `value` is known to hold i64 numbers.
fn is_i64(graph: &Graph, value: &str) -> bool {
    if let Some(constant) = graph.initializers.get(value) {
        return constant.dtype() == DType::I64;
    }
    if let Some(input) = graph.inputs.iter().find(|input| input.name == value) {
        return input.dtype == DType::I64;
    }
    let Some(node) = graph.producer(value).map(|index| &graph.nodes[index]) else { return false };
    match node.op.as_str() {
        "Cast" => node.int("to", 0) == I64,
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => true,
        // Operators that give the type of their first input.
        "Abs" | "Add" | "Clip" | "Concat" | "Div" | "Expand" | "Flatten" | "Gather"
        | "Identity" | "Max" | "Min" | "Mul" | "Neg" | "Pad" | "ReduceSum" | "Reshape"
        | "Slice" | "Squeeze" | "Sub" | "Tile" | "Transpose" | "Unsqueeze" => {
            node.input(0).is_some_and(|value| is_i64(graph, value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine;
    use crate::graph::{Dim, ValueSpec};
    use crate::tensor::Tensor;

    #[test]
    fn durations_add_up() {
        let cast = Node::new("Cast", &["x"], &["durations"]).with("to", Attribute::Int(I64));
        let flags = [("exclusive", 0), ("reverse", 0)];
        let sum = Node::new("CumSum", &["durations", "axis"], &["ends"]);
        let sum = flags.iter().fold(sum, |sum, (name, on)| sum.with(name, Attribute::Int(*on)));
        let mut graph = Graph {
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![ValueSpec::new("x", DType::F32, &[Dim::Fixed(4)])],
            outputs: vec![ValueSpec::new("ends", DType::I64, &[])],
            nodes: vec![cast, sum],
            initializers: BTreeMap::from([("axis".to_owned(), Tensor::from_i32(&[], &[0]))]),
            ..Graph::default()
        };
        assert_eq!(run(&mut graph), 1);
        graph.validate().expect("a pass leaves a sound graph");
        let x = Tensor::from_f32(&[4], &[3.0, 1.0, 4.0, 1.0]);
        let ends = engine::evaluate(&graph, &[x]).expect("it runs")[0].to_i64();
        assert_eq!(ends, Some(vec![3, 4, 8, 9]));
    }
}
