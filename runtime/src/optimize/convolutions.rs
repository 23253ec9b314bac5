//! Property: for every combination of a convolution's attributes, the optimized graph computes what the
//! original does on tract, on random weights and images.

use std::collections::BTreeMap;

use crate::engine;
use crate::graph::{Attribute, DRAM_DOMAIN, Dim, Graph, Node, ValueSpec};
use crate::kernels::RowScale;
use crate::prepare::{self, bundle_of};
use crate::quantize::{self, Precision, Scheme};
use crate::session::{Options, Session};
use crate::shapes::Fact;
use crate::tensor::{DType, Tensor};

fn constant(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let all = Fact::new(DType::F32, &[count + seed]).pattern();
    let values = all.to_f32().expect("a pattern of floats");
    Tensor::from_f32(shape, &values[seed..])
}

fn graph(shape: &[usize], nodes: Vec<Node>, constants: Vec<(&str, Tensor)>) -> Graph {
    let dims: Vec<Dim> = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
    let output = nodes[nodes.len() - 1].output().to_owned();
    let graph = Graph {
        name: "images".to_owned(),
        opsets: BTreeMap::from([(String::new(), 17)]),
        inputs: vec![ValueSpec::new("x", DType::F32, &dims)],
        outputs: vec![ValueSpec::new(&output, DType::F32, &[])],
        nodes,
        initializers: constants.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
        metadata: BTreeMap::new(),
    };
    graph.validate().expect("a graph by hand is sound");
    graph
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|&value| value as i64).collect())
}

/// A convolution of `channels` to `n` in `groups` over as many axes as `kernel` has.
fn conv(kernel: &[usize], stride: usize, dilation: usize, pad: usize, groups: usize) -> Node {
    let axes = kernel.len();
    // Uneven padding, so that an exchange of sides shows.
    let pads = [vec![pad; axes], vec![pad / 2; axes]].concat();
    Node::new("Conv", &["x", "w", "b"], &["c"])
        .with("kernel_shape", ints(kernel))
        .with("strides", ints(&vec![stride; axes]))
        .with("dilations", ints(&vec![dilation; axes]))
        .with("pads", ints(&pads))
        .with("group", Attribute::Int(groups as i64))
}

/// Runs `graph` optimized, and gives the session with the largest difference to tract on the original.
fn difference(graph: &Graph) -> (Session, f32) {
    let x = crate::session::facts(graph, 1)[0].pattern();
    let expected = engine::evaluate(graph, std::slice::from_ref(&x)).expect("tract runs it");
    let prepared = prepare::prepare(graph, Precision::F32).expect("it is prepared");
    let bundle = bundle_of(&prepared.graph, Precision::F32).expect("a sound bundle");
    let session = Session::from_bundle(bundle, &Options::default()).expect("it opens");
    let got = session.run(&BTreeMap::from([("x".to_owned(), x)])).expect("it runs");
    assert_eq!(got[0].1.shape(), expected[0].shape());
    let (got, expected) = (got[0].1.to_f32(), expected[0].to_f32());
    let pairs = got.into_iter().flatten().zip(expected.into_iter().flatten());
    (session, pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

/// Nodes that became operators of ours.
fn fused(session: &Session) -> usize {
    session.graph().nodes.iter().filter(|node| node.domain == DRAM_DOMAIN).count()
}

/// Sums of at most 150 products below one in another order.
const TOLERANCE: f32 = 2e-5;

#[test]
fn every_combination_of_attributes_computes_what_the_original_does() {
    let mut count = 0;
    for kernel in [&[1, 1][..], &[3, 3], &[2, 5], &[1], &[4]] {
        for (stride, dilation, pad) in [(1, 1, 0), (2, 1, 0), (1, 2, 1), (2, 1, 2), (3, 2, 2)] {
            for (channels, n, groups) in [(3, 5, 1), (8, 40, 1), (6, 6, 6), (6, 12, 6), (8, 4, 2)] {
                let node = conv(kernel, stride, dilation, pad, groups);
                let shape = [&[2, channels][..], &[11, 9][..kernel.len()]].concat();
                let weight = constant(&[&[n, channels / groups], kernel].concat(), count % 7);
                let constants = vec![("w", weight), ("b", constant(&[n], 3))];
                let (session, worst) = difference(&graph(&shape, vec![node.clone()], constants));
                assert!(worst <= TOLERANCE, "{node:?} over {shape:?}: differs by {worst}");
                assert_eq!(fused(&session), 1, "{node:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 125);
}

#[test]
fn what_follows_a_convolution_is_computed_as_before() {
    let node = |op: &str, inputs: &[&str], output: &str| Node::new(op, inputs, &[output]);
    let auto = |node: Node, pad: &str| node.with("auto_pad", Attribute::String(pad.to_owned()));
    let square =
        |node: Node| node.with("kernel_shape", ints(&[3, 3])).with("strides", ints(&[2, 2]));
    let second = |x: &str, y: &str| node("Conv", &[x, "w2", "b"], y);
    let squeeze_and_excite = vec![
        node("GlobalAveragePool", &["c"], "g"),
        second("g", "s"),
        node("HardSigmoid", &["s"], "h"),
        node("Mul", &["c", "h"], "y"),
    ];
    let narrowed = vec![
        node("Slice", &["c", "from", "to", "across"], "l"),
        node("Squeeze", &["l", "across"], "q"),
        node("GlobalMaxPool", &["q"], "y"),
    ];
    // Each chain, and how many of its nodes our kernels compute, the convolution included.
    let chains = vec![
        (vec![node("Relu", &["c"], "y")], 1),
        (vec![node("Clip", &["c", "zero", "six"], "y")], 1),
        (vec![node("PRelu", &["c", "slopes"], "y")], 1),
        (vec![node("Sigmoid", &["c"], "s"), node("Mul", &["c", "s"], "y")], 1),
        (
            vec![
                node("Mul", &["c", "six"], "m"),
                node("Add", &["m", "per channel"], "a"),
                node("HardSwish", &["a"], "h"),
                node("Mul", &["six", "h"], "y"),
            ],
            1,
        ),
        (vec![second("c", "d"), node("Add", &["d", "c"], "s"), node("Relu", &["s"], "y")], 2),
        (vec![second("c", "d"), node("Relu", &["d"], "r"), node("Add", &["c", "r"], "y")], 2),
        (vec![second("c", "d"), node("Add", &["d", "row"], "y")], 2),
        (vec![auto(square(node("MaxPool", &["c"], "y")), "SAME_UPPER")], 2),
        (vec![auto(square(node("AveragePool", &["c"], "y")), "SAME_LOWER")], 2),
        (squeeze_and_excite, 4),
        (narrowed, 2),
        (
            vec![
                second("c", "d"),
                node("Concat", &["c", "d"], "y").with("axis", Attribute::Int(1)),
            ],
            2,
        ),
        (vec![node("Transpose", &["c"], "y").with("perm", ints(&[0, 2, 3, 1]))], 1),
        (vec![node("Transpose", &["c"], "y").with("perm", ints(&[3, 1, 0, 2]))], 1),
    ];
    let constants = || {
        vec![
            ("w", constant(&[8, 3, 3, 3], 1)),
            ("w2", constant(&[8, 8, 1, 1], 2)),
            ("b", constant(&[8], 3)),
            ("slopes", constant(&[8, 1, 1], 4)),
            ("per channel", constant(&[1, 8, 1, 1], 5)),
            ("row", constant(&[7], 6)),
            ("from", Tensor::from_i64(&[1], &[2])),
            ("to", Tensor::from_i64(&[1], &[3])),
            ("across", Tensor::from_i64(&[1], &[-1])),
            ("zero", Tensor::from_f32(&[], &[0.0])),
            ("six", Tensor::from_f32(&[1], &[6.0])),
        ]
    };
    for (chain, kernels) in chains {
        let nodes = [vec![conv(&[3, 3], 1, 1, 0, 1)], chain].concat();
        let operators: Vec<&str> = nodes.iter().map(|node| node.op.as_str()).collect();
        let graph = graph(&[2, 3, 9, 9], nodes.clone(), constants());
        let (session, worst) = difference(&graph);
        // Numbers up to 60, times six where a scale follows.
        assert!(worst <= 10.0 * TOLERANCE, "{operators:?}: differs by {worst}");
        assert_eq!(fused(&session), kernels, "{operators:?}");
    }
}

#[test]
fn stored_nodes_that_contradict_their_kernel_are_refused_by_name() {
    let node = conv(&[3, 3], 1, 1, 1, 1);
    let constants = vec![("w", constant(&[4, 3, 3, 3], 1)), ("b", constant(&[4], 2))];
    let graph = graph(&[1, 3, 6, 6], vec![node], constants);
    let stored = prepare::prepare(&graph, Precision::F32).expect("it is prepared").graph;
    let place = stored.nodes.iter().position(|node| node.op == "ConvF32").expect("a convolution");
    for (attribute, value, message) in [
        ("kernel", ints(&[3]), "`kernel` of 2 numbers"),
        ("kernel", ints(&[3, 4]), "input 1 of f32 [1, 1, 36, 32]"),
        ("strides", ints(&[0, 1]), "`strides` of 2 numbers from 1"),
        ("pads", Attribute::Ints(vec![0, 0, -1, 0]), "`pads` of 4 numbers from 0"),
        ("padding", Attribute::String("most".to_owned()), "padding fixed, same_upper"),
        ("group", Attribute::Int(2), "whole groups"),
        ("channels", Attribute::Int(-3), "`channels` above 0"),
        ("n", Attribute::Int(40), "input 1 of f32 [1, 2, 27, 32]"),
        (
            "activation",
            Attribute::String("sine".to_owned()),
            "an activation that our kernels cover",
        ),
        ("activation", Attribute::String("clip".to_owned()), "a number `alpha`"),
        ("residual", Attribute::String("never".to_owned()), "a residual `before` or `after`"),
    ] {
        let mut stored = stored.clone();
        stored.nodes[place].attributes.insert(attribute.to_owned(), value);
        let bundle = bundle_of(&stored, Precision::F32).expect("a sound bundle");
        let error = Session::from_bundle(bundle, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(message), "{attribute}: {error}");
    }
}

#[test]
fn rounded_images_pass_between_int8_convolutions() {
    let node = |op: &str, inputs: &[&str], output: &str| Node::new(op, inputs, &[output]);
    let nodes = vec![
        conv(&[3, 3], 1, 1, 1, 1),
        node("Relu", &["c"], "r"),
        node("Conv", &["r", "w2", "b"], "d"),
        node("Relu", &["d"], "e"),
        node("Conv", &["e", "w3", "b"], "y").with("group", Attribute::Int(8)),
    ];
    let constants = vec![
        ("w", constant(&[8, 3, 3, 3], 1)),
        ("w2", constant(&[8, 8, 1, 1], 2)),
        ("w3", constant(&[8, 1, 3, 3], 4)),
        ("b", constant(&[8], 3)),
    ];
    let graph = graph(&[2, 3, 9, 9], nodes, constants);
    let x = crate::session::facts(&graph, 1)[0].pattern();
    let expected = engine::evaluate(&graph, std::slice::from_ref(&x)).expect("tract runs it");
    let mut fused = graph.clone();
    let passes = super::optimize(&mut fused);
    let values: Vec<&str> = quantize::rounded_values(&fused).collect();
    // What the input, the first and the second function give.
    let spans = [(-1.0, 1.0), (0.0, 10.0), (0.0, 12.0)];
    let range = |(value, (least, most)): (&&str, (f32, f32))| {
        ((*value).to_owned(), RowScale::spanning(least, most))
    };
    let ranges = values.iter().zip(spans).map(range).collect();
    let precision = Precision::Int8Static;
    let scheme = Scheme { ranges, ..Scheme::from(precision) };
    let stored = prepare::pack(&fused, &passes, &scheme).expect("it is packed").graph;
    let rounded = stored.nodes.iter().filter(|node| node.attributes.contains_key("y_scale"));
    assert_eq!(rounded.count(), 2);
    let bundle = bundle_of(&stored, precision).expect("a sound bundle");
    let session = Session::from_bundle(bundle, &Options::default()).expect("it opens");
    assert_eq!(session.work(1).int8_mac_share(), 1.0);
    let got = session.run(&BTreeMap::from([("x".to_owned(), x)])).expect("it runs");
    let [got, expected] = [&got[0].1, &expected[0]].map(|it| it.to_f32().expect("floats"));
    // Three roundings to 255 steps.
    let cosine = crate::evaluate::cosine(&got, &expected);
    assert!(cosine > 0.998, "cosine {cosine}");
}
