//! An operator of integers becomes the same operator of floats between `DequantizeLinear` and
//! `QuantizeLinear`: `QLinearConv`, `QLinearMatMul`, and of onnxruntime's own `QGemm`, `QLinearAdd`,
//! `QLinearMul`, `QLinearSigmoid`, `QLinearLeakyRelu`, `QLinearSoftmax`, `QLinearConcat`,
//! `QLinearAveragePool` and `QLinearGlobalAveragePool`.
//!
//! Refused: scales and zero points that are no constants, and tensors with channels last.

use super::dequantize::{Steps, dequantized};
use crate::graph::{Attribute, Graph, Node};
use crate::optimize::pattern::{Rewrite, View, rewrite_all};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite_all(graph, find)
}

fn find(view: &View, index: usize) -> Option<Rewrite> {
    let node = view.node(index);
    let ours = node.is_onnx() || node.domain == "com.microsoft";
    if !ours || node.int("channels_last", 0) != 0 {
        return None;
    }
    let mut body = Body { view, node, nodes: Vec::new(), constants: Vec::new() };
    match node.op.as_str() {
        "QLinearMatMul" => {
            let inputs = [body.value(0, 1)?, body.value(3, -1)?];
            body.finish(Node::new("MatMul", &[&inputs[0], &inputs[1]], &[]), 6)?;
        }
        "QLinearConv" => {
            let inputs = [body.value(0, 1)?, body.value(3, 0)?];
            let mut inputs = inputs.to_vec();
            if let Some(bias) = node.input(8) {
                inputs.push(body.bias(bias, [1, 4], 1.0)?);
            }
            body.finish(body.like("Conv", &inputs), 6)?;
        }
        "QGemm" => {
            let columns = if node.int("transB", 0) == 0 { 1 } else { 0 };
            let mut inputs = vec![body.value(0, 1)?, body.value(3, columns)?];
            if let Some(bias) = node.input(6) {
                inputs.push(body.bias(bias, [1, 4], node.float("alpha", 1.0))?);
            }
            body.finish(body.like("Gemm", &inputs), 7)?;
        }
        "QLinearAdd" | "QLinearMul" => {
            let inputs = [body.value(0, 1)?, body.value(3, 1)?];
            body.finish(body.like(&node.op["QLinear".len()..], &inputs), 6)?;
        }
        "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "QLinearAveragePool"
        | "QLinearGlobalAveragePool" => {
            let inputs = [body.value(0, 1)?];
            body.finish(body.like(&node.op["QLinear".len()..], &inputs), 3)?;
        }
        "QLinearConcat" => {
            let values = (2..node.inputs.len()).step_by(3);
            let inputs = values.map(|place| body.value(place, 1)).collect::<Option<Vec<_>>>()?;
            body.finish(body.like("Concat", &inputs), 0)?;
        }
        _ => return None,
    }
    Some(Rewrite { index, nodes: body.nodes, initializers: body.constants })
}

/// The nodes that take the place of one.
struct Body<'a> {
    view: &'a View<'a>,
    node: &'a Node,
    nodes: Vec<Node>,
    constants: Vec<(String, Tensor)>,
}

impl Body<'_> {
    fn named(&self, part: &str) -> String {
        format!("{}.float.{part}", self.node.output())
    }

    /// The floats of input `place`, whose scale and zero point follow it.
    fn value(&mut self, place: usize, axis: i64) -> Option<String> {
        let (integers, scale) = (self.node.input(place)?, self.node.input(place + 1)?);
        self.view.constant(scale)?.to_f32()?;
        let mut inputs = vec![integers, scale];
        if let Some(zero_point) = self.node.input(place + 2) {
            self.view.constant(zero_point)?;
            inputs.push(zero_point);
        }
        let name = self.named(&place.to_string());
        let node = Node::new("DequantizeLinear", &inputs, &[&name]);
        self.nodes.push(node.with("axis", Attribute::Int(axis)));
        Some(name)
    }

    /// A bias of 32-bit integers: its steps are the product of those of both factors, whose scales are the
    /// inputs at `scales`.
    fn bias(&mut self, bias: &str, scales: [usize; 2], factor: f32) -> Option<String> {
        let [left, right] =
            scales.map(|place| self.view.constant(self.node.input(place)?)?.to_f32());
        let (left, right) = (left?, right?);
        let left = left.first().copied().filter(|_| left.len() == 1)?;
        let steps: Vec<f32> = right.iter().map(|right| left * right * factor).collect();
        let scale = Tensor::from_f32(&[steps.len()], &steps);
        let steps = Steps { scale: &scale, zero_point: None, axis: -1, block: 0 };
        let floats = dequantized(self.view.constant(bias)?, steps)?;
        let name = self.named("bias");
        self.constants.push((name.clone(), floats));
        Some(name)
    }

    /// ONNX's operator `op` on `inputs`, with the attributes of the node.
    fn like(&self, op: &str, inputs: &[String]) -> Node {
        let mut attributes = self.node.attributes.clone();
        // Which definition of Softmax: its axis says all where it is a single one.
        attributes.remove("opset");
        attributes.remove("channels_last");
        Node { op: op.to_owned(), inputs: inputs.to_vec(), attributes, ..Node::default() }
    }

    /// Adds `operator`, and the rounding of its result by the scale that is input `place`; without such an
    /// input the result is f32.
    fn finish(&mut self, operator: Node, place: usize) -> Option<()> {
        let output = self.node.output();
        let Some(scale) = self.node.input(place) else {
            self.nodes.push(Node {
                name: output.to_owned(),
                outputs: vec![output.to_owned()],
                ..operator
            });
            return Some(());
        };
        self.view.constant(scale)?.to_f32()?;
        let float = self.named("result");
        self.nodes.push(Node { name: float.clone(), outputs: vec![float.clone()], ..operator });
        let mut inputs = vec![float.as_str(), scale];
        if let Some(zero_point) = self.node.input(place + 1) {
            self.view.constant(zero_point)?;
            inputs.push(zero_point);
        }
        self.nodes.push(Node::new("QuantizeLinear", &inputs, &[output]));
        Some(())
    }
}
