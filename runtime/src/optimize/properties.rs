//! Property: the optimized graph computes what the original does on tract, for random chains of what each pass looks
//! for and of what only looks like it; and each pass finds something in them.

use std::collections::BTreeMap;

use crate::engine;
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::prepare::{self, bundle_of};
use crate::quantize::Precision;
use crate::random::Random;
use crate::session::{Options, Session};
use crate::tensor::{DType, Tensor};

/// A graph that grows node by node, and the value that its last one writes.
struct Chain {
    random: Random,
    nodes: Vec<Node>,
    constants: Vec<(String, Tensor)>,
    last: String,
    /// Values of the shape that the last one has.
    alike: Vec<String>,
}

impl Chain {
    fn new(seed: u64) -> Chain {
        let (last, alike) = ("x".to_owned(), vec!["x".to_owned()]);
        Chain { random: Random(seed), nodes: Vec::new(), constants: Vec::new(), last, alike }
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = format!("v{}", self.nodes.len());
        let node = Node::new(op, inputs, &[&output]);
        let with = |node: Node, (name, value): &(&str, Attribute)| node.with(name, value.clone());
        self.nodes.push(attributes.iter().fold(node, with));
        output
    }

    fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node(op, inputs, &[])
    }

    /// The next value, which has the shape of the one before.
    fn then(&mut self, value: String) {
        self.alike.push(value.clone());
        self.last = value;
    }

    fn constant(&mut self, tensor: Tensor) -> String {
        let name = format!("c{}", self.constants.len());
        self.constants.push((name.clone(), tensor));
        name
    }

    fn scalar(&mut self, value: f32) -> String {
        self.constant(Tensor::from_f32(&[], &[value]))
    }

    fn integers(&mut self, values: &[i64]) -> String {
        self.constant(Tensor::from_i64(&[values.len()], values))
    }

    fn floats(&mut self, shape: &[usize]) -> String {
        let values = self.random.floats(shape.iter().product());
        self.constant(Tensor::from_f32(shape, &values))
    }

    /// Two factors or terms in either order.
    fn both(&mut self, op: &str, a: &str, b: &str) -> String {
        let inputs = if self.random.once_in(2) { [a, b] } else { [b, a] };
        self.op(op, &inputs)
    }

    fn graph(self, inputs: Vec<ValueSpec>) -> Graph {
        let mut graph = Graph {
            name: "random".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs,
            outputs: vec![ValueSpec::new(&self.last, DType::F32, &[])],
            nodes: self.nodes,
            initializers: self.constants.into_iter().collect(),
            metadata: BTreeMap::new(),
        };
        graph.remove_dead();
        let read: Vec<bool> = graph.inputs.iter().map(|it| graph.uses(&it.name) > 0).collect();
        let mut read = read.into_iter();
        graph.inputs.retain(|_| read.next().unwrap_or(false));
        graph.validate().expect("a random graph is sound");
        graph
    }
}

/// Numbers of a token.
const WIDTH: usize = 4;

fn axes(axis: i64) -> Attribute {
    Attribute::Ints(vec![axis])
}

impl Chain {
    /// Vectors of words and their places, or rows of a table found by a product with one-hot rows.
    fn embedded(&mut self) {
        let words = self.floats(&[9, WIDTH]);
        let rows = match self.random.below(3) {
            0 => {
                let numbers: Vec<i64> = (0..9).collect();
                let numbers = self.constant(Tensor::from_i64(&[1, 1, 9], &numbers));
                let column = self.integers(&[0, -1, 1]);
                let column = self.op("Reshape", &["input_ids", &column]);
                let equal = self.op("Equal", &[&column, &numbers]);
                let one_hot = self.node("Cast", &[&equal], &[("to", Attribute::Int(1))]);
                let rows = self.op("MatMul", &[&one_hot, &words]);
                let bias = self.floats(&[1, 1, WIDTH]);
                self.both("Add", &rows, &bias)
            }
            which => {
                let rows = self.op("Gather", &[&words, "input_ids"]);
                let places = self.floats(&[20, WIDTH]);
                let [zero, one, two] = [0, 1, 2].map(|it| self.integers(&[it]));
                let shape = self.op("Shape", &["input_ids"]);
                let length = self.op("Slice", &[&shape, &one, &two, &zero]);
                let offset = self.integers(&[which as i64]);
                let end = self.op("Add", &[&length, &offset]);
                let place = self.op("Slice", &[&places, &offset, &end, &zero]);
                let sum = self.both("Add", &rows, &place);
                let kind = self.floats(&[WIDTH]);
                self.both("Add", &sum, &kind)
            }
        };
        self.alike.clear();
        self.then(rows);
    }

    fn linear_of(&mut self, x: &str) -> String {
        let weight = self.floats(&[WIDTH, WIDTH]);
        let product = self.op("MatMul", &[x, &weight]);
        match self.random.below(4) {
            0 => product,
            // A number for all columns.
            1 => {
                let bias = self.floats(&[1]);
                self.both("Add", &product, &bias)
            }
            _ => {
                let bias = self.floats(&[WIDTH]);
                self.both("Add", &product, &bias)
            }
        }
    }

    fn normalized(&mut self) {
        let x = self.last.clone();
        let axis = if self.random.once_in(4) { 1 } else { -1 };
        let [two, epsilon] = [2.0, 1e-5].map(|it| self.scalar(it));
        let [gamma, beta] = [0, 1].map(|_| self.floats(&[WIDTH]));
        let mean = self.node("ReduceMean", &[&x], &[("axes", axes(axis))]);
        let centered = self.op("Sub", &[&x, &mean]);
        let square = match self.random.below(2) {
            0 => self.op("Pow", &[&centered, &two]),
            _ => self.op("Mul", &[&centered, &centered]),
        };
        let variance = self.node("ReduceMean", &[&square], &[("axes", axes(axis))]);
        let guarded = self.both("Add", &variance, &epsilon);
        let deviation = self.op("Sqrt", &[&guarded]);
        let normal = self.op("Div", &[&centered, &deviation]);
        let scaled = self.both("Mul", &normal, &gamma);
        let result = self.both("Add", &scaled, &beta);
        self.then(result);
    }

    /// A GELU, or another curve of the same make.
    fn gelu(&mut self) {
        let x = self.last.clone();
        let inverse = if self.random.once_in(4) { 0.7 } else { std::f32::consts::FRAC_1_SQRT_2 };
        let [inverse, one, half] = [inverse, 1.0, 0.5].map(|it| self.scalar(it));
        let scaled = self.both("Mul", &x, &inverse);
        let erf = self.op("Erf", &[&scaled]);
        let bracket = self.both("Add", &erf, &one);
        let (a, b, c) = match self.random.below(3) {
            0 => (&x, &bracket, &half),
            1 => (&x, &half, &bracket),
            _ => (&half, &bracket, &x),
        };
        let product = self.both("Mul", a, b);
        let result = self.both("Mul", &product, c);
        self.then(result);
    }

    /// A function of one number, as one operator or written out.
    fn bent(&mut self) {
        let x = self.last.clone();
        let result = match self.random.below(6) {
            0 => self.op("Relu", &[&x]),
            1 => self.op("Tanh", &[&x]),
            2 => {
                let [least, most] = [-0.5, 0.75].map(|it| self.scalar(it));
                self.op("Clip", &[&x, &least, &most])
            }
            3 => {
                let sigmoid = self.op("Sigmoid", &[&x]);
                self.both("Mul", &x, &sigmoid)
            }
            which => {
                let most = if which == 4 { 6.0 } else { 5.0 };
                let [zero, three, six, most] = [0.0, 3.0, 6.0, most].map(|it| self.scalar(it));
                let raised = self.both("Add", &x, &three);
                let clipped = self.op("Clip", &[&raised, &zero, &most]);
                let product = self.both("Mul", &x, &clipped);
                self.op("Div", &[&product, &six])
            }
        };
        self.then(result);
    }

    /// A sum with a value of the same shape that was there before.
    fn residual(&mut self) {
        let before = self.random.below(self.alike.len());
        let (last, before) = (self.last.clone(), self.alike[before].clone());
        let sum = self.both("Add", &last, &before);
        self.then(sum);
    }

    /// What exporters leave behind, and a factor that is the sum of two constants.
    fn idle(&mut self) {
        let x = self.last.clone();
        let same = self.op("Identity", &[&x]);
        let [a, b] = [0.25, 0.5].map(|it| self.scalar(it));
        let factor = self.op("Add", &[&a, &b]);
        let half = self.node("Constant", &[], &[("value_float", Attribute::Float(0.5))]);
        let scaled = self.both("Mul", &same, &factor);
        let result = self.both("Add", &scaled, &half);
        self.then(result);
    }

    /// Attention whose masked keys take no part, or only less of it.
    fn attention(&mut self) {
        let (x, heads) = (self.last.clone(), self.random.of(&[1_i64, 2, 4]));
        let penalty = if self.random.once_in(4) { -1.0 } else { -1e4 };
        let [one, penalty, root] =
            [1.0, penalty, (WIDTH as f32 / heads as f32).sqrt()].map(|it| self.scalar(it));
        let wide = self.integers(&[1, 2]);
        let split = self.integers(&[0, 0, heads, WIDTH as i64 / heads]);
        let merge = self.integers(&[0, 0, WIDTH as i64]);
        let mask = self.node("Cast", &["attention_mask"], &[("to", Attribute::Int(1))]);
        let mask = self.op("Unsqueeze", &[&mask, &wide]);
        let excluded = self.op("Sub", &[&one, &mask]);
        let bias = self.both("Mul", &excluded, &penalty);
        let [query, key, value] = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].map(|order| {
            let rows = self.linear_of(&x);
            let rows = self.op("Reshape", &[&rows, &split]);
            self.node("Transpose", &[&rows], &[("perm", Attribute::Ints(order.to_vec()))])
        });
        let scores = self.op("MatMul", &[&query, &key]);
        let scores = self.op("Div", &[&scores, &root]);
        let scores = self.both("Add", &scores, &bias);
        let shares = self.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        let context = self.op("MatMul", &[&shares, &value]);
        let order = Attribute::Ints(vec![0, 2, 1, 3]);
        let context = self.node("Transpose", &[&context], &[("perm", order)]);
        let context = self.op("Reshape", &[&context, &merge]);
        self.then(context);
    }

    /// The mean over tokens that the mask keeps, or over one more than these; and its direction.
    fn pooled(&mut self) {
        let x = self.last.clone();
        let [one, two] = [1, 2].map(|it| self.integers(&[it]));
        let flat = [("keepdims", Attribute::Int(0))];
        let mask = self.node("Cast", &["attention_mask"], &[("to", Attribute::Int(1))]);
        let column = self.op("Unsqueeze", &[&mask, &two]);
        let kept = self.both("Mul", &x, &column);
        let sum = self.node("ReduceSum", &[&kept, &one], &flat);
        let mut count = self.node("ReduceSum", &[&column, &one], &flat);
        if self.random.once_in(4) {
            let more = self.scalar(1.0);
            count = self.op("Add", &[&count, &more]);
        }
        let mean = self.op("Div", &[&sum, &count]);
        self.alike.clear();
        self.then(mean.clone());
        if self.random.once_in(2) {
            let norm = self.node("ReduceL2", &[&mean], &[("axes", axes(-1))]);
            let direction = self.op("Div", &[&mean, &norm]);
            self.then(direction);
        }
    }
}

impl Chain {
    /// The end of a last layer, and one that reads its first token alone, or another one.
    fn headed(&mut self) {
        let layer = self.linear_of(&self.last.clone());
        self.then(layer);
        self.residual();
        self.normalized();
        let x = self.last.clone();
        let place = if self.random.once_in(4) { -1 } else { 0 };
        let place = self.constant(Tensor::from_i64(&[], &[place]));
        let token = self.node("Gather", &[&x, &place], &[("axis", Attribute::Int(1))]);
        let layer = self.linear_of(&token);
        self.alike.clear();
        self.then(layer);
    }
}

/// A random encoder of tokens, and inputs for it.
fn tokens(seed: u64) -> (Graph, BTreeMap<String, Tensor>) {
    let mut chain = Chain::new(seed);
    if chain.random.once_in(2) {
        chain.embedded();
    }
    for _ in 0..2 + chain.random.below(5) {
        match chain.random.below(10) {
            0 => chain.normalized(),
            1 => chain.gelu(),
            2 => chain.bent(),
            3 => chain.residual(),
            4 => chain.idle(),
            5 => chain.attention(),
            _ => {
                let x = chain.last.clone();
                let layer = chain.linear_of(&x);
                chain.then(layer);
            }
        }
    }
    match chain.random.below(3) {
        0 => chain.pooled(),
        1 => chain.headed(),
        _ => {}
    }
    let [batch, length] = [1 + chain.random.below(2), 1 + chain.random.below(6)];
    let count = batch * length;
    let ids: Vec<i64> = (0..count).map(|_| chain.random.below(9) as i64).collect();
    // The first token of each text is kept.
    let mask = (0..count).map(|place| i64::from(place % length == 0 || chain.random.once_in(2)));
    let mask: Vec<i64> = mask.collect();
    let x = chain.random.floats(count * WIDTH);
    let inputs = BTreeMap::from([
        ("input_ids".to_owned(), Tensor::from_i64(&[batch, length], &ids)),
        ("attention_mask".to_owned(), Tensor::from_i64(&[batch, length], &mask)),
        ("x".to_owned(), Tensor::from_f32(&[batch, length, WIDTH], &x)),
    ]);
    let open = ["batch", "sequence"].map(|name| Dim::Symbol(name.to_owned()));
    let wide = [&open[..], &[Dim::Fixed(WIDTH)]].concat();
    let graph = chain.graph(vec![
        ValueSpec::new("input_ids", DType::I64, &open),
        ValueSpec::new("attention_mask", DType::I64, &open),
        ValueSpec::new("x", DType::F32, &wide),
    ]);
    (graph, inputs)
}

impl Chain {
    fn convolved(&mut self, channels: usize) -> usize {
        let groups = self.random.of(&[1, 1, 2, channels]);
        let n = groups * (1 + self.random.below(3));
        let kernel = self.random.of(&[1, 3]);
        let weight = self.floats(&[n, channels / groups, kernel, kernel]);
        let pads = Attribute::Ints(vec![kernel as i64 / 2; 4]);
        let attributes = [("pads", pads), ("group", Attribute::Int(groups as i64))];
        let x = self.last.clone();
        let result = match self.random.below(2) {
            0 => self.node("Conv", &[&x, &weight], &attributes),
            _ => {
                let bias = self.floats(&[n]);
                self.node("Conv", &[&x, &weight, &bias], &attributes)
            }
        };
        if n != channels {
            self.alike.clear();
        }
        self.then(result);
        n
    }

    /// Factors and terms of channels, as one operator or two; or terms along a row, which are no channels.
    fn standardized(&mut self, channels: usize) {
        let x = self.last.clone();
        let [gamma, beta, mean] = [0, 1, 2].map(|_| self.floats(&[channels]));
        let variance: Vec<f32> = self.random.floats(channels).iter().map(|it| it + 1.5).collect();
        let variance = self.constant(Tensor::from_f32(&[channels], &variance));
        let result = match self.random.below(3) {
            0 => self.op("BatchNormalization", &[&x, &gamma, &beta, &mean, &variance]),
            1 => {
                let [factor, term] = [0, 1].map(|_| self.floats(&[channels, 1, 1]));
                let scaled = self.both("Mul", &x, &factor);
                self.both("Add", &scaled, &term)
            }
            _ => {
                let row = self.floats(&[SIDE]);
                self.both("Add", &x, &row)
            }
        };
        self.then(result);
    }

    /// What is negative, times a slope of its channel.
    fn sloped(&mut self, channels: usize) {
        let (x, slopes) = (self.last.clone(), self.floats(&[channels, 1, 1]));
        let result = self.op("PRelu", &[&x, &slopes]);
        self.then(result);
    }

    /// Channels weighed by what they hold on average.
    fn excited(&mut self, channels: usize) {
        let x = self.last.clone();
        let weight = self.floats(&[channels, channels, 1, 1]);
        let mean = self.op("GlobalAveragePool", &[&x]);
        let squeezed = self.op("Conv", &[&mean, &weight]);
        let factors = self.op("Sigmoid", &[&squeezed]);
        let result = self.both("Mul", &x, &factors);
        self.then(result);
    }
}

/// Rows and columns of an image.
const SIDE: usize = 5;

/// A random network over images, and an input for it.
fn images(seed: u64) -> (Graph, BTreeMap<String, Tensor>) {
    let mut chain = Chain::new(seed);
    let shape = [1 + chain.random.below(2), 2 * (1 + chain.random.below(2)), SIDE, SIDE];
    let values = chain.random.floats(shape.iter().product());
    let mut channels = shape[1];
    for _ in 0..3 + chain.random.below(6) {
        match chain.random.below(8) {
            0 => chain.standardized(channels),
            1 => chain.bent(),
            2 => chain.residual(),
            3 => chain.excited(channels),
            4 => chain.sloped(channels),
            // Two groups want whole channels each.
            _ if channels.is_multiple_of(2) => channels = chain.convolved(channels),
            _ => chain.idle(),
        }
    }
    let dims = shape.map(Dim::Fixed);
    let graph = chain.graph(vec![ValueSpec::new("x", DType::F32, &dims)]);
    let inputs = graph.inputs.iter().map(|it| (it.name.clone(), Tensor::from_f32(&shape, &values)));
    (graph.clone(), inputs.collect())
}

#[test]
fn an_optimized_graph_computes_what_the_original_does() {
    let mut rewrites: BTreeMap<&str, usize> = BTreeMap::new();
    let mut complaints = Vec::new();
    for seed in 0..120 {
        for (kind, (graph, given)) in [("tokens", tokens(seed)), ("images", images(seed))] {
            let operators: Vec<&str> = graph.nodes.iter().map(|node| node.op.as_str()).collect();
            let what = format!("{kind} {seed}: {operators:?}");
            let inputs: Vec<Tensor> =
                graph.inputs.iter().map(|input| given[&input.name].clone()).collect();
            let expected = engine::evaluate(&graph, &inputs).expect(&what);
            let prepared = prepare::prepare(&graph, Precision::F32).expect(&what);
            for report in &prepared.passes {
                *rewrites.entry(report.pass).or_default() += report.rewrites;
            }
            let names = |values: &[ValueSpec]| -> Vec<String> {
                values.iter().map(|value| value.name.clone()).collect()
            };
            assert_eq!(names(&prepared.graph.inputs), names(&graph.inputs), "{what}");
            assert_eq!(names(&prepared.graph.outputs), names(&graph.outputs), "{what}");
            let bundle = bundle_of(&prepared.graph, Precision::F32).expect(&what);
            let session = Session::from_bundle(bundle, &Options::default()).expect(&what);
            let read = graph.inputs.iter().map(|it| (it.name.clone(), given[&it.name].clone()));
            let got = session.run(&read.collect()).expect(&what);
            let [got, expected] = [&got[0].1, &expected[0]];
            let values = [got, expected].map(|it| it.to_f32().expect("floats"));
            let largest = values[1].iter().fold(1.0_f32, |most, it| most.max(it.abs()));
            // The direction of a vector of zeros is no number, and zeros here.
            let pairs = values[0].iter().zip(&values[1]).filter(|(_, b)| !b.is_nan());
            let apart = pairs.map(|(a, b)| (a - b).abs());
            let worst = apart.fold(0.0, |worst: f32, it| if it <= worst { worst } else { it });
            // Sums in another order differ by 1e-6 of the largest; a norm of nearly equal numbers enlarges that.
            if got.shape() != expected.shape() || worst.is_nan() || worst > 1e-4 * largest {
                complaints.push(format!("{what}: {worst} of {largest}"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    for (pass, _) in super::PASSES {
        assert!(rewrites[pass] >= 8, "{pass} found too little to be tried: {rewrites:?}");
    }
}
