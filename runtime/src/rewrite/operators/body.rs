//! What a pass writes into, and what it may ask of the graph around its node.

use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::tensor::{DType, Tensor};

/// The nodes and constants that replace one node.
pub(super) struct Body<'a> {
    /// The graph so far: everything before the node.
    graph: &'a Graph,
    pub(super) node: &'a Node,
    nodes: Vec<Node>,
    constants: Vec<(String, Tensor)>,
}

pub(super) type Parts = (Vec<Node>, Vec<(String, Tensor)>);

impl<'a> Body<'a> {
    pub(super) fn new(graph: &'a Graph, node: &'a Node) -> Body<'a> {
        Body { graph, node, nodes: Vec::new(), constants: Vec::new() }
    }

    pub(super) fn finish(self) -> Parts {
        (self.nodes, self.constants)
    }

    /// What operator `op` gives for `inputs`.
    pub(super) fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.with(op, inputs, &[])
    }

    /// As [`Body::op`], with attributes.
    pub(super) fn with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let output = self.fresh(op);
        let node = Node::new(op, inputs, &[&output]);
        self.push(
            attributes.iter().fold(node, |node, (name, value)| node.with(name, value.clone())),
        );
        output
    }

    /// Adds a node as it is.
    pub(super) fn push(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// A name that no other value has: those of the body start with the replaced node's own output.
    pub(super) fn fresh(&self, what: &str) -> String {
        let own = self.node.outputs.iter().find(|name| !name.is_empty());
        let count = self.nodes.len() + self.constants.len();
        format!("{}/{what}{count}", own.map_or("", String::as_str))
    }

    /// `value` under the name of the node's output `place`, where that is wanted.
    pub(super) fn give(&mut self, place: usize, value: &str) {
        if let Some(name) = self.node.outputs.get(place).filter(|name| !name.is_empty()) {
            self.nodes.push(Node::new("Identity", &[value], &[name]));
        }
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> String {
        let name = self.fresh("constant");
        self.constants.push((name.clone(), tensor));
        name
    }

    /// A list of integers.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.constant(Tensor::from_i64(&[values.len()], values))
    }

    /// An integer of rank 0.
    pub(super) fn int(&mut self, value: i64) -> String {
        self.constant(Tensor::from_i64(&[], &[value]))
    }

    /// An f32 of rank 0.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.constant(Tensor::from_f32(&[], &[value]))
    }

    /// `value` as f32.
    pub(super) fn as_f32(&mut self, value: &str) -> String {
        self.cast(value, DType::F32)
    }

    pub(super) fn cast(&mut self, value: &str, dtype: DType) -> String {
        self.with("Cast", &[value], &[("to", Attribute::Int(dtype.onnx_number()))])
    }

    /// The extents `axes` of `value`, as a list.
    pub(super) fn extents_of(&mut self, value: &str, axes: std::ops::Range<i64>) -> String {
        let shape = self.op("Shape", &[value]);
        let (start, end) = (self.ints(&[axes.start]), self.ints(&[axes.end]));
        self.op("Slice", &[&shape, &start, &end])
    }

    /// `lists` one after the other.
    pub(super) fn chain(&mut self, lists: &[&str]) -> String {
        self.with("Concat", lists, &[("axis", Attribute::Int(0))])
    }

    /// The constant that `value` is.
    pub(super) fn known(&self, value: &str) -> Option<&'a Tensor> {
        let constant = || match self.writer(value)?.attributes.get("value") {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        };
        self.graph.initializers.get(value).or_else(constant)
    }

    /// The whole numbers of the constant that `value` is.
    pub(super) fn known_ints(&self, value: &str) -> Option<Vec<i64>> {
        let tensor = self.known(value)?;
        let narrow = || Some(tensor.to_i32()?.into_iter().map(i64::from).collect());
        tensor.to_i64().or_else(narrow)
    }

    /// The shape of `value`, where it is a constant or an input of fixed shape.
    pub(super) fn known_shape(&self, value: &str) -> Option<Vec<usize>> {
        if let Some(tensor) = self.known(value) {
            return Some(tensor.shape().to_vec());
        }
        let fixed = |dim: &Dim| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Symbol(_) => None,
        };
        self.input(value)?.shape.iter().map(fixed).collect()
    }

    /// The element type of `value`, as far as operators on its way say it.
    pub(super) fn known_dtype(&self, value: &str) -> Option<DType> {
        if let Some(tensor) = self.known(value) {
            return Some(tensor.dtype());
        }
        if let Some(input) = self.input(value) {
            return Some(input.dtype);
        }
        let node = self.writer(value)?;
        match node.op.as_str() {
            "And" | "Or" | "Xor" | "Not" | "Equal" | "Less" | "LessOrEqual" | "Greater"
            | "GreaterOrEqual" | "IsNaN" | "IsInf" => Some(DType::Bool),
            "Cast" => DType::of_onnx_number(node.int("to", 0)),
            "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" | "Expand" | "Slice" | "Gather"
            | "Transpose" | "Concat" | "Tile" | "Relu" | "Add" | "Mul" | "Sub" | "Div" => {
                self.known_dtype(node.input(0)?)
            }
            "Where" => self.known_dtype(node.input(1)?),
            _ => None,
        }
    }

    fn input(&self, value: &str) -> Option<&'a ValueSpec> {
        self.graph.inputs.iter().find(|input| input.name == value)
    }

    /// The node before this one that writes `value`.
    pub(super) fn writer(&self, value: &str) -> Option<&'a Node> {
        self.graph.producer(value).map(|index| &self.graph.nodes[index])
    }
}
