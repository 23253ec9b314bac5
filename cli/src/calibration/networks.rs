//! What networks over signals and images take: rates for each kind of their work, found on networks of our own making.
//!
//! A layer of a small network spends its time on more than products: it copies what lies under its windows, writes and
//! rounds numbers, and is a step. How long each takes is what explains the measured times of all these networks best.

use std::collections::BTreeMap;
use std::hint::black_box;

use dram_runtime::bundle::{Bundle, Parts, image};
use dram_runtime::graph::{Attribute, Dim, Node, ValueSpec};
use dram_runtime::kernels::{PANEL, pack_f32, pad_columns};
use dram_runtime::{DType, Graph, NetworkWork, Options, Precision, Session, Tensor};
use serde::{Deserialize, Serialize};

use super::{Int8Layer, floats, seconds};

/// Nanoseconds of one of each, one thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkRates {
    /// A multiply-accumulate of a convolution in f32, outputs in whole panels.
    pub(crate) f32_mac: f64,
    /// The same in int8.
    pub(crate) int8_mac: f64,
    /// A multiply-accumulate of a depthwise convolution in f32.
    pub(crate) f32_depthwise_mac: f64,
    /// The same in int8.
    pub(crate) int8_depthwise_mac: f64,
    /// A number under a window that is copied before it is multiplied.
    pub(crate) gathered: f64,
    /// A piece of such numbers, a line of a window.
    pub(crate) gathered_piece: f64,
    /// A number that a layer in f32 writes, or a function of one number reads or writes.
    pub(crate) f32_value: f64,
    /// A number that a layer in int8 rounds or writes.
    pub(crate) int8_value: f64,
    /// A number under a window of pooling.
    pub(crate) pooled: f64,
    /// A number that an operator of ONNX's own reads or writes.
    pub(crate) array_value: f64,
    /// A byte of a linear layer's weights.
    pub(crate) weight_byte: f64,
    /// A linear layer or a convolution, whatever it computes.
    pub(crate) layer: f64,
    /// A kernel that is called.
    pub(crate) step: f64,
    /// An answer, whatever the network.
    pub(crate) answer: f64,
}

/// As many as [`NetworkRates`] has.
const KINDS: usize = 14;

impl NetworkRates {
    /// Measures this machine, whose tiles reach `peaks` multiply-accumulates per second in f32 and in int8, for about two
    /// seconds.
    pub(super) fn measure(peaks: [f64; 2]) -> NetworkRates {
        let measured: Vec<([f64; KINDS], f64)> = NETWORKS
            .iter()
            .flat_map(|network| [Precision::F32, Precision::Int8].map(|it| (network, it)))
            .filter(|(network, precision)| *precision == Precision::F32 || network.multiplies())
            .map(|(network, precision)| network.measure(precision))
            .collect();
        let mut least = [0.0; KINDS];
        // No product is faster than those of the tile that it is made of.
        for (least, peak) in least.iter_mut().zip(peaks) {
            *least = 1e9 / peak;
        }
        NetworkRates::of(explained(&measured, least))
    }

    /// Nanoseconds of what is shared out among threads, and of what is not.
    pub(crate) fn nanoseconds(&self, work: &NetworkWork) -> (f64, f64) {
        let [shared @ .., layers, steps, answer] = counts(work);
        let [rates @ .., layer, step, once] = self.kinds();
        let shared = shared.iter().zip(rates).map(|(count, rate)| count * rate).sum();
        (shared, layers * layer + steps * step + answer * once)
    }

    fn kinds(&self) -> [f64; KINDS] {
        [
            self.f32_mac,
            self.int8_mac,
            self.f32_depthwise_mac,
            self.int8_depthwise_mac,
            self.gathered,
            self.gathered_piece,
            self.f32_value,
            self.int8_value,
            self.pooled,
            self.array_value,
            self.weight_byte,
            self.layer,
            self.step,
            self.answer,
        ]
    }

    fn of(kinds: [f64; KINDS]) -> NetworkRates {
        let [f32_mac, int8_mac, f32_depthwise_mac, int8_depthwise_mac, rest @ ..] = kinds;
        let [gathered, gathered_piece, f32_value, int8_value, pooled, array_value, rest @ ..] =
            rest;
        let [weight_byte, layer, step, answer] = rest;
        NetworkRates {
            f32_mac,
            int8_mac,
            f32_depthwise_mac,
            int8_depthwise_mac,
            gathered,
            gathered_piece,
            f32_value,
            int8_value,
            pooled,
            array_value,
            weight_byte,
            layer,
            step,
            answer,
        }
    }
}

/// How much of each kind one answer has, in the order of [`NetworkRates::kinds`].
fn counts(work: &NetworkWork) -> [f64; KINDS] {
    [
        work.f32_panel_macs,
        work.int8_panel_macs,
        work.f32_depthwise_macs,
        work.int8_depthwise_macs,
        work.gathered,
        work.gathered_pieces,
        work.f32_values,
        work.int8_values,
        work.pooled,
        work.array_values,
        work.weight_bytes,
        work.layers,
        work.steps,
        1,
    ]
    .map(|count| count as f64)
}

/// The rates from `least` up with which `counts * rates` differs least from the measured times, by the squares of shares:
/// one rate at a time, until none moves.
fn explained(measured: &[([f64; KINDS], f64)], least: [f64; KINDS]) -> [f64; KINDS] {
    const ROUNDS: usize = 20_000;
    let shares: Vec<[f64; KINDS]> =
        measured.iter().map(|(counts, time)| counts.map(|count| count / time)).collect();
    let mut rates = least;
    for _ in 0..ROUNDS {
        for kind in 0..KINDS {
            let square: f64 = shares.iter().map(|share| share[kind] * share[kind]).sum();
            let missing = |share: &[f64; KINDS]| {
                1.0 - share.iter().zip(&rates).map(|(share, rate)| share * rate).sum::<f64>()
            };
            let slope: f64 = shares.iter().map(|share| share[kind] * missing(share)).sum();
            if square > 0.0 {
                rates[kind] = (rates[kind] + slope / square).max(least[kind]);
            }
        }
    }
    rates
}

/// A network of layers one behind the other, over `[rows, columns, channels]`.
struct Network {
    shape: [usize; 3],
    layers: &'static [Layer],
}

#[derive(Clone, Copy, PartialEq)]
enum Layer {
    /// Window and outputs, with a `Relu`.
    Conv([usize; 2], usize),
    /// Window, with a `Relu`.
    Depthwise([usize; 2]),
    /// Window of a maximum.
    Pool([usize; 2]),
    Clip,
    /// Outputs.
    Linear(usize),
    /// Rows for columns.
    Transpose,
    /// A product with a factor for each channel.
    Mul,
}

use Layer::{Clip, Conv, Depthwise, Linear, Mul, Pool, Transpose};

/// Each kind of work in several mixtures; none of them is a model that anyone uses.
const NETWORKS: [Network; 17] = [
    Network { shape: [1, 1, 8], layers: &[Clip; 2] },
    Network { shape: [1, 1, 8], layers: &[Clip; 24] },
    Network { shape: [32, 32, 32], layers: &[Clip; 6] },
    Network { shape: [24, 24, 24], layers: &[Pool([3, 3]), Pool([2, 2]), Pool([3, 3])] },
    Network { shape: [24, 24, 3], layers: &[Conv([3, 3], 16), Conv([3, 3], 24)] },
    Network { shape: [14, 14, 48], layers: &[Conv([3, 3], 64), Conv([3, 3], 64)] },
    Network {
        shape: [12, 12, 64],
        layers: &[Conv([1, 1], 128), Conv([1, 1], 40), Conv([1, 1], 96)],
    },
    Network { shape: [1, 96, 12], layers: &[Conv([1, 5], 40), Conv([1, 5], 40), Conv([1, 3], 64)] },
    Network { shape: [1, 24, 10], layers: &[Conv([1, 3], 20); 6] },
    Network { shape: [3, 3, 6], layers: &[Conv([3, 3], 10); 5] },
    Network { shape: [2, 2, 8], layers: &[Conv([1, 1], 12); 6] },
    Network { shape: [5, 5, 64], layers: &[Conv([2, 2], 96), Conv([3, 3], 128)] },
    Network { shape: [24, 24, 32], layers: &[Depthwise([3, 3]); 4] },
    Network {
        shape: [20, 20, 8],
        layers: &[Depthwise([5, 5]), Conv([1, 1], 24), Depthwise([3, 3])],
    },
    Network { shape: [1, 1, 640], layers: &[Linear(160), Linear(96), Linear(10)] },
    Network { shape: [100, 8, 1], layers: &[Transpose; 4] },
    Network { shape: [60, 1, 16], layers: &[Mul, Mul, Mul] },
];

/// Answers of each network that are measured.
const ANSWERS: usize = 1000;

impl Network {
    /// Whether it has a form in int8.
    fn multiplies(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Conv(..) | Depthwise(_) | Linear(_)))
    }

    /// What it does, and the nanoseconds that it takes: the middle of many answers.
    fn measure(&self, precision: Precision) -> ([f64; KINDS], f64) {
        let graph = self.graph(precision);
        let bundle = Bundle::from_image(&image(&Parts::of(&graph, precision)))
            .expect("a graph of stored nodes is a bundle");
        let session = Session::from_bundle(bundle, &Options::default())
            .expect("our kernels run a graph of stored nodes");
        let [rows, columns, channels] = self.shape;
        let x = Tensor::from_f32(&[1, rows, columns, channels], &floats(rows * columns * channels));
        let inputs = BTreeMap::from([("0".to_owned(), x)]);
        let mut answer = || {
            black_box(session.run(black_box(&inputs)).expect("inputs of the graph's shape"));
        };
        // Each answer by itself, as `dram bench` measures: back to back they would be faster than they are in use.
        let mut times: Vec<f64> = (0..ANSWERS).map(|_| seconds(&mut answer)).collect();
        times.sort_by(f64::total_cmp);
        (counts(&session.work(0).network), times[ANSWERS / 2] * 1e9)
    }

    /// The graph as a bundle stores it: layer `i` reads value `i`.
    fn graph(&self, precision: Precision) -> Graph {
        let ends = [0, self.layers.len()].map(|place| place.to_string());
        let [rows, columns, mut channels] = self.shape;
        let dims = [1, rows, columns, channels].map(Dim::Fixed);
        let mut graph = Graph {
            name: "calibration".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![ValueSpec::new(&ends[0], DType::F32, &dims)],
            outputs: vec![ValueSpec::new(&ends[1], DType::F32, &[])],
            ..Graph::default()
        };
        for (place, layer) in self.layers.iter().enumerate() {
            let (op, window, constants, n) = layer.stored(channels, precision);
            let names: Vec<String> =
                constants.iter().map(|(name, _)| format!("{place}.{name}")).collect();
            let mut inputs = vec![place.to_string()];
            inputs.extend(names.iter().cloned());
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let output = (place + 1).to_string();
            let node = match layer {
                Transpose | Mul => Node::new(&op, &inputs, &[&output]),
                _ => Node::fused(&op, &inputs, &[&output]),
            };
            graph.nodes.push(layer.described(node, window, channels, n));
            graph.initializers.extend(names.into_iter().zip(constants.into_iter().map(|it| it.1)));
            channels = n;
        }
        graph
    }
}

type Constants = Vec<(&'static str, Tensor)>;

impl Layer {
    /// Operator, window, constants and outputs on so many channels.
    fn stored(
        self,
        channels: usize,
        precision: Precision,
    ) -> (String, [usize; 2], Constants, usize) {
        let numbers = if precision == Precision::F32 { "F32" } else { "Int8" };
        match self {
            Clip => ("Pointwise".to_owned(), [1; 2], Vec::new(), channels),
            Transpose => ("Transpose".to_owned(), [1; 2], Vec::new(), channels),
            Mul => ("Mul".to_owned(), [1; 2], vec![("factors", matrix(1, channels))], channels),
            Pool(window) => ("Pool".to_owned(), window, Vec::new(), channels),
            Conv(window, n) => {
                let constants = panels(window[0] * window[1] * channels, n, precision, &[1]);
                (format!("Conv{numbers}"), window, constants, n)
            }
            Linear(n) => {
                (format!("Linear{numbers}"), [1; 2], panels(channels, n, precision, &[]), n)
            }
            Depthwise(window) => {
                let taps = window[0] * window[1];
                let weights = match precision {
                    Precision::F32 => vec![("weights", matrix(taps, channels))],
                    _ => vec![
                        ("weights", Tensor::from_i8(&[taps, channels], &vec![5; taps * channels])),
                        ("scales", Tensor::from_f32(&[channels], &vec![0.01; channels])),
                    ],
                };
                let bias = [("bias", Tensor::from_f32(&[channels], &floats(channels)))];
                let constants = weights.into_iter().chain(bias).collect();
                (format!("Depthwise{numbers}"), window, constants, channels)
            }
        }
    }

    fn described(self, node: Node, window: [usize; 2], channels: usize, n: usize) -> Node {
        let int = |value: usize| Attribute::Int(value as i64);
        let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&it| it as i64).collect());
        match self {
            Linear(n) => return node.with("k", int(channels)).with("n", int(n)),
            Transpose => return node.with("perm", ints(&[0, 2, 1, 3])),
            Mul => return node,
            _ => {}
        }
        let [above, left] = window.map(|taps| taps / 2);
        let [below, right] = window.map(|taps| (taps - 1) / 2);
        let node = node
            .with("kernel", ints(&window))
            .with("strides", ints(&[1, 1]))
            .with("dilations", ints(&[1, 1]))
            .with("pads", ints(&[above, left, below, right]));
        if let Pool(_) = self {
            return node.with("pooling", Attribute::String("max".to_owned()));
        }
        node.with("channels", int(channels))
            .with("n", int(n))
            .with("group", int(1))
            .with("activation", Attribute::String("clip".to_owned()))
            .with("alpha", Attribute::Float(0.0))
            .with("beta", Attribute::Float(f32::INFINITY))
    }
}

/// The constants of a product of `k` terms and `n` outputs, the panels' shape behind `outer`.
fn panels(k: usize, n: usize, precision: Precision, outer: &[usize]) -> Constants {
    let count = n.div_ceil(PANEL);
    let shape = |inner: &[usize]| [outer, &[count], inner].concat();
    let columns = [count * PANEL];
    if precision == Precision::F32 {
        let panels = pack_f32(&floats(k * n), k, n);
        let bias = Tensor::from_f32(&columns, &pad_columns(&floats(n)));
        return vec![("panels", Tensor::from_f32(&shape(&[k, PANEL]), &panels)), ("bias", bias)];
    }
    let Int8Layer { panels, sums, scales, bias, .. } = Int8Layer::new(k, n);
    vec![
        ("panels", Tensor::from_i8(&shape(&[k.div_ceil(4), PANEL, 4]), &panels)),
        ("column_sums", Tensor::from_i32(&columns, &sums)),
        ("scales", Tensor::from_f32(&columns, &scales)),
        ("bias", Tensor::from_f32(&columns, &bias)),
    ]
}

fn matrix(rows: usize, columns: usize) -> Tensor {
    Tensor::from_f32(&[rows, columns], &floats(rows * columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_times_were_made_of_are_found_again() {
        let rates: [f64; KINDS] = std::array::from_fn(|kind| 1.0 + kind as f64);
        let measured: Vec<([f64; KINDS], f64)> = (0..KINDS + 4)
            .map(|network| {
                let counts: [f64; KINDS] = std::array::from_fn(|kind| {
                    if kind == network % KINDS {
                        40.0
                    } else {
                        ((network * 7 + kind * 5) % 11) as f64
                    }
                });
                (counts, counts.iter().zip(rates).map(|(count, rate)| count * rate).sum())
            })
            .collect();
        for (found, rate) in explained(&measured, [0.0; KINDS]).into_iter().zip(rates) {
            assert!((found - rate).abs() < 0.01, "{found} for {rate}");
        }
        // Nothing goes below what is known to be the least.
        assert!(explained(&measured, [5.0; KINDS]).iter().all(|&rate| rate >= 5.0));
    }

    #[test]
    fn every_network_runs_and_its_work_is_counted() {
        for network in &NETWORKS {
            let (counts, nanoseconds) = network.measure(Precision::F32);
            assert!(nanoseconds > 0.0);
            assert_eq!(counts[KINDS - 2] as usize, network.layers.len(), "a step for each layer");
        }
    }
}
