//! Property: a layer whose weights lie on the grid of a precision, and whose inputs lie on that of its activations,
//! loses nothing when it is stored and run in that precision, whatever its shape: the result is that of tract on
//! the floats. And no quantizer takes weights that are no numbers.
//!
//! Steps are powers of two, so that no sum of floats rounds: equal means equal.

use std::collections::BTreeMap;

use super::{Precision, Scheme};
use crate::engine;
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::kernels::RowScale;
use crate::optimize;
use crate::prepare::{self, bundle_of};
use crate::random::Random;
use crate::session::{Options, Session};
use crate::tensor::{DType, Tensor};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    Linear,
    Conv,
    Grouped,
    Depthwise,
    /// Rows of a table by the numbers of tokens, alone and with positions added.
    Lookup,
    Embedding,
}

const LAYERS: [Layer; 6] =
    [Layer::Linear, Layer::Conv, Layer::Grouped, Layer::Depthwise, Layer::Lookup, Layer::Embedding];

struct Case {
    what: String,
    graph: Graph,
    given: Tensor,
    /// In which `given` lies.
    range: RowScale,
}

/// `count` weights that share a scale, on the grid of `precision`, one of them at its end.
fn column(random: &mut Random, precision: Precision, count: usize) -> Vec<f32> {
    let step = random.step();
    let steps: Vec<f32> = match precision.group() {
        Some(inputs) => {
            // Groups have a multiplier each, and the largest weight tells the scale.
            let multipliers: Vec<usize> = (0..count.div_ceil(inputs))
                .map(|group| if group == 0 { 18 } else { 1 + random.below(18) })
                .collect();
            let at = |place: usize, random: &mut Random| {
                let step = if place == 0 { 7 } else { random.below(15) as i32 - 7 };
                (step * multipliers[place / inputs] as i32) as f32
            };
            (0..count).map(|place| at(place, random)).collect()
        }
        None => (0..count)
            .map(|place| if place == 0 { 127.0 } else { random.below(255) as f32 - 127.0 })
            .collect(),
    };
    steps.into_iter().map(|steps| steps * step).collect()
}

impl Case {
    fn of(layer: Layer, precision: Precision, random: &mut Random) -> Case {
        // Two numbers at least: of each row one is the least and one the largest.
        let (k, n) = (2 + random.below(50), 1 + random.below(40));
        let range = RowScale { scale: random.step(), zero_point: random.below(256) as u8 };
        let mut rounded = |shape: &[usize]| {
            let count = shape.iter().product();
            let width = *shape.last().expect("an axis");
            let mut steps = random.bytes(count);
            for row in steps.chunks_mut(width) {
                (row[0], row[width - 1]) = (0, 255);
            }
            let float = |&byte: &u8| (f32::from(byte) - f32::from(range.zero_point)) * range.scale;
            Tensor::from_f32(shape, &steps.iter().map(float).collect::<Vec<f32>>())
        };
        let tokens = Tensor::from_i64(&[2, 5], &[3, 1, 4, 1, 5, 9, 2, 6, 5, 35]);
        let convolution = |channels: usize| [2, channels, 5, 6];
        let (shape, groups) = match layer {
            Layer::Linear => (vec![3, k], 1),
            Layer::Conv => (convolution(1 + k % 5).to_vec(), 1),
            Layer::Grouped => (convolution(4).to_vec(), 2),
            Layer::Depthwise => (convolution(7).to_vec(), 7),
            Layer::Lookup | Layer::Embedding => (vec![], 1),
        };
        let given = if shape.is_empty() { tokens } else { rounded(&shape) };
        let bias: Vec<f32> = (0..n * groups).map(|_| random.below(99) as f32).collect();
        let mut columns = |count: usize, length: usize| -> Vec<Vec<f32>> {
            (0..count).map(|_| column(random, precision, length)).collect()
        };
        let mut constants = BTreeMap::new();
        let mut nodes = Vec::new();
        match layer {
            Layer::Linear => {
                let columns = columns(n, k);
                let weight: Vec<f32> =
                    (0..k).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
                constants.insert("w", Tensor::from_f32(&[k, n], &weight));
                constants.insert("b", Tensor::from_f32(&[n], &bias[..n]));
                nodes.push(Node::new("MatMul", &["x", "w"], &["p"]));
                nodes.push(Node::new("Add", &["p", "b"], &["y"]));
            }
            Layer::Conv | Layer::Grouped | Layer::Depthwise => {
                let n = if layer == Layer::Depthwise { groups } else { n.div_ceil(4) * groups };
                let inputs = shape[1] / groups;
                let weight = columns(n, inputs * 6).concat();
                constants.insert("w", Tensor::from_f32(&[n, inputs, 3, 2], &weight));
                constants.insert("b", Tensor::from_f32(&[n], &bias[..n]));
                let conv = Node::new("Conv", &["x", "w", "b"], &["y"])
                    .with("pads", Attribute::Ints(vec![1, 0, 2, 1]))
                    .with("strides", Attribute::Ints(vec![1, 2]))
                    .with("group", Attribute::Int(groups as i64));
                nodes.push(conv);
            }
            Layer::Lookup | Layer::Embedding => {
                // A table of fewer than 1,024 numbers is not rounded.
                let rows = columns(36, 30).concat();
                constants.insert("w", Tensor::from_f32(&[36, 30], &rows));
                let output = if layer == Layer::Lookup { "y" } else { "rows" };
                nodes.push(Node::new("Gather", &["w", "x"], &[output]));
                if layer == Layer::Embedding {
                    // Rows for the places of five tokens, and some that a longer text would have.
                    let places = random.bytes(8 * 30).into_iter().map(f32::from);
                    let places = Tensor::from_f32(&[8, 30], &places.collect::<Vec<f32>>());
                    constants.insert("places", places);
                    constants.insert("from", Tensor::from_i64(&[1], &[0]));
                    constants.insert("to", Tensor::from_i64(&[1], &[5]));
                    nodes.push(Node::new("Slice", &["places", "from", "to", "from"], &["place"]));
                    nodes.push(Node::new("Add", &["rows", "place"], &["y"]));
                }
            }
        }
        let dims: Vec<Dim> = given.shape().iter().map(|&extent| Dim::Fixed(extent)).collect();
        let graph = Graph {
            name: "on the grid".to_owned(),
            opsets: [(String::new(), 17)].into(),
            inputs: vec![ValueSpec::new("x", given.dtype(), &dims)],
            outputs: vec![ValueSpec::new("y", DType::F32, &[])],
            nodes,
            initializers: constants.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
            ..Graph::default()
        };
        graph.validate().expect("a generated graph is sound");
        let what = format!(
            "{layer:?} in {precision}, {:?} and {:?}",
            given.shape(),
            graph.initializers["w"].shape()
        );
        Case { what, graph, given, range }
    }

    fn pack(&self, precision: Precision) -> crate::error::Result<prepare::Prepared> {
        let mut fused = self.graph.clone();
        let passes = optimize::optimize(&mut fused);
        let values: Vec<String> = super::rounded_values(&fused).map(str::to_owned).collect();
        let ranges = values.into_iter().map(|value| (value, self.range)).collect();
        prepare::pack(&fused, &passes, &Scheme { ranges, ..precision.into() })
    }
}

const PRECISIONS: [Precision; 7] = [
    Precision::F32,
    Precision::F16,
    Precision::Int8,
    Precision::Int8Static,
    Precision::Int4,
    Precision::Int4By16,
    Precision::Int4By8,
];

#[test]
fn what_lies_on_the_grid_is_computed_as_the_floats_are() {
    let mut random = Random(3);
    let mut complaints = Vec::new();
    for layer in LAYERS {
        for precision in PRECISIONS {
            for _ in 0..6 {
                let case = Case::of(layer, precision, &mut random);
                let expected = engine::evaluate(&case.graph, std::slice::from_ref(&case.given));
                let expected = expected.expect("tract runs it");
                let prepared = case.pack(precision).expect(&case.what);
                let bundle = bundle_of(&prepared.graph, precision).expect(&case.what);
                let session = Session::from_bundle(bundle, &Options::default()).expect(&case.what);
                let given = BTreeMap::from([("x".to_owned(), case.given.clone())]);
                let got = session.run(&given).expect(&case.what);
                if got[0].1 != expected[0] {
                    complaints.push(case.what);
                }
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn weights_that_are_no_numbers_become_no_integers() {
    let mut random = Random(7);
    for layer in LAYERS {
        for precision in PRECISIONS {
            // Floats that are no numbers are computed with as they come, by tract.
            if precision.is_float() {
                continue;
            }
            for value in [f32::NAN, f32::NEG_INFINITY] {
                let mut case = Case::of(layer, precision, &mut random);
                let weight = &case.graph.initializers["w"];
                let mut values = weight.to_f32().expect("floats");
                let place = random.below(values.len());
                values[place] = value;
                let weight = Tensor::from_f32(weight.shape(), &values);
                case.graph.initializers.insert("w".to_owned(), weight);
                let refusal = case.pack(precision).map(|it| it.graph.nodes);
                let refusal = refusal.map_err(|error| error.to_string());
                let reason = match layer {
                    Layer::Lookup | Layer::Embedding => "finite weights",
                    _ => "no matrix product, convolution or lookup",
                };
                assert!(
                    matches!(&refusal, Err(message) if message.contains(reason)),
                    "{}, {value}: {refusal:?}",
                    case.what
                );
            }
        }
    }
}
