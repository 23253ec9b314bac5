//! Depthwise convolutions whose channels differ in size, to ones that read them alike: each channel of what a
//! convolution before them writes is multiplied with a factor, and its weights after that with the inverse. So
//! channels share a range, and few of its steps are lost on those that are small. In f32 nothing changes.
//!
//! PP-OCR's recognizer reads channels up to ± 22 and ± 0.5 in one range, in its first layers.
//!
//! Refused: values that anything but a depthwise convolution reads, or a convolution with a residual writes; layers
//! that another tool quantized; channels that are about alike.
//!
//! Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
//! There the factor moves into the weights before it, and needs a function that scales; here it follows the function.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::graph::{Graph, Node};
use crate::optimize::marks;
use crate::samples::Samples;
use crate::session::Session;
use crate::tensor::{DType, Tensor};

/// Inputs that are looked at.
const SAMPLES: usize = 128;

/// The largest factor: inputs that were not seen may reach further.
const MOST: f32 = 64.0;

/// What is left of the noise at most, where a factor is worth its product.
const WORTH: f64 = 0.8;

/// Equalizes the channels of what the depthwise convolutions of the optimized `graph` read, by what `session`, which
/// runs the [`super::observed`] graph in f32, computes on the first of `samples`. Returns how many values that are.
///
/// # Errors
/// Those of running the model.
pub(crate) fn equalize(graph: &mut Graph, session: &Session, samples: &Samples) -> Result<usize> {
    let mut extremes: BTreeMap<String, Vec<[f32; 2]>> = BTreeMap::new();
    for node in &graph.nodes {
        if let Some((value, channels)) = reads(graph, node) {
            extremes.insert(value.to_owned(), vec![[0.0; 2]; channels]);
        }
    }
    if extremes.is_empty() {
        return Ok(0);
    }
    for input in samples.inputs(session, SAMPLES)? {
        for (name, tensor) in session.run(&input)? {
            if let Some(extremes) = extremes.get_mut(&name) {
                see(&tensor, extremes);
            }
        }
    }
    let mut count = 0;
    for (value, extremes) in extremes {
        if let Some(factors) = factors(&extremes, &gains(graph, &value, extremes.len())) {
            apply(graph, &value, &factors);
            count += 1;
        }
    }
    Ok(count)
}

/// What `node` reads, and how many channels it has, where it may be equalized.
fn reads<'a>(graph: &Graph, node: &'a Node) -> Option<(&'a str, usize)> {
    let value = node.input(0)?;
    let channels = depthwise(graph, node)?;
    let writer = &graph.nodes[graph.producer(value)?];
    let plain = writer.is_fused("Conv") && writer.input(3).is_none() && writer.input(5).is_none();
    let readers = graph.nodes.iter().filter(|it| it.input(0) == Some(value));
    let alike = readers.filter(|it| depthwise(graph, it) == Some(channels)).count();
    (plain && !marks::is_quantized(writer) && alike == graph.uses(value))
        .then_some((value, channels))
}

/// The channels of a depthwise `dram.Conv` with weights of f32 that nobody rounded.
fn depthwise(graph: &Graph, node: &Node) -> Option<usize> {
    let weight = graph.initializers.get(node.input(1)?)?;
    match *weight.shape() {
        [n, 1, ..]
            if node.is_fused("Conv")
                && n > 1
                && node.int("group", 1) == n as i64
                && weight.dtype() == DType::F32
                && !marks::is_quantized(node) =>
        {
            Some(n)
        }
        _ => None,
    }
}

/// Widens `extremes`, those of each channel, to hold the image `x`, channels last.
fn see(x: &Tensor, extremes: &mut [[f32; 2]]) {
    let values = x.to_f32().unwrap_or_default();
    for place in values.chunks_exact(extremes.len()) {
        for ([least, most], &value) in extremes.iter_mut().zip(place) {
            *least = least.min(value);
            *most = most.max(value);
        }
    }
}

/// How much of a channel's noise reaches what is made of it: the squares of the weights that meet it.
fn gains(graph: &Graph, value: &str, channels: usize) -> Vec<f64> {
    let mut gains = vec![0.0; channels];
    for node in graph.nodes.iter().filter(|node| node.input(0) == Some(value)) {
        let weight = node.input(1).and_then(|name| graph.initializers.get(name)?.to_f32());
        let weight = weight.unwrap_or_default();
        let taps = (weight.len() / channels).max(1);
        for (gain, taps) in gains.iter_mut().zip(weight.chunks_exact(taps)) {
            *gain += taps.iter().map(|&tap| f64::from(tap).powi(2)).sum::<f64>();
        }
    }
    gains
}

/// The factors, from 1 to [`MOST`], with which the noise of all channels is least where they share a range that
/// their `extremes`, below and above zero, just fill; `None` where that is worth little.
fn factors(extremes: &[[f32; 2]], gains: &[f64]) -> Option<Vec<f32>> {
    let noise = |sizes: &[f32], reach: f64| -> f64 {
        let squares = sizes.iter().map(|&size| f64::from(size).powi(2));
        squares.zip(gains).map(|(square, gain)| square * gain).sum::<f64>() * reach.powi(2)
    };
    // Every channel fills one side of the range; the other reaches so much further out.
    let shares = [0.0, 1.0 / 32.0, 1.0 / 16.0, 0.125, 0.25, 0.5, 1.0];
    let sizes = |share: f32, turned: bool| -> Option<Vec<f32>> {
        let size = |&[least, most]: &[f32; 2]| {
            let (minor, major) = if turned { (most, -least) } else { (-least, most) };
            match minor > 0.0 {
                true if share == 0.0 => None,
                true => Some(major.max(minor / share)),
                false => Some(major),
            }
        };
        let sizes: Vec<f32> = extremes.iter().map(size).collect::<Option<_>>()?;
        let largest = sizes.iter().copied().fold(0.0, f32::max);
        let sizes = sizes.into_iter().map(|size| size.max(largest / MOST));
        (largest > 0.0 && largest.is_finite()).then(|| sizes.collect())
    };
    let choices = shares.iter().flat_map(|&share| [(share, false), (share, true)]);
    let choices = choices.filter_map(|(share, turned)| {
        let sizes = sizes(share, turned)?;
        Some((noise(&sizes, 1.0 + f64::from(share)), sizes))
    });
    let (least, sizes) = choices.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let [below, above] = extremes
        .iter()
        .fold([0.0_f32; 2], |[below, above], &[least, most]| [below.max(-least), above.max(most)]);
    let before = noise(&vec![below + above; extremes.len()], 1.0);
    let largest = sizes.iter().copied().fold(0.0, f32::max);
    (least < WORTH * before).then(|| sizes.iter().map(|size| largest / size).collect())
}

/// Multiplies each channel of `value` with its factor, and divides the weights that meet it by that.
fn apply(graph: &mut Graph, value: &str, factors: &[f32]) {
    let Some(writer) = graph.producer(value) else { return };
    // It holds other numbers now, and is not to be compared with what it was.
    let equalized = format!("{value}.equalized");
    let name = format!("{equalized}.factors");
    graph.initializers.insert(name.clone(), Tensor::from_f32(&[factors.len()], factors));
    let writer = &mut graph.nodes[writer];
    writer.inputs.resize(5, String::new());
    writer.inputs.push(name);
    writer.outputs[0].clone_from(&equalized);
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.input(0) != Some(value) {
            continue;
        }
        let weight = node.input(1).and_then(|name| graph.initializers.get(name));
        let Some((shape, values)) = weight.and_then(|it| Some((it.shape().to_vec(), it.to_f32()?)))
        else {
            continue;
        };
        let taps = (values.len() / factors.len()).max(1);
        let channels = values.chunks_exact(taps).zip(factors);
        let smaller = channels.flat_map(|(taps, factor)| taps.iter().map(move |tap| tap / factor));
        let smaller = Tensor::from_f32(&shape, &smaller.collect::<Vec<f32>>());
        let name = format!("{}.equalized.weight", node.output());
        graph.initializers.insert(name.clone(), smaller);
        let node = &mut graph.nodes[index];
        node.inputs[0].clone_from(&equalized);
        node.inputs[1] = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{self, Calibration};
    use crate::graph::{Attribute, Dim, ValueSpec};
    use crate::optimize;
    use crate::prepare::{self, bundle_of};
    use crate::quantize::{Precision, Scheme};
    use crate::random::Random;
    use crate::session::Options;

    fn open(graph: &Graph, scheme: &Scheme) -> Session {
        let prepared = prepare::pack(graph, &[], scheme).unwrap();
        let bundle = bundle_of(&prepared.graph, scheme.precision).unwrap();
        Session::from_bundle(bundle, &Options::default()).unwrap()
    }

    fn observe(graph: &Graph) -> Session {
        open(&calibrate::observed(graph), &Precision::F32.into())
    }

    /// A convolution whose channels reach up to 32 and less and less, a function, and a depthwise convolution.
    fn uneven(function: &str, random: &mut Random, more: Vec<Node>) -> Graph {
        let size = |channel: usize| 2.0_f32.powi(5 - channel as i32);
        let first: Vec<f32> = (0..6)
            .flat_map(|channel| random.floats(3 * 9).into_iter().map(move |it| it * size(channel)))
            .collect();
        let second: Vec<f32> = (0..6)
            .flat_map(|channel| random.floats(9).into_iter().map(move |it| it / size(channel)))
            .collect();
        let same = |node: Node| node.with("pads", Attribute::Ints(vec![1; 4]));
        let depthwise = same(Node::new("Conv", &["f", "d"], &["y"]));
        let mut graph = Graph {
            opsets: [(String::new(), 17)].into(),
            inputs: vec![ValueSpec::new("x", DType::F32, &[1, 3, 7, 8].map(Dim::Fixed))],
            nodes: vec![
                same(Node::new("Conv", &["x", "w"], &["c"])),
                Node::new(function, &["c"], &["f"]),
                depthwise.with("group", Attribute::Int(6)),
            ],
            initializers: [
                ("w".to_owned(), Tensor::from_f32(&[6, 3, 3, 3], &first)),
                ("d".to_owned(), Tensor::from_f32(&[6, 1, 3, 3], &second)),
            ]
            .into(),
            ..Graph::default()
        };
        graph.nodes.extend(more);
        let last = graph.nodes[graph.nodes.len() - 1].output().to_owned();
        graph.outputs = vec![ValueSpec::new(&last, DType::F32, &[])];
        graph.validate().unwrap();
        optimize::optimize(&mut graph);
        graph
    }

    fn samples(random: &mut Random) -> Samples {
        let image = |_| Tensor::from_f32(&[1, 3, 7, 8], &random.floats(168));
        Samples::Windows((0..12).map(image).collect())
    }

    fn output(session: &Session, samples: &Samples) -> Vec<f32> {
        let inputs = samples.inputs(session, 12).unwrap();
        let run = |input| session.run(input).unwrap()[0].1.to_f32().unwrap();
        inputs.iter().flat_map(run).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn an_equalized_graph_computes_the_same_and_loses_less_when_it_is_rounded() {
        let mut random = Random(41);
        for function in ["Identity", "Relu", "HardSwish", "Sigmoid"] {
            let graph = uneven(function, &mut random, vec![]);
            let samples = samples(&mut random);
            let session = observe(&graph);
            let mut equal = graph.clone();
            let count = equalize(&mut equal, &session, &samples).unwrap();
            // A sigmoid ends at one, whatever the size of what it reads.
            assert_eq!(count, usize::from(function != "Sigmoid"), "{function}");
            let exact = output(&open(&graph, &Precision::F32.into()), &samples);
            let same = output(&open(&equal, &Precision::F32.into()), &samples);
            let size = distance(&exact, &vec![0.0; exact.len()]);
            // A product and a quotient of floats, in sums of nine.
            assert!(distance(&exact, &same) < 1e-6 * size, "{function}");
            let rounded = |graph: &Graph| {
                let session = observe(graph);
                let (ranges, _) = calibrate::ranges(&session, &samples, Calibration::Mse).unwrap();
                let scheme = Scheme { ranges, ..Precision::Int8Static.into() };
                distance(&exact, &output(&open(graph, &scheme), &samples))
            };
            let (before, after) = (rounded(&graph), rounded(&equal));
            // Channels up to 32 times as large as others were rounded in the same steps.
            assert!(count == 0 || after < 0.5 * before, "{function}: {before} to {after}");
        }
    }

    #[test]
    fn a_value_that_something_else_reads_keeps_its_numbers() {
        let mut random = Random(43);
        let sum = Node::new("Add", &["y", "f"], &["z"]);
        let graph = uneven("HardSwish", &mut random, vec![sum]);
        let mut equal = graph.clone();
        assert_eq!(equalize(&mut equal, &observe(&graph), &samples(&mut random)).unwrap(), 0);
        assert_eq!(equal, graph);
    }

    #[test]
    fn channels_fill_a_range_that_they_share() {
        // One side only: the factors are the inverse of the sizes.
        let found = factors(&[[0.0, 8.0], [0.0, 2.0], [0.0, 0.5]], &[1.0; 3]).unwrap();
        assert_eq!(found, [1.0, 4.0, 16.0]);
        // Turned round the same.
        let found = factors(&[[-8.0, 0.0], [-2.0, 0.0], [-0.5, 0.0]], &[1.0; 3]).unwrap();
        assert_eq!(found, [1.0, 4.0, 16.0]);
        // Both sides alike.
        let found = factors(&[[-6.0, 6.0], [-1.0, 1.5]], &[1.0; 2]).unwrap();
        assert_eq!(found, [1.0, 4.0]);
        // A channel that was hardly seen to move may move elsewhere.
        let found = factors(&[[0.0, 8.0], [0.0, 1e-6], [0.0, 0.0]], &[1.0; 3]).unwrap();
        assert_eq!(found, [1.0, MOST, MOST]);
    }

    #[test]
    fn channels_that_are_alike_dead_or_endless_are_left_alone() {
        for extremes in [
            &[[0.0, 1.0], [0.0, 0.95]][..],
            &[[0.0, 0.0], [0.0, 0.0]],
            &[[0.0, f32::INFINITY], [0.0, 1.0]],
        ] {
            assert_eq!(factors(extremes, &vec![1.0; extremes.len()]), None, "{extremes:?}");
        }
        // Small channels whose noise nobody hears.
        assert_eq!(factors(&[[0.0, 8.0], [0.0, 0.5]], &[1.0, 1e-3]), None);
    }
}
