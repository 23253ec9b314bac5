//! What every pass here keeps, on random graphs: rewritten, they compute what the operator says.

use std::collections::BTreeMap;

use crate::engine;
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::random::Random;
use crate::rewrite;
use crate::shapes;
use crate::tensor::{DType, Tensor};

const CASES: usize = 60;

fn graph(inputs: Vec<ValueSpec>, nodes: Vec<Node>, constants: Vec<(String, Tensor)>) -> Graph {
    let output = nodes[nodes.len() - 1].output().to_owned();
    let graph = Graph {
        name: "random".to_owned(),
        opsets: BTreeMap::from([(String::new(), 17), ("com.microsoft".to_owned(), 1)]),
        inputs,
        outputs: vec![ValueSpec::new(&output, DType::F32, &[])],
        nodes,
        initializers: constants.into_iter().collect(),
        ..Graph::default()
    };
    graph.validate().expect("a random graph is sound");
    graph
}

fn fixed(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&extent| Dim::Fixed(extent)).collect()
}

/// What the specialized `graph` gives for `inputs`; something must have been rewritten.
fn outputs(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let facts = shapes::known(inputs, &rewrite::controls(graph));
    let rewritten =
        rewrite::specialize(graph, &facts, &engine::shape_constant).expect("it is known");
    assert_ne!(*rewritten, *graph, "nothing was rewritten");
    rewritten.validate().expect("a pass leaves a sound graph");
    engine::evaluate(&rewritten, inputs).expect("it runs")
}

#[test]
fn sums_along_an_axis_are_those_of_a_loop() {
    let mut random = Random(1);
    for _ in 0..CASES {
        let shape: Vec<usize> = (0..1 + random.below(3)).map(|_| 1 + random.below(4)).collect();
        let axis = random.below(shape.len());
        let [exclusive, reverse] = [random.once_in(2), random.once_in(2)];
        let count: usize = shape.iter().product();
        let values: Vec<i64> = (0..count).map(|_| random.below(2000) as i64 - 1000).collect();
        let sum = Node::new("CumSum", &["x", "axis"], &["y"])
            .with("exclusive", Attribute::Int(exclusive.into()))
            .with("reverse", Attribute::Int(reverse.into()));
        let constants = vec![("axis".to_owned(), Tensor::from_i64(&[], &[axis as i64]))];
        let input = ValueSpec::new("x", DType::I64, &fixed(&shape));
        let got = outputs(
            &graph(vec![input], vec![sum], constants),
            &[Tensor::from_i64(&shape, &values)],
        );
        let step: usize = shape[axis + 1..].iter().product();
        let along = |place: usize| place / step % shape[axis];
        let expected: Vec<i64> = (0..count)
            .map(|place| {
                let line = |other: &usize| {
                    let start = |place: usize| place - along(place) * step;
                    let (before, here) = (along(*other), along(place));
                    let inside = if reverse { before > here } else { before < here };
                    start(*other) == start(place) && (inside || (!exclusive && before == here))
                };
                (0..count).filter(line).map(|other| values[other]).sum()
            })
            .collect();
        assert_eq!(got[0].to_i64(), Some(expected), "{shape:?}, axis {axis}");
    }
}

/// A tree of choices by `rate`: what a leaf of it does to `x`, and the branch that does so.
struct Tree {
    nodes: Vec<Node>,
    value: fn(f32) -> f32,
    other: Option<(i64, Box<Tree>)>,
}

impl Tree {
    fn random(random: &mut Random, depth: usize, place: &str) -> Tree {
        let (op, value): (&str, fn(f32) -> f32) = random.of(&[
            ("Neg", (|x| -x) as fn(f32) -> f32),
            ("Abs", f32::abs),
            ("Identity", |x| x),
        ]);
        let leaf = Node::new(op, &["x"], &[&format!("{place}/v")]);
        if depth == 0 || random.once_in(4) {
            return Tree { nodes: vec![leaf], value, other: None };
        }
        let other = Tree::random(random, depth - 1, &format!("{place}/e"));
        let rate = random.below(4);
        let name = |part: &str| format!("{place}/{part}");
        let branch = |nodes: &[Node]| {
            let output = ValueSpec::new(nodes[nodes.len() - 1].output(), DType::F32, &[]);
            let nodes = nodes.to_vec();
            Attribute::Graph(Box::new(Graph { nodes, outputs: vec![output], ..Graph::default() }))
        };
        let nodes = vec![
            Node::new("Equal", &["rate", &format!("rate.{rate}")], &[&name("is")]),
            Node::new("If", &[&name("is")], &[&name("y")])
                .with("then_branch", branch(&[leaf]))
                .with("else_branch", branch(&other.nodes)),
        ];
        Tree { nodes, value, other: Some((rate as i64, Box::new(other))) }
    }

    fn of(&self, rate: i64) -> fn(f32) -> f32 {
        match &self.other {
            Some((when, other)) if *when != rate => other.of(rate),
            _ => self.value,
        }
    }
}

#[test]
fn of_branches_in_branches_the_chosen_one_runs() {
    let mut random = Random(2);
    for _ in 0..CASES {
        let tree = Tree::random(&mut random, 4, "t");
        let Some(_) = &tree.other else { continue };
        let rates = (0..4).map(|rate| (format!("rate.{rate}"), Tensor::from_i64(&[], &[rate])));
        let inputs = vec![
            ValueSpec::new("x", DType::F32, &fixed(&[3])),
            ValueSpec::new("rate", DType::I64, &[]),
        ];
        let mut graph = graph(inputs, tree.nodes.clone(), rates.collect());
        graph.outputs = vec![ValueSpec::new("t/y", DType::F32, &[])];
        for rate in 0..5 {
            let x = random.floats(3);
            let inputs = [Tensor::from_f32(&[3], &x), Tensor::from_i64(&[], &[rate])];
            let expected: Vec<f32> = x.into_iter().map(tree.of(rate)).collect();
            assert_eq!(outputs(&graph, &inputs)[0].to_f32(), Some(expected), "rate {rate}");
        }
    }
}

#[test]
fn a_shape_that_an_input_holds_is_taken() {
    let mut random = Random(3);
    for _ in 0..CASES {
        let shape: Vec<usize> = (0..1 + random.below(4)).map(|_| 1 + random.below(4)).collect();
        let count: usize = shape.iter().product();
        let inputs = vec![
            ValueSpec::new("x", DType::F32, &fixed(&[count])),
            ValueSpec::new("shape", DType::I64, &fixed(&[shape.len()])),
        ];
        let nodes = vec![
            Node::new("Abs", &["shape"], &["extents"]),
            Node::new("Reshape", &["x", "extents"], &["y"]),
        ];
        let x = random.floats(count);
        let mut extents: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        extents.iter_mut().filter(|_| random.once_in(2)).for_each(|extent| *extent = -*extent);
        let given = [Tensor::from_f32(&[count], &x), Tensor::from_i64(&[shape.len()], &extents)];
        let got = outputs(&graph(inputs, nodes, Vec::new()), &given);
        assert_eq!(got[0], Tensor::from_f32(&shape, &x));
    }
}

/// One direction of an LSTM over `x [steps, input]`, weights `[input, 4 hidden]` and `[hidden, 4 hidden]`, gates in
/// ONNX's order: the last hidden state.
fn recurrence(x: &[Vec<f32>], [w, r]: [&[f32]; 2], hidden: usize) -> Vec<f32> {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
    for x in x {
        let sum = |gate: usize, unit: usize| {
            let dot = |values: &[f32], weights: &[f32]| -> f32 {
                let column = weights.iter().skip(gate * hidden + unit).step_by(4 * hidden);
                values.iter().zip(column).map(|(value, weight)| value * weight).sum()
            };
            dot(x, w) + dot(&h, r)
        };
        let next = |unit: usize| {
            let c = sigmoid(sum(2, unit)) * c[unit] + sigmoid(sum(0, unit)) * sum(3, unit).tanh();
            (sigmoid(sum(1, unit)) * c.tanh(), c)
        };
        (h, c) = (0..hidden).map(next).unzip();
    }
    h
}

#[test]
fn a_recurrence_in_8_bits_is_that_of_floats_but_for_its_steps() {
    let mut random = Random(4);
    for _ in 0..CASES {
        let [steps, input, hidden] = [4, 5, 4].map(|most| 1 + random.below(most));
        let direction = random.of(&["forward", "reverse", "bidirectional"]);
        let directions = if direction == "bidirectional" { 2 } else { 1 };
        let mut weights = |rows: usize| -> Vec<i8> {
            (0..directions * rows * 4 * hidden).map(|_| random.below(255) as i8).collect()
        };
        let (w, r) = (weights(input), weights(hidden));
        let scale = 1.0 / 254.0;
        let floats =
            |weights: &[i8]| weights.iter().map(|&it| f32::from(it) * scale).collect::<Vec<_>>();
        let names = ["x", "w", "r", "", "", "", "", "", "scale", "zero", "scale", "zero"];
        let node = Node {
            domain: "com.microsoft".to_owned(),
            ..Node::new("DynamicQuantizeLSTM", &names, &["", "h"])
        };
        let node = node
            .with("hidden_size", Attribute::Int(hidden as i64))
            .with("direction", Attribute::String(direction.to_owned()));
        let last = Node::new("Identity", &["h"], &["y"]);
        let shape = |rows: usize| [directions, rows, 4 * hidden];
        let constants = vec![
            ("w".to_owned(), Tensor::from_i8(&shape(input), &w)),
            ("r".to_owned(), Tensor::from_i8(&shape(hidden), &r)),
            ("scale".to_owned(), Tensor::from_f32(&[directions], &vec![scale; directions])),
            ("zero".to_owned(), Tensor::from_i8(&[directions], &vec![0; directions])),
        ];
        let x = random.floats(steps * input);
        let spec = ValueSpec::new("x", DType::F32, &fixed(&[steps, 1, input]));
        let given = [Tensor::from_f32(&[steps, 1, input], &x)];
        let got = outputs(&graph(vec![spec], vec![node, last], constants), &given);
        let got = got[0].to_f32().expect("f32");
        let (w, r) = (floats(&w), floats(&r));
        let rows: Vec<Vec<f32>> = x.chunks(input).map(<[f32]>::to_vec).collect();
        for (index, got) in got.chunks(hidden).enumerate() {
            let mut rows = rows.clone();
            if direction == "reverse" || index == 1 {
                rows.reverse();
            }
            let part = |weights: &[f32], height: usize| {
                weights[index * height * 4 * hidden..][..height * 4 * hidden].to_vec()
            };
            let (w, r) = (part(&w, input), part(&r, hidden));
            for (got, expected) in got.iter().zip(recurrence(&rows, [&w, &r], hidden)) {
                // Nine terms, each off by half a step of 2 / 255 times half, add up to 0.02; four steps pass it on.
                assert!((got - expected).abs() < 0.04, "{got} for {expected}, {direction}");
            }
        }
    }
}
