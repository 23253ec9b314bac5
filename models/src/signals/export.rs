//! A trained network over signals as an ONNX graph, opset 17: the same function as `network.rs` with
//! its normalizations folded into the convolutions.
//!
//! Input `signal` (f32 `[batch, ...]`, the shape of an example behind the batch), output `logits`
//! (f32 `[batch, labels]`).

use dram_runtime::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use dram_runtime::tensor::{DType, Tensor};

use crate::signals::front::{Front, POWER_FLOOR};
use crate::signals::network::NORM_EPSILON;
use crate::signals::sizes::{Convolution, Convolutional};
use crate::weights::{Array, Weights};

/// The graph `name` of the network `weights`; `metadata` becomes properties of the model.
pub(crate) fn graph(
    name: &str,
    weights: &Weights<Convolutional>,
    metadata: &[(&str, String)],
) -> Graph {
    let sizes = weights.sizes();
    let mut build = Build { weights, graph: Graph::default() };
    let mut x = build.front(&sizes.front);
    for (index, block) in sizes.convolutions().iter().enumerate() {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let first = build.convolution(&block.first, &x);
        let rectified = build.node("Relu", &[&first], &name("rectified"));
        x = match &block.second {
            None => rectified,
            Some(second) => {
                let past = match &block.shortcut {
                    Some(shortcut) => build.convolution(shortcut, &x),
                    None => x,
                };
                let second = build.convolution(second, &rectified);
                let sum = build.node("Add", &[&second, &past], &name("sum"));
                build.node("Relu", &[&sum], &name("output"))
            }
        };
    }
    build.head(&x);
    let batch = Dim::Symbol("batch".to_owned());
    let example = sizes.front.input().into_iter().map(Dim::Fixed);
    let signal: Vec<Dim> = std::iter::once(batch.clone()).chain(example).collect();
    let logits = [batch, Dim::Fixed(sizes.labels)];
    Graph {
        name: name.to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![ValueSpec::new("signal", DType::F32, &signal)],
        outputs: vec![ValueSpec::new("logits", DType::F32, &logits)],
        metadata: metadata.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
        ..build.graph
    }
}

/// A graph under construction. Every method returns the name of the value that it adds.
struct Build<'a> {
    weights: &'a Weights<Convolutional>,
    graph: Graph,
}

impl Build<'_> {
    /// The standardized maps: `[batch, channels, height, width]`.
    fn front(&mut self, front: &Front) -> String {
        let maps = match *front {
            Front::Windows { .. } => {
                let transpose = Node::new("Transpose", &["signal"], &["signal.channels"]);
                self.push(transpose.with("perm", Attribute::Ints(vec![0, 2, 1])));
                self.unsqueeze("signal.channels", &[2])
            }
            Front::Sound { rate_hz, frame, hop, bands, .. } => {
                let sound = self.unsqueeze("signal", &[1, 2]);
                let [waves, bands] = Front::spectrum(rate_hz, frame, bands);
                self.constant("front.waves", &waves);
                self.constant("front.bands", &bands);
                let waves = Node::new("Conv", &[&sound, "front.waves"], &["front.spectrum"]);
                self.push(waves.with("strides", Attribute::Ints(vec![1, hop as i64])));
                self.node("Mul", &["front.spectrum", "front.spectrum"], "front.squares");
                self.node("Conv", &["front.squares", "front.bands"], "front.power");
                let floor = Array { shape: vec![1], values: vec![POWER_FLOOR] };
                self.constant("front.floor", &floor);
                self.node("Add", &["front.power", "front.floor"], "front.floored");
                self.node("Log", &["front.floored"], "front.log")
            }
            Front::Image { .. } => self.unsqueeze("signal", &[1]),
        };
        for part in ["front.scale", "front.shift"] {
            let Array { values, .. } = self.weights.get(part).clone();
            self.constant(part, &Array { shape: vec![values.len(), 1, 1], values });
        }
        self.node("Mul", &[&maps, "front.scale"], "front.scaled");
        self.node("Add", &["front.scaled", "front.shift"], "front.maps")
    }

    fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = Tensor::from_i64(&[axes.len()], axes);
        self.graph.initializers.insert("signal.axes".to_owned(), axes);
        self.node("Unsqueeze", &[x, "signal.axes"], "signal.maps")
    }

    /// A convolution with its normalization: `y = (Wx - mean) gamma / sqrt(variance + epsilon) + beta`
    /// is itself a convolution with bias.
    fn convolution(&mut self, convolution: &Convolution, x: &str) -> String {
        let Convolution { name, shape, stride } = convolution;
        let norm = |part: &str| &self.weights.get(&format!("{name}.norm.{part}")).values;
        let gains: Vec<f64> = norm("gamma")
            .iter()
            .zip(norm("running_var"))
            .map(|(gamma, variance)| {
                f64::from(*gamma) / (f64::from(*variance) + NORM_EPSILON).sqrt()
            })
            .collect();
        let weight = &self.weights.get(&format!("{name}.weight")).values;
        let kernels = weight.chunks(weight.len() / shape[0]).zip(&gains);
        let folded = kernels
            .flat_map(|(kernel, gain)| kernel.iter().map(move |w| (f64::from(*w) * gain) as f32));
        let folded = Array { shape: shape.to_vec(), values: folded.collect() };
        let shifts = norm("beta").iter().zip(norm("running_mean")).zip(&gains);
        let bias =
            shifts.map(|((beta, mean), gain)| (f64::from(*beta) - f64::from(*mean) * gain) as f32);
        let bias = Array { shape: vec![shape[0]], values: bias.collect() };
        let [weight_name, bias_name, output] =
            ["weight", "bias", "output"].map(|part| format!("{name}.{part}"));
        self.constant(&weight_name, &folded);
        self.constant(&bias_name, &bias);
        let [rows, columns] = convolution.padding().map(|extent| extent as i64);
        let node = Node::new("Conv", &[x, &weight_name, &bias_name], &[&output])
            .with("kernel_shape", Attribute::Ints(vec![shape[2] as i64, shape[3] as i64]))
            .with("pads", Attribute::Ints(vec![rows, columns, rows, columns]))
            .with("strides", Attribute::Ints(stride.map(|step| step as i64).into()));
        self.push(node)
    }

    fn head(&mut self, x: &str) {
        for part in ["head.weight", "head.bias"] {
            self.constant(part, self.weights.get(part));
        }
        self.node("GlobalAveragePool", &[x], "pool");
        let flatten = Node::new("Flatten", &["pool"], &["embedding"]);
        self.push(flatten.with("axis", Attribute::Int(1)));
        self.node("Gemm", &["embedding", "head.weight", "head.bias"], "logits");
    }

    fn constant(&mut self, name: &str, array: &Array) {
        let tensor = Tensor::from_f32(&array.shape, &array.values);
        self.graph.initializers.insert(name.to_owned(), tensor);
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
    use crate::interface::{Mode, Sizes, Student};
    use crate::seed::Random;
    use crate::signals::golden::{Golden, Row};
    use crate::signals::network::Network;
    use crate::signals::sizes::{Block, Kind};

    /// A network with everything that a recipe can ask for, over a small signal of each kind, and weights
    /// of moderate size: running statistics included, gains and variances near 1.
    fn networks() -> Vec<(&'static str, Weights<Convolutional>)> {
        let fronts = [
            ("window", Front::Windows { samples: 16, channels: 3 }),
            ("sound", Front::Sound { samples: 160, rate_hz: 1000, frame: 32, hop: 16, bands: 6 }),
            ("image", Front::Image { height: 9, width: 8 }),
        ];
        let network = |(name, front): (&'static str, Front)| {
            let height = if name == "image" { 3 } else { 1 };
            let block = |kind, channels, stride| Block {
                kind,
                channels,
                kernel: [height, 3],
                stride: [height.div_ceil(2).min(stride), stride],
            };
            let blocks = vec![
                block(Kind::Plain, 4, 1),
                block(Kind::Residual, 6, 2),
                block(Kind::Residual, 6, 1),
            ];
            let sizes = Convolutional { front, blocks, labels: 5 };
            let arrays = sizes.layout().into_iter().map(|(name, shape)| {
                let mut random = Random::new(5, &name, 0);
                let around = |part: &str| if name.ends_with(part) { 1.0 } else { 0.0 };
                let middle = around("gamma") + around("running_var") + around("scale");
                let count = shape.iter().product();
                let values = (0..count).map(|_| middle + 0.4 * random.signed()).collect();
                (name, Array { shape, values })
            });
            (name, Weights::new(sizes.clone(), arrays.collect()).expect("its own layout"))
        };
        fronts.into_iter().map(network).collect()
    }

    /// Two signals and what the trainer's network says about each.
    fn answers(weights: &Weights<Convolutional>) -> Golden {
        let shape = weights.sizes().front.input();
        let network = Network::new(weights, &Device::flex());
        let row = |number: usize| {
            let mut random = Random::new(6, "signal", number);
            let signal: Vec<f32> = (0..shape.iter().product()).map(|_| random.signed()).collect();
            let batch = Array { shape: [&[1], &shape[..]].concat(), values: signal.clone() };
            let mut said = network.forward(&batch, &Device::flex(), Mode::default());
            let logits = said.logits.swap_remove(0).into_data();
            Row { signal, logits: logits.try_to_vec().expect("logits are f32") }
        };
        Golden { rows: (0..2).map(row).collect(), shape }
    }

    #[test]
    fn the_runtime_says_of_every_kind_of_signal_what_the_trainer_says() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, weights) in networks() {
            let graph = graph(name, &weights, &[]);
            graph.validate().expect(name);
            let path = folder.path().join("student.onnx");
            std::fs::write(&path, graph.to_onnx()).expect("a writable folder");
            answers(&weights).check(&path).expect(name);
        }
    }

    fn golden_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
    }

    /// `tests/golden/{window,sound,image}.json` hold onnxruntime's answers to these very files.
    #[test]
    fn the_golden_networks_are_what_the_exporter_writes() {
        for (name, weights) in networks() {
            let bytes = std::fs::read(golden_folder().join(format!("{name}.onnx"))).expect(name);
            let golden = Graph::from_onnx(&bytes).expect("an ONNX model");
            let written = graph(name, &weights, &[]).to_onnx();
            let same = golden == Graph::from_onnx(&written).expect("an ONNX model");
            assert!(
                same,
                "the exporter changed; write the golden networks again, then run make.py"
            );
        }
    }

    #[test]
    #[ignore = "writes tests/golden/{window,sound,image}.onnx and the trainer's answers, in milliseconds"]
    fn write_the_golden_networks() {
        for (name, weights) in networks() {
            let write = |file: String, bytes: Vec<u8>| {
                std::fs::write(golden_folder().join(file), bytes).expect("a writable folder");
            };
            write(format!("{name}.onnx"), graph(name, &weights, &[]).to_onnx());
            let answers = serde_json::to_vec(&answers(&weights)).expect("JSON");
            write(format!("{name}.trainer.json"), answers);
        }
    }
}
