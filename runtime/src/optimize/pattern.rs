//! What every pass needs to recognize a pattern: who writes a value, who reads it, what it holds.

use std::collections::HashMap;

use crate::engine;
use crate::graph::{Graph, Node, ValueSpec};
use crate::tensor::{DType, Tensor};

/// A graph with its values looked up by name.
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    producers: HashMap<&'a str, usize>,
}

/// One rewrite: the node at `index` is replaced, with new constants beside it. What the replaced
/// node alone needed dies later.
pub(super) struct Rewrite {
    pub(super) index: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<(String, Tensor)>,
}

impl Rewrite {
    pub(super) fn new(index: usize, node: Node) -> Rewrite {
        Rewrite { index, nodes: vec![node], initializers: Vec::new() }
    }
}

/// Applies `find` to each node, last to first, so that the outermost of nested patterns is found
/// first; returns how many matched.
pub(super) fn rewrite_all(
    graph: &mut Graph,
    find: impl Fn(&View, usize) -> Option<Rewrite>,
) -> usize {
    let (mut count, mut left) = (0, graph.nodes.len());
    loop {
        // Looking values up by name takes a pass over all nodes: once a match, not once a node.
        let view = View::new(graph);
        let found = (0..left).rev().find_map(|index| Some((index, find(&view, index)?)));
        let Some((index, rewrite)) = found else { return count };
        graph.nodes.splice(rewrite.index..=rewrite.index, rewrite.nodes);
        graph.initializers.extend(rewrite.initializers);
        (count, left) = (count + 1, index);
    }
}

impl<'a> View<'a> {
    pub(super) fn new(graph: &'a Graph) -> View<'a> {
        let mut producers = HashMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            producers.extend(node.outputs.iter().map(|output| (output.as_str(), index)));
        }
        View { graph, producers }
    }

    pub(super) fn node(&self, index: usize) -> &'a Node {
        &self.graph.nodes[index]
    }

    /// The node that writes `value`.
    pub(super) fn writer(&self, value: &str) -> Option<&'a Node> {
        self.producers.get(value).map(|&index| &self.graph.nodes[index])
    }

    /// The node that writes `value`, where it is ONNX's operator `op`.
    pub(super) fn written_by(&self, value: &str, op: &str) -> Option<&'a Node> {
        self.writer(value).filter(|node| node.is(op))
    }

    pub(super) fn constant(&self, value: &str) -> Option<&'a Tensor> {
        self.graph.initializers.get(value)
    }

    /// The value of an f32 constant with one element.
    pub(super) fn scalar(&self, value: &str) -> Option<f32> {
        let values = self.constant(value)?.to_f32()?;
        (values.len() == 1).then(|| values[0])
    }

    /// The elements of an i64 constant.
    pub(super) fn integers(&self, value: &str) -> Option<Vec<i64>> {
        self.constant(value)?.to_i64()
    }

    /// The axes of a reduction, unsqueeze or squeeze: an attribute before opset 13 or 18, an
    /// input since.
    pub(super) fn axes(&self, node: &Node) -> Option<Vec<i64>> {
        match node.ints("axes") {
            Some(axes) => Some(axes.to_vec()),
            None => self.integers(node.input(1)?),
        }
    }

    /// Of a commutative node with two inputs: the constant scalar and the other input.
    pub(super) fn scalar_and_other(&self, node: &'a Node) -> Option<(f32, &'a str)> {
        let (left, right) = (node.input(0)?, node.input(1)?);
        match (self.scalar(left), self.scalar(right)) {
            (_, Some(scalar)) => Some((scalar, left)),
            (Some(scalar), _) => Some((scalar, right)),
            _ => None,
        }
    }

    /// The two inputs of a node, in both orders, for patterns around commutative operators.
    pub(super) fn both_orders(&self, node: &'a Node) -> Option<[(&'a str, &'a str); 2]> {
        let (left, right) = (node.input(0)?, node.input(1)?);
        Some([(left, right), (right, left)])
    }

    /// What `value` is when the graph's inputs are `given`; all other inputs are i64 ones in the
    /// shape of the first. `None` where it cannot be computed that way.
    pub(super) fn evaluate(&self, value: &str, given: &[(&str, &Tensor)]) -> Option<Tensor> {
        if let Some(constant) = self.constant(value) {
            return Some(constant.clone());
        }
        let part = self.graph.ancestors(value);
        // Only plain operators: one of ours would mean that the value depends on the model's
        // hidden states, which no small example can stand for.
        if !part.nodes.iter().all(Node::is_onnx) {
            return None;
        }
        let shape = given.first().map_or(&[][..], |(_, tensor)| tensor.shape());
        let ones = vec![1; shape.iter().product()];
        let input = |spec: &ValueSpec| match given.iter().find(|(name, _)| *name == spec.name) {
            Some((_, tensor)) => Some((*tensor).clone()),
            None if spec.dtype == DType::I64 => Some(Tensor::from_i64(shape, &ones)),
            None => None,
        };
        let inputs: Option<Vec<Tensor>> = part.inputs.iter().map(input).collect();
        engine::evaluate(&part, &inputs?).ok()?.pop()
    }

    /// Whether `value` surely is f32: an input of that type, what one of our operators writes, or what an
    /// operator whose inputs have the type of its output makes of another such value.
    pub(super) fn is_f32(&self, value: &str) -> bool {
        let is_f32 =
            |name: &String| self.constant(name).is_some_and(|tensor| tensor.dtype() == DType::F32);
        let mut value = value;
        // A loop, because a file from outside may nest deeper than the stack is.
        while let Some(node) = self.writer(value) {
            if !node.is_onnx() || (has_one_type(&node.op) && node.inputs.iter().any(is_f32)) {
                return true;
            }
            match node.input(0).filter(|_| has_one_type(&node.op) || keeps_type(&node.op)) {
                Some(first) => value = first,
                None => return false,
            }
        }
        let input = self.graph.inputs.iter().find(|input| input.name == value);
        let dtype = self.constant(value).map(Tensor::dtype).or(input.map(|input| input.dtype));
        dtype == Some(DType::F32)
    }

    /// The i64 input of rank 2 for which `test` holds of `value` when that input is the mask
    /// `[[1, 0, 1]]`: the mask that `value` was made from.
    pub(super) fn mask_of(&self, value: &str, test: impl Fn(&Tensor) -> bool) -> Option<String> {
        let mask = Tensor::from_i64(&[1, 3], &[1, 0, 1]);
        let candidates = self.graph.inputs.iter();
        candidates
            .filter(|input| input.dtype == DType::I64 && input.shape.len() == 2)
            .find(|input| {
                self.evaluate(value, &[(&input.name, &mask)]).is_some_and(|result| test(&result))
            })
            .map(|input| input.name.clone())
    }
}

/// Whether all inputs of `op` have the type of its output.
fn has_one_type(op: &str) -> bool {
    let sums =
        ["Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul", "Gemm", "Conv", "ConvTranspose"];
    let functions = ["Relu", "Sigmoid", "Tanh", "Clip", "PRelu", "LeakyRelu", "HardSigmoid"];
    let others =
        ["HardSwish", "BatchNormalization", "LayerNormalization", "MaxPool", "AveragePool"];
    let last = ["GlobalAveragePool", "GlobalMaxPool", "Concat"];
    sums.contains(&op) || functions.contains(&op) || others.contains(&op) || last.contains(&op)
}

/// Whether the first input of `op` has the type of its output.
fn keeps_type(op: &str) -> bool {
    let shapes = ["Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Identity"];
    shapes.contains(&op) || ["Slice", "Pad", "Gather", "Softmax", "Resize"].contains(&op)
}

/// Small graphs by hand, for the tests of the passes.
#[cfg(test)]
pub(super) mod by_hand {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Dim;

    /// A graph over `input_ids` and `attention_mask`, i64 `[batch, sequence]`, and `x`, f32
    /// `[batch, sequence, 2]`, of which it keeps those that its nodes read. Output: the last value.
    pub(crate) fn graph(nodes: Vec<Node>, constants: Vec<(&str, Tensor)>) -> Graph {
        let [batch, sequence] = ["batch", "sequence"].map(|name| Dim::Symbol(name.to_owned()));
        let tokens = [batch.clone(), sequence.clone()];
        let mut graph = Graph {
            name: "by hand".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![
                ValueSpec::new("input_ids", DType::I64, &tokens),
                ValueSpec::new("attention_mask", DType::I64, &tokens),
                ValueSpec::new("x", DType::F32, &[batch, sequence, Dim::Fixed(2)]),
            ],
            outputs: vec![ValueSpec::new(nodes[nodes.len() - 1].output(), DType::F32, &[])],
            nodes,
            initializers: constants.into_iter().map(|(n, t)| (n.to_owned(), t)).collect(),
            metadata: BTreeMap::new(),
        };
        let read: Vec<bool> = graph.inputs.iter().map(|i| graph.uses(&i.name) > 0).collect();
        let mut read = read.into_iter();
        graph.inputs.retain(|_| read.next().unwrap_or(false));
        graph.validate().expect("a graph by hand is sound");
        graph
    }

    /// The operators that are left after `run` and a sweep, and the graph.
    pub(crate) fn after(run: fn(&mut Graph) -> usize, mut graph: Graph) -> (Vec<String>, Graph) {
        run(&mut graph);
        graph.remove_dead();
        graph.validate().expect("a pass leaves a sound graph");
        (graph.nodes.iter().map(|node| node.op.clone()).collect(), graph)
    }

    pub(crate) fn scalar(value: f32) -> Tensor {
        Tensor::from_f32(&[], &[value])
    }
}
