//! A trained encoder as an ONNX graph, opset 17: the same function as `encoder.rs`, node by node.
//!
//! Inputs `input_ids` and `attention_mask` (i64 `[batch, sequence]`). Outputs, f32: of a classifier `logits`
//! `[batch, labels]`, then `exit.1`, `exit.2` ... alike, the answers after the first layer, the second and so
//! on where it has early exits; of a sentence encoder `embedding` `[batch, hidden]`, at length 1. The nodes of
//! an exit stand before those of the next layer, so that who runs them in order can stop there.

use dram_runtime::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use dram_runtime::tensor::{DType, Tensor};

use crate::batches::MASKED_SCORE;
use crate::weights::{Architecture, NORM_EPSILON, Weights};

/// What a graph gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// What a student is asked for.
    Student,
    /// What a student learns from: logits, where there are labels, and the mean of the token vectors as it is.
    Answers,
}

/// The graph `name` of the encoder `weights`; `metadata` becomes properties of the model.
pub(crate) fn graph(
    name: &str,
    weights: &Weights,
    gives: Outputs,
    metadata: &[(&str, String)],
) -> Graph {
    let architecture = weights.architecture();
    let Architecture { labels, hidden, exits, .. } = architecture;
    let mut build = Build { weights, graph: Graph::default() };
    build.constants(architecture);
    let bias = build.mask_bias();
    let mut x = build.embeddings();
    for layer in 0..architecture.layers {
        x = build.layer(layer, &x, &bias);
        if layer < exits && gives == Outputs::Student {
            let pooled =
                build.mean(&x, &format!("exits.{layer}.pool"), &format!("exits.{layer}.embedding"));
            build.classify(&pooled, &format!("exits.{layer}"), &format!("exit.{}", layer + 1));
        }
    }
    let named = if labels == 0 && gives == Outputs::Student { "pooled" } else { "embedding" };
    let pooled = build.mean(&x, "pool", named);
    if labels > 0 {
        build.classify(&pooled, "head", "logits");
    }
    let mut outputs = Vec::new();
    if labels > 0 {
        outputs.push(("logits".to_owned(), labels));
    }
    match gives {
        Outputs::Student if labels == 0 => {
            build.unit(&pooled, "embedding");
            outputs.push(("embedding".to_owned(), hidden));
        }
        Outputs::Student => {
            outputs.extend((1..=exits).map(|exit| (format!("exit.{exit}"), labels)));
        }
        Outputs::Answers => outputs.push((pooled, hidden)),
    }
    let batch = Dim::Symbol("batch".to_owned());
    let rows = [batch.clone(), Dim::Symbol("sequence".to_owned())];
    let output = |(name, width): &(String, usize)| {
        ValueSpec::new(name, DType::F32, &[batch.clone(), Dim::Fixed(*width)])
    };
    Graph {
        name: name.to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: ["input_ids", "attention_mask"]
            .map(|input| ValueSpec::new(input, DType::I64, &rows))
            .into(),
        outputs: outputs.iter().map(output).collect(),
        metadata: metadata.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
        ..build.graph
    }
}

/// A graph under construction. Every method returns the name of the value that it adds.
struct Build<'a> {
    weights: &'a Weights,
    graph: Graph,
}

impl Build<'_> {
    /// All parameters under their own names, and the few numbers that the operators need.
    fn constants(&mut self, architecture: Architecture) {
        let Architecture { heads, head_width, .. } = architecture;
        let scale = 1.0 / (head_width as f32).sqrt();
        let (heads, head_width) = (heads as i64, head_width as i64);
        let arrays = self.weights.arrays().iter();
        let parameters = arrays
            .map(|(name, array)| (name.clone(), Tensor::from_f32(&array.shape, &array.values)));
        self.graph.initializers = parameters.collect();
        for (name, value) in [
            ("one", 1.0),
            ("half", 0.5),
            ("sqrt_half", std::f32::consts::FRAC_1_SQRT_2),
            ("masked_score", MASKED_SCORE),
            ("attention_scale", scale),
        ] {
            self.constant(name, Tensor::from_f32(&[], &[value]));
        }
        for (name, values) in [
            ("axis_0", &[0][..]),
            ("axis_1", &[1]),
            ("axis_2", &[2]),
            ("axes_1_2", &[1, 2]),
            ("split_heads", &[0, 0, heads, head_width]),
            ("merge_heads", &[0, 0, heads * head_width]),
        ] {
            self.constant(name, Tensor::from_i64(&[values.len()], values));
        }
    }

    /// 0 for tokens, a very low score for padding: `[batch, 1, 1, sequence]`.
    fn mask_bias(&mut self) -> String {
        let to_f32 = Attribute::Int(1); // TensorProto.DataType.FLOAT
        self.push(Node::new("Cast", &["attention_mask"], &["mask"]).with("to", to_f32));
        self.node("Unsqueeze", &["mask", "axes_1_2"], "mask.row");
        self.node("Sub", &["one", "mask.row"], "mask.padding");
        self.node("Mul", &["mask.padding", "masked_score"], "mask.bias")
    }

    fn embeddings(&mut self) -> String {
        let words = Node::new("Gather", &["words.weight", "input_ids"], &["words"]);
        self.push(words.with("axis", Attribute::Int(0)));
        self.node("Shape", &["input_ids"], "input_shape");
        self.node("Slice", &["input_shape", "axis_1", "axis_2", "axis_0"], "sequence_length");
        self.node(
            "Slice",
            &["positions.weight", "axis_0", "sequence_length", "axis_0"],
            "positions",
        );
        self.node("Add", &["words", "positions"], "embeddings");
        self.norm("embeddings", "norm")
    }

    fn layer(&mut self, layer: usize, x: &str, bias: &str) -> String {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let query = self.heads(x, &name("query"), [0, 2, 1, 3]);
        let key = self.heads(x, &name("key"), [0, 2, 3, 1]);
        let value = self.heads(x, &name("value"), [0, 2, 1, 3]);
        let scores = self.node("MatMul", &[&query, &key], &name("scores"));
        let scaled = self.node("Mul", &[&scores, "attention_scale"], &name("scores.scaled"));
        let masked = self.node("Add", &[&scaled, bias], &name("scores.masked"));
        let softmax = Node::new("Softmax", &[&masked], &[&name("attention")]);
        let attention = self.push(softmax.with("axis", Attribute::Int(-1)));
        let mixed = self.node("MatMul", &[&attention, &value], &name("mixed"));
        let moved = self.transpose(&mixed, [0, 2, 1, 3], &name("mixed.rows"));
        let merged = self.node("Reshape", &[&moved, "merge_heads"], &name("mixed.merged"));
        let attended = self.linear(&merged, &name("attended"));
        let sum = self.node("Add", &[&attended, x], &name("attention.sum"));
        let x = self.norm(&sum, &name("attention_norm"));
        let wide = self.linear(&x, &name("expand"));
        let wide = self.gelu(&wide, &name("gelu"));
        let narrow = self.linear(&wide, &name("contract"));
        let sum = self.node("Add", &[&narrow, &x], &name("feed_forward.sum"));
        self.norm(&sum, &name("feed_forward_norm"))
    }

    /// A projection of `x`, split into heads, its axes permuted.
    fn heads(&mut self, x: &str, name: &str, axes: [i64; 4]) -> String {
        let flat = self.linear(x, name);
        let split = self.node("Reshape", &[&flat, "split_heads"], &format!("{name}.split"));
        self.transpose(&split, axes, &format!("{name}.heads"))
    }

    fn linear(&mut self, x: &str, name: &str) -> String {
        let weight = format!("{name}.weight");
        let product = self.node("MatMul", &[x, &weight], &format!("{name}.product"));
        self.node("Add", &[&product, &format!("{name}.bias")], &format!("{name}.output"))
    }

    fn norm(&mut self, x: &str, name: &str) -> String {
        let (gamma, beta) = (format!("{name}.gamma"), format!("{name}.beta"));
        let output = format!("{name}.output");
        let node = Node::new("LayerNormalization", &[x, &gamma, &beta], &[&output]);
        let epsilon = Attribute::Float(NORM_EPSILON as f32);
        self.push(node.with("axis", Attribute::Int(-1)).with("epsilon", epsilon))
    }

    /// `x/2 (1 + erf(x / sqrt 2))`; the operator Gelu came with opset 20.
    fn gelu(&mut self, x: &str, name: &str) -> String {
        let scaled = self.node("Mul", &[x, "sqrt_half"], &format!("{name}.scaled"));
        let erf = self.node("Erf", &[&scaled], &format!("{name}.erf"));
        let gate = self.node("Add", &[&erf, "one"], &format!("{name}.gate"));
        let half = self.node("Mul", &[x, "half"], &format!("{name}.half"));
        self.node("Mul", &[&half, &gate], &format!("{name}.output"))
    }

    /// Mean of the token vectors that the mask keeps: `[batch, hidden]`.
    fn mean(&mut self, x: &str, name: &str, output: &str) -> String {
        if !self.graph.nodes.iter().any(|node| node.output() == "mask.column") {
            self.node("Unsqueeze", &["mask", "axis_2"], "mask.column");
        }
        let part = |part: &str| format!("{name}.{part}");
        self.node("Mul", &[x, "mask.column"], &part("kept"));
        for (source, output) in [(part("kept").as_str(), "sum"), ("mask.column", "count")] {
            let sum = Node::new("ReduceSum", &[source, "axis_1"], &[&part(output)]);
            self.push(sum.with("keepdims", Attribute::Int(0)));
        }
        self.node("Div", &[&part("sum"), &part("count")], output)
    }

    /// Logits of `pooled` by the linear layer `name`.
    fn classify(&mut self, pooled: &str, name: &str, output: &str) {
        let product = format!("{name}.product");
        self.node("MatMul", &[pooled, &format!("{name}.weight")], &product);
        self.node("Add", &[&product, &format!("{name}.bias")], output);
    }

    /// Each row of `x` at length 1.
    fn unit(&mut self, x: &str, output: &str) {
        let norm = Node::new("ReduceL2", &[x], &["length"]);
        let norm = norm.with("axes", Attribute::Ints(vec![1])).with("keepdims", Attribute::Int(1));
        self.push(norm);
        self.node("Div", &[x, "length"], output);
    }

    fn transpose(&mut self, x: &str, axes: [i64; 4], output: &str) -> String {
        let node = Node::new("Transpose", &[x], &[output]);
        self.push(node.with("perm", Attribute::Ints(axes.to_vec())))
    }

    fn constant(&mut self, name: &str, value: Tensor) {
        self.graph.initializers.insert(name.to_owned(), value);
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.push(Node::new(op, inputs, &[output]))
    }

    fn push(&mut self, node: Node) -> String {
        let output = node.output().to_owned();
        self.graph.nodes.push(node);
        output
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use burn::tensor::Device;

    use super::*;
    use crate::batches::Examples;
    use crate::encoder::Encoder;
    use crate::golden::Golden;
    use crate::interface::Student;
    use crate::tiny;

    fn golden_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
    }

    fn golden_weights() -> Weights {
        let architecture = Architecture {
            vocabulary: 100,
            positions: 32,
            hidden: 32,
            heads: 4,
            layers: 2,
            feed_forward: 64,
            labels: 5,
            head_width: 8,
            exits: 0,
        };
        tiny::weights(architecture, 7)
    }

    #[test]
    fn a_graph_is_sound_and_holds_every_parameter() {
        let weights = golden_weights();
        let graph = graph("tiny", &weights, Outputs::Student, &[]);
        graph.validate().expect("a sound graph");
        for (name, array) in weights.arrays() {
            let tensor = &graph.initializers[name];
            assert_eq!(tensor.shape(), array.shape, "{name}");
            assert_eq!(tensor.to_f32().as_ref(), Some(&array.values), "{name}");
            assert_eq!(graph.uses(name), 1, "{name}");
        }
    }

    /// `tests/golden/tiny.json` holds onnxruntime's answers to this very file.
    #[test]
    fn the_golden_encoder_is_what_the_exporter_writes() {
        let bytes = std::fs::read(golden_folder().join("tiny.onnx")).expect("the golden encoder");
        let golden = Graph::from_onnx(&bytes).expect("an ONNX model");
        let same = golden == Graph::from_onnx(&encoded()).expect("an ONNX model");
        assert!(same, "the exporter changed; write the golden encoder again, then run make.py");
    }

    fn encoded() -> Vec<u8> {
        graph("tiny", &golden_weights(), Outputs::Student, &[]).to_onnx()
    }

    #[test]
    #[ignore = "writes tests/golden/tiny.onnx and the trainer's answers, in milliseconds"]
    fn write_the_golden_encoder() {
        let lengths = [2, 3, 9, 17, 32];
        let row = |&length: &u32| (0..length).map(|token| (7 * token + length) % 100).collect();
        let examples = Examples { rows: lengths.iter().map(row).collect(), labels: vec![0; 5] };
        let encoder = Encoder::new(&golden_weights(), &Device::flex());
        let answers = serde_json::to_string(&Golden::new(&encoder, &examples)).expect("JSON");
        let folder = golden_folder();
        std::fs::create_dir_all(&folder).expect("a writable folder");
        std::fs::write(folder.join("tiny.onnx"), encoded()).expect("a writable folder");
        std::fs::write(folder.join("tiny.trainer.json"), answers).expect("a writable folder");
    }
}
