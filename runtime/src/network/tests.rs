use std::collections::BTreeMap;

use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::prepare::{bundle_of, prepare};
use crate::session::{Options, Session, facts};
use crate::shapes::Fact;
use crate::{DType, Precision, Tensor, engine};

/// A graph over `x`, f32 `[batch, shape]`, whose output is the last value.
fn graph(shape: &[usize], nodes: Vec<Node>, constants: &[(&str, Tensor)]) -> Graph {
    let batch = Dim::Symbol("batch".to_owned());
    let dims: Vec<Dim> =
        std::iter::once(batch).chain(shape.iter().map(|&extent| Dim::Fixed(extent))).collect();
    let graph = Graph {
        name: "network".to_owned(),
        opsets: BTreeMap::from([(String::new(), 17)]),
        inputs: vec![ValueSpec::new("x", DType::F32, &dims)],
        outputs: vec![ValueSpec::new(nodes[nodes.len() - 1].output(), DType::F32, &[])],
        nodes,
        initializers: constants.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect(),
        metadata: BTreeMap::new(),
    };
    graph.validate().unwrap();
    graph
}

fn pattern(shape: &[usize]) -> Tensor {
    Fact::new(DType::F32, shape).pattern()
}

fn transpose(x: &str, y: &str, order: &[i64]) -> Node {
    Node::new("Transpose", &[x], &[y]).with("perm", Attribute::Ints(order.to_vec()))
}

fn session(graph: &Graph, precision: Precision) -> Session {
    let prepared = prepare(graph, precision).unwrap();
    let bundle = bundle_of(&prepared.graph, precision).unwrap();
    Session::from_bundle(bundle, &Options::default()).unwrap()
}

fn values(session: &Session, x: &Tensor) -> Vec<f32> {
    let outputs = session.run(&BTreeMap::from([("x".to_owned(), x.clone())])).unwrap();
    outputs[0].1.to_f32().unwrap()
}

/// Networks that lower completely: what students of signals are made of, and each operator of ONNX's own.
fn networks() -> Vec<(&'static str, Graph)> {
    let ints = |values: &[i64]| Tensor::from_i64(&[values.len()], values);
    let student = {
        let conv = |x: &str, w: &str, y: &str, pad: i64| {
            Node::new("Conv", &[x, w], &[y]).with("pads", Attribute::Ints(vec![0, pad, 0, pad]))
        };
        let nodes = vec![
            transpose("x", "channels", &[0, 2, 1]),
            Node::new("Unsqueeze", &["channels", "axes"], &["maps"]),
            Node::new("Mul", &["maps", "scale"], &["scaled"]),
            Node::new("Add", &["scaled", "shift"], &["front"]),
            conv("front", "w1", "h1", 2),
            Node::new("Relu", &["h1"], &["r1"]),
            conv("r1", "w2", "h2", 1),
            Node::new("Add", &["h2", "r1"], &["s2"]),
            Node::new("Relu", &["s2"], &["r2"]),
            Node::new("GlobalAveragePool", &["r2"], &["pool"]),
            Node::new("Flatten", &["pool"], &["embedding"]),
            Node::new("PRelu", &["embedding", "slopes"], &["bent"]),
            Node::new("Gemm", &["bent", "w3"], &["logits"]),
            Node::new("Softmax", &["logits"], &["shares"]).with("axis", Attribute::Int(1)),
        ];
        let constants = [
            ("axes", ints(&[2])),
            ("scale", pattern(&[6, 1, 1])),
            ("shift", pattern(&[6, 1, 1])),
            ("w1", pattern(&[20, 6, 1, 5])),
            ("w2", pattern(&[20, 20, 1, 3])),
            ("slopes", pattern(&[20])),
            ("w3", pattern(&[20, 4])),
        ];
        graph(&[40, 6], nodes, &constants)
    };
    let spectrum = {
        let nodes = vec![
            Node::new("Mul", &["x", "x"], &["squares"]),
            Node::new("Add", &["squares", "floor"], &["floored"]),
            Node::new("Log", &["floored"], &["log"]),
            Node::new("Sub", &["one", "log"], &["below"]),
            Node::new("Div", &["below", "rows"], &["y"]),
        ];
        let one = Tensor::from_f32(&[], &[1.0]);
        let floor = Tensor::from_f32(&[1], &[0.25]);
        graph(&[3, 5], nodes, &[("floor", floor), ("one", one), ("rows", pattern(&[3, 1]))])
    };
    let shapes = {
        let nodes = vec![
            transpose("x", "t", &[0, 3, 1, 2]),
            Node::new("Reshape", &["t", "shape"], &["wide"]),
            Node::new("Sigmoid", &["wide"], &["share"]),
            Node::new("Unsqueeze", &["share", "last"], &["column"]),
            Node::new("Squeeze", &["column", "last"], &["row"]),
            Node::new("Tanh", &["row"], &["bent"]),
            Node::new("Softmax", &["bent"], &["y"]),
        ];
        graph(&[2, 3, 4], nodes, &[("shape", ints(&[0, 4, -1])), ("last", ints(&[-1]))])
    };
    vec![("student", student), ("spectrum", spectrum), ("shapes", shapes)]
}

#[test]
fn a_network_computes_what_the_graph_says_and_each_of_a_batch_by_itself() {
    for (name, graph) in networks() {
        let shape = &facts(&graph, 3)[0].shape;
        let x = pattern(&[&[3], &shape[1..]].concat());
        let expected = engine::evaluate(&graph, std::slice::from_ref(&x)).unwrap();
        let expected = expected[0].to_f32().unwrap();
        let session = session(&graph, Precision::F32);
        assert_eq!((session.executor(), session.operators().tract), ("kernels", 0), "{name}");
        let got = values(&session, &x);
        let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        let pairs = got.iter().zip(&expected);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        // Sums of up to 60 products in another order.
        assert!(got.len() == expected.len() && worst <= 1e-5 * largest, "{name}: {worst}");

        let all = x.to_f32().unwrap();
        let alone = all.chunks_exact(all.len() / 3).flat_map(|one| {
            values(&session, &Tensor::from_f32(&[&[1], &shape[1..]].concat(), one))
        });
        assert!(alone.eq(got), "{name}: a batch is more than its elements");
    }
}

#[test]
fn rounded_images_pass_between_convolutions_of_a_network() {
    let (_, graph) = networks().swap_remove(0);
    let x = pattern(&[1, 40, 6]);
    let expected = values(&session(&graph, Precision::F32), &x);
    let int8 = session(&graph, Precision::Int8);
    assert_eq!((int8.executor(), int8.work(1).int8_mac_share()), ("kernels", 1.0));
    // Steps of 1/127 and 1/255 of the largest magnitude.
    assert!(crate::evaluate::cosine(&values(&int8, &x), &expected) >= 0.999);
}

#[test]
fn what_would_mix_the_elements_of_a_batch_is_not_lowered() {
    let ints = |values: &[i64]| Tensor::from_i64(&[values.len()], values);
    for (name, nodes, constants) in [
        ("transposed", vec![transpose("x", "y", &[1, 0, 2])], vec![]),
        ("flattened", vec![Node::new("Reshape", &["x", "s"], &["y"])], vec![("s", ints(&[3, -1]))]),
        (
            "a batch of one",
            vec![Node::new("Reshape", &["x", "s"], &["y"])],
            vec![("s", ints(&[1, -1]))],
        ),
        ("repeated", vec![Node::new("Add", &["x", "c"], &["y"])], vec![("c", pattern(&[2, 3, 4]))]),
        (
            "a longer shape",
            vec![Node::new("Add", &["x", "c"], &["y"])],
            vec![("c", pattern(&[1, 1, 3, 4]))],
        ),
    ] {
        let graph = graph(&[3, 4], nodes, &constants);
        let bundle = bundle_of(&graph, Precision::F32).unwrap();
        let refused = super::Network::lower(&bundle, &graph);
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
}
