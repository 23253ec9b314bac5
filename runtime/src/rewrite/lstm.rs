//! onnxruntime's `DynamicQuantizeLSTM` becomes integer products and a `Scan`, as it is defined: all
//! steps' inputs are quantized together, the hidden state before each step, and the weights are int8.
//!
//! Refused: peepholes, lengths by sequence, clipped cells, coupled gates, activations other than sigmoid
//! and tanh, and weights, scales or zero points that are no constants.
//!
//! Source: `com.microsoft.DynamicQuantizeLSTM` among onnxruntime's contributed operators; the gates are
//! those of ONNX's `LSTM`, in its order input, output, forget, cell.

use std::collections::BTreeMap;

use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::tensor::{DType, Tensor};

/// What a refusal says.
pub(super) const REFUSED: &str = "only its plain form runs (sigmoid and tanh, constant weights, no \
     peepholes, no clip, no coupled gates, no sequence lengths); quantize the model without its recurrent layers";

pub(super) fn is_quantized(node: &Node) -> bool {
    node.op == "DynamicQuantizeLSTM" && node.domain == "com.microsoft"
}

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for index in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[index];
        let layer = if is_quantized(node) { Layer::of(graph, node) } else { None };
        if let Some(layer) = layer {
            let Parts { nodes, constants, .. } = layer.parts();
            graph.nodes.splice(index..=index, nodes);
            graph.initializers.extend(constants);
            count += 1;
        }
    }
    count
}

/// One layer, `[steps, batch, input]` to `[steps, directions, batch, hidden]`.
struct Layer<'a> {
    node: &'a Node,
    /// ONNX's operator set, which decides how axes are given.
    opset: i64,
    hidden: usize,
    directions: Vec<Direction>,
}

struct Direction {
    /// 1 where the last step comes first.
    reverse: i64,
    /// `[input, 4 * hidden]`.
    input: Quantized,
    /// `[hidden, 4 * hidden]`.
    recurrent: Quantized,
    /// `[4 * hidden]`.
    bias: Tensor,
}

/// int8 weights with one scale and zero point, or one a column.
struct Quantized {
    weights: Tensor,
    scale: Tensor,
    zero_point: Tensor,
}

impl<'a> Layer<'a> {
    fn of(graph: &Graph, node: &'a Node) -> Option<Layer<'a>> {
        let hidden = usize::try_from(node.int("hidden_size", 0)).ok().filter(|&it| it > 0)?;
        let reverse: &[i64] = match node.string("direction", "forward") {
            "forward" => &[0],
            "reverse" => &[1],
            "bidirectional" => &[0, 1],
            _ => return None,
        };
        let plain = node.input(4).is_none()
            && node.input(7).is_none()
            && node.float("clip", 0.0) == 0.0
            && node.int("input_forget", 0) == 0
            && has_usual_activations(node);
        if !plain {
            return None;
        }
        let part = |input: usize, index| row(graph.initializers.get(node.input(input)?)?, index);
        let quantized = |weights: usize, scale: usize, index| {
            let [weights, scale, zero_point] =
                [weights, scale, scale + 1].map(|it| part(it, index));
            Some(Quantized { weights: weights?, scale: scale?, zero_point: zero_point? })
        };
        let direction = |(index, &reverse): (usize, &i64)| {
            let bias = match node.input(3) {
                Some(_) => part(3, index)?.to_f32()?,
                None => vec![0.0; 8 * hidden],
            };
            let (input, recurrent) = bias.split_at_checked(4 * hidden)?;
            let bias: Vec<f32> = input.iter().zip(recurrent).map(|(a, b)| a + b).collect();
            Some(Direction {
                reverse,
                input: quantized(1, 8, index)?,
                recurrent: quantized(2, 10, index)?,
                bias: Tensor::from_f32(&[4 * hidden], &bias),
            })
        };
        let directions = reverse.iter().enumerate().map(direction).collect::<Option<_>>()?;
        let opset = graph.opsets.get("").copied().unwrap_or(1);
        Some(Layer { node, opset, hidden, directions })
    }

    fn parts(&self) -> Parts {
        let mut parts = Parts::new(&self.node.name, self.opset);
        let input = self.node.inputs[0].as_str();
        let [q, scale, zero] = ["input", "input_scale", "input_zero"].map(|it| parts.named(it));
        parts.push(Node::new("DynamicQuantizeLinear", &[input], &[&q, &scale, &zero]));
        let mut gathered: [Vec<String>; 3] = Default::default();
        for (index, direction) in self.directions.iter().enumerate() {
            let of = |name: &str| format!("{name}_{index}");
            let product = parts.product([&q, &scale, &zero], &direction.input, &of("input"));
            let bias = parts.constant(&of("bias"), direction.bias.clone());
            let gates = parts.add("Add", &[&product, &bias], &of("gates"));
            let states = [(5, of("hidden")), (6, of("cell"))]
                .map(|(input, name)| self.state(&mut parts, input, index, &name));
            let outputs =
                [of("last_hidden"), of("last_cell"), of("steps")].map(|it| parts.named(&it));
            let [hidden, cell, steps] = outputs.each_ref().map(String::as_str);
            let directed =
                |node: Node, name: &str| node.with(name, Attribute::Ints(vec![direction.reverse]));
            let scan = Node::new("Scan", &[&states[0], &states[1], &gates], &[hidden, cell, steps])
                .with("body", Attribute::Graph(Box::new(self.step(&direction.recurrent))))
                .with("num_scan_inputs", Attribute::Int(1));
            let scan = directed(scan, "scan_input_directions");
            parts.push(directed(scan, "scan_output_directions"));
            for (place, (value, axis)) in
                [(steps, 1), (hidden, 0), (cell, 0)].into_iter().enumerate()
            {
                gathered[place].push(parts.unsqueeze(
                    value,
                    axis,
                    &format!("{value}/of_direction"),
                ));
            }
        }
        for ((values, axis), output) in gathered.iter().zip([1, 0, 0]).zip(&self.node.outputs) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let concat = Node::new("Concat", &values, &[output]).with("axis", Attribute::Int(axis));
            parts.nodes.extend((!output.is_empty()).then_some(concat));
        }
        parts
    }

    /// The state `[batch, hidden]` that direction `index` begins with: a part of the node's `input`, or zeros.
    fn state(&self, parts: &mut Parts, input: usize, index: usize, name: &str) -> String {
        if let Some(given) = self.node.input(input) {
            let index =
                parts.constant(&format!("{name}_place"), Tensor::from_i64(&[], &[index as i64]));
            return parts.add("Gather", &[given, &index], name);
        }
        let one = parts.constant(&format!("{name}_axis"), Tensor::from_i64(&[1], &[1]));
        let hidden = Tensor::from_i64(&[1], &[self.hidden as i64]);
        let width = parts.constant(&format!("{name}_width"), hidden);
        let shape = parts.add("Shape", &[&self.node.inputs[0]], &format!("{name}_input_shape"));
        let batch = parts.add("Gather", &[&shape, &one], &format!("{name}_batch"));
        let wanted = parts.named(&format!("{name}_shape"));
        let concat = Node::new("Concat", &[&batch, &width], &[&wanted]);
        parts.push(concat.with("axis", Attribute::Int(0)));
        let state = parts.named(name);
        let zero = Attribute::Tensor(Tensor::from_f32(&[1], &[0.0]));
        parts.push(Node::new("ConstantOfShape", &[&wanted], &[&state]).with("value", zero));
        state
    }

    /// One step: states and gates, `[batch, hidden]` twice and `[batch, 4 * hidden]`, to the next states and
    /// the hidden one once more.
    fn step(&self, recurrent: &Quantized) -> Graph {
        let mut parts = Parts::new("step", self.opset);
        let [q, scale, zero] = ["state", "state_scale", "state_zero"].map(|it| parts.named(it));
        parts.push(Node::new("DynamicQuantizeLinear", &["hidden"], &[&q, &scale, &zero]));
        let product = parts.product([&q, &scale, &zero], recurrent, "recurrent");
        let gates = parts.add("Add", &["gates", &product], "all_gates");
        let axis = parts.constant("axis", Tensor::from_i64(&[1], &[1]));
        let [input, output, forget, cell] = [0, 1, 2, 3].map(|gate: usize| {
            let bounds = [gate, gate + 1].map(|bound| {
                let at = Tensor::from_i64(&[1], &[(bound * self.hidden) as i64]);
                parts.constant(&format!("bound_{gate}_{bound}"), at)
            });
            let name = format!("gate_{gate}");
            let gate_sum = parts.add("Slice", &[&gates, &bounds[0], &bounds[1], &axis], &name);
            let activation = if gate == 3 { "Tanh" } else { "Sigmoid" };
            parts.add(activation, &[&gate_sum], &format!("{name}_active"))
        });
        let kept = parts.add("Mul", &[&forget, "cell"], "kept");
        let added = parts.add("Mul", &[&input, &cell], "added");
        let next_cell = parts.add("Add", &[&kept, &added], "next_cell");
        let shown = parts.add("Tanh", &[&next_cell], "shown");
        let next_hidden = parts.add("Mul", &[&output, &shown], "next_hidden");
        let emitted = parts.add("Identity", &[&next_hidden], "emitted");
        let value = |name: &str, width: usize| {
            ValueSpec::new(name, DType::F32, &[Dim::Symbol("batch".to_owned()), Dim::Fixed(width)])
        };
        let inputs = [("hidden", 1), ("cell", 1), ("gates", 4)];
        Graph {
            name: "step".to_owned(),
            inputs: inputs.map(|(name, times)| value(name, times * self.hidden)).to_vec(),
            outputs: [next_hidden, next_cell, emitted].map(|it| value(&it, self.hidden)).to_vec(),
            nodes: parts.nodes,
            initializers: parts.constants,
            ..Graph::default()
        }
    }
}

/// Activations of all directions: sigmoid for the gates, tanh for cell and output.
fn has_usual_activations(node: &Node) -> bool {
    match node.attributes.get("activations") {
        None => true,
        Some(Attribute::Strings(names)) => {
            names.chunks(3).all(|direction| direction == ["Sigmoid", "Tanh", "Tanh"])
        }
        Some(_) => false,
    }
}

/// The part `index` along the outermost axis, without that axis.
fn row(tensor: &Tensor, index: usize) -> Option<Tensor> {
    let (&count, shape) = tensor.shape().split_first()?;
    let bytes = tensor.bytes().len().checked_div(count)?;
    let part = tensor.bytes().get(index * bytes..(index + 1) * bytes)?;
    Tensor::from_bytes(tensor.dtype(), shape, part.to_vec()).ok()
}

/// Nodes and constants in the making, their values named after one prefix.
struct Parts {
    prefix: String,
    opset: i64,
    nodes: Vec<Node>,
    constants: BTreeMap<String, Tensor>,
}

impl Parts {
    fn new(prefix: &str, opset: i64) -> Parts {
        Parts { prefix: prefix.to_owned(), opset, nodes: Vec::new(), constants: BTreeMap::new() }
    }

    fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
    }

    fn constant(&mut self, name: &str, value: Tensor) -> String {
        let name = self.named(name);
        self.constants.insert(name.clone(), value);
        name
    }

    /// Adds the node `op` and gives the name of its only output.
    fn add(&mut self, op: &str, inputs: &[&str], name: &str) -> String {
        let name = self.named(name);
        self.nodes.push(Node::new(op, inputs, &[&name]));
        name
    }

    /// f32 products of quantized rows, given as values, scale and zero point, with `by`.
    fn product(&mut self, rows: [&str; 3], by: &Quantized, name: &str) -> String {
        let [values, scale, zero] = rows;
        let weights = self.constant(&format!("{name}_weights"), by.weights.clone());
        let weights_scale = self.constant(&format!("{name}_weights_scale"), by.scale.clone());
        let weights_zero = self.constant(&format!("{name}_weights_zero"), by.zero_point.clone());
        let inputs = [values, &weights, zero, &weights_zero];
        let sums = self.add("MatMulInteger", &inputs, &format!("{name}_sums"));
        let floats = self.named(&format!("{name}_floats"));
        // 1 is f32 among ONNX's element types.
        self.push(Node::new("Cast", &[&sums], &[&floats]).with("to", Attribute::Int(1)));
        let scales = self.add("Mul", &[scale, &weights_scale], &format!("{name}_scales"));
        self.add("Mul", &[&floats, &scales], &format!("{name}_product"))
    }

    /// `value` with an axis of extent one more.
    fn unsqueeze(&mut self, value: &str, axis: i64, name: &str) -> String {
        if self.opset < 13 {
            let name = self.named(name);
            let node = Node::new("Unsqueeze", &[value], &[&name]);
            self.push(node.with("axes", Attribute::Ints(vec![axis])));
            return name;
        }
        let axes = self.constant(&format!("{name}_axis"), Tensor::from_i64(&[1], &[axis]));
        self.add("Unsqueeze", &[value, &axes], name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    /// Two steps of a batch of one, one input and one hidden unit, weights of 1 / 127 a step.
    fn by_hand() -> Graph {
        let weights = Tensor::from_i8(&[1, 1, 4], &[127, 127, -127, 127]);
        let scale = Tensor::from_f32(&[1], &[1.0 / 127.0]);
        let zero = Tensor::from_i8(&[1], &[0]);
        let inputs = ["x", "w", "r", "", "", "", "", "", "ws", "z", "rs", "z"];
        let node = Node {
            domain: "com.microsoft".to_owned(),
            ..Node::new("DynamicQuantizeLSTM", &inputs, &["y", "h", "c"])
        };
        let node = node.with("hidden_size", Attribute::Int(1));
        let constants = [
            ("w", weights.clone()),
            ("r", weights),
            ("ws", scale.clone()),
            ("rs", scale),
            ("z", zero),
        ];
        let extents = [Dim::Fixed(2), Dim::Symbol("batch".to_owned()), Dim::Fixed(1)];
        Graph {
            opsets: BTreeMap::from([(String::new(), 17), ("com.microsoft".to_owned(), 1)]),
            inputs: vec![ValueSpec::new("x", DType::F32, &extents)],
            outputs: ["y", "h", "c"].map(|name| ValueSpec::new(name, DType::F32, &[])).to_vec(),
            nodes: vec![node],
            initializers: constants.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Graph::default()
        }
    }

    #[test]
    fn two_steps_are_those_of_the_recurrence() {
        let mut graph = by_hand();
        assert_eq!(run(&mut graph), 1);
        graph.validate().expect("a pass leaves a sound graph");
        let x = [1.0_f32, 0.5];
        let got = engine::evaluate(&graph, &[Tensor::from_f32(&[2, 1, 1], &x)]).expect("it runs");
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let (mut h, mut c) = (0.0_f32, 0.0_f32);
        for x in x {
            let sum = x + h;
            c = sigmoid(-sum) * c + sigmoid(sum) * sum.tanh();
            h = sigmoid(sum) * c.tanh();
        }
        // A step of the 8-bit input is 1 / 255; the gates pass on less than that.
        for (tensor, expected) in got[1..].iter().zip([h, c]) {
            let value = tensor.to_f32().expect("f32")[0];
            assert!((value - expected).abs() < 1.0 / 255.0, "{value} for {expected}");
        }
        assert_eq!(got[0].shape(), [2, 1, 1, 1]);
    }

    #[test]
    fn other_forms_are_left() {
        let clip = ("clip", Attribute::Float(1.0));
        let relu = ("activations", Attribute::Strings(["Relu"; 3].map(str::to_owned).to_vec()));
        let coupled = ("input_forget", Attribute::Int(1));
        for (name, value) in [clip, relu, coupled] {
            let mut graph = by_hand();
            graph.nodes[0].attributes.insert(name.to_owned(), value);
            assert_eq!(run(&mut graph), 0, "{name}");
        }
    }
}
