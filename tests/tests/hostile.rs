//! Bytes from outside, whatever they are, end in a result within bounds.

use std::time::{Duration, Instant};

use dram_runtime::graph::{Attribute, Dim, Node, ValueSpec};
use dram_runtime::{DType, Graph, Tensor};
use dram_tests::hostile::{ENTRIES, mutations};
use serde_json::Value;

use crate::dram::{root, text};
use crate::memory::dram_within;

/// Mutations of each entry's seeds; `DRAM_MUTATIONS` asks for others.
const MUTATIONS: usize = 2000;

/// The slowest call there may be. A call takes milliseconds; the machine may be busy.
const LONGEST: Duration = Duration::from_secs(10);

/// What fuzzing found worth keeping, by the names of the files.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(root().join("fuzz/seeds").join(name)) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

#[test]
fn mutated_inputs_neither_panic_nor_hang() {
    let asked = std::env::var("DRAM_MUTATIONS").ok().and_then(|count| count.parse().ok());
    for entry in ENTRIES {
        let mut seeds = (entry.seeds)();
        seeds.extend(corpus(entry.name));
        for (index, bytes) in
            seeds.iter().cloned().chain(mutations(&seeds, asked.unwrap_or(MUTATIONS))).enumerate()
        {
            let started = Instant::now();
            if std::panic::catch_unwind(|| (entry.call)(&bytes)).is_err() {
                let path = std::env::temp_dir().join(format!("dram-{}-{index}", entry.name));
                std::fs::write(&path, &bytes).expect("a file");
                panic!("{} input {index} panics; it is kept in `{}`", entry.name, path.display());
            }
            assert!(
                started.elapsed() < LONGEST,
                "{} input {index}: {:?}",
                entry.name,
                started.elapsed()
            );
        }
    }
}

/// `y` of `x`, both f32 `[1, 4]`, by `nodes` over `constants`.
fn graph(nodes: Vec<Node>, constants: &[(&str, Tensor)]) -> Graph {
    let value = |name: &str| ValueSpec::new(name, DType::F32, &[Dim::Fixed(1), Dim::Fixed(4)]);
    Graph {
        name: "hostile".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        nodes,
        initializers: constants.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect(),
        ..Graph::default()
    }
}

fn numbers(values: &[i64]) -> Tensor {
    Tensor::from_i64(&[values.len()], values)
}

/// `sum`, the sum of a constant of a gigabyte and more that `shape` asks for.
fn a_gigabyte(operator: &str) -> Vec<Node> {
    let grown = match operator {
        "ConstantOfShape" => Node::new(operator, &["shape"], &["grown"]),
        "Range" => Node::new(operator, &["none", "many", "one"], &["grown"]),
        _ => Node::new(operator, &["ones", "shape"], &["grown"]),
    };
    let sum = Node::new("ReduceSum", &["grown"], &["sum"]).with("keepdims", Attribute::Int(0));
    vec![grown, sum]
}

/// Models of a thousand bytes that ask for a gigabyte, or for hours.
fn files() -> Vec<(&'static str, Graph)> {
    let scalar = |value: f32| Tensor::from_f32(&[], &[value]);
    let constants = |shape: &[i64]| {
        vec![
            ("shape", numbers(shape)),
            ("ones", Tensor::from_f32(&vec![1; shape.len()], &[1.0])),
            ("none", scalar(0.0)),
            ("one", scalar(1.0)),
            ("many", scalar(3e8)),
        ]
    };
    let added = |mut nodes: Vec<Node>| {
        nodes.push(Node::new("Add", &["x", "sum"], &["y"]));
        nodes
    };
    let mut files: Vec<(&str, Graph)> = ["Expand", "Tile", "ConstantOfShape", "Range"]
        .map(|operator| {
            (operator, graph(added(a_gigabyte(operator)), &constants(&[1 << 15, 1 << 14])))
        })
        .into();
    // Many that are a gigabyte together.
    let parts = (0..40).flat_map(|part| {
        let (grown, last) = (format!("grown{part}"), format!("y{part}"));
        let before = if part == 0 { "x".to_owned() } else { format!("y{}", part - 1) };
        [
            Node::new("Expand", &["ones", "shape"], &[&grown]),
            Node::new("ReduceSum", &[&grown], &[&format!("sum{part}")])
                .with("keepdims", Attribute::Int(0)),
            Node::new("Add", &[&before, &format!("sum{part}")], &[&last]),
        ]
    });
    let mut parts: Vec<Node> = parts.collect();
    parts.push(Node::new("Relu", &["y39"], &["y"]));
    files.push(("parts", graph(parts, &constants(&[1 << 12, 1 << 11]))));
    // In the body of a scan, which no count of the graph around it sees.
    let value = |name: &str, shape: &[Dim]| ValueSpec::new(name, DType::F32, shape);
    let rows = [Dim::Fixed(1), Dim::Fixed(4)];
    let mut body = graph(a_gigabyte("Expand"), &[]);
    body.inputs = vec![value("v", &rows), value("e", &[Dim::Fixed(4)])];
    body.outputs = vec![value("w", &[]), value("f", &[])];
    body.nodes.push(Node::new("Add", &["v", "sum"], &["w"]));
    body.nodes.push(Node::new("Relu", &["e"], &["f"]));
    let scanned = |body: &Graph| {
        let node = Node::new("Scan", &["x", "x"], &["y", "all"])
            .with("num_scan_inputs", Attribute::Int(1))
            .with("body", Attribute::Graph(Box::new(body.clone())));
        graph(vec![node], &constants(&[1 << 15, 1 << 14]))
    };
    files.push(("scan", scanned(&body)));
    // Found by mutating: states are counted back from there.
    let mut endless = scanned(&body);
    endless.nodes[0].attributes.insert("num_scan_inputs".to_owned(), Attribute::Int(1 << 32));
    files.push(("a scan of more than there is", endless));
    let own = constants(&[1 << 15, 1 << 14]);
    body.initializers = own.into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
    files.push(("scan with constants of its own", scanned(&body)));
    let mut small = body;
    small.initializers.insert("shape".to_owned(), numbers(&[1, 4]));
    files.push(("a small scan", scanned(&small)));
    // Found by fuzzing: from this axis to the last one it is far.
    let norm = Node::new("LayerNormalization", &["x", "g", "g"], &["y"])
        .with("axis", Attribute::Int(i64::MIN));
    files.push(("axis", graph(vec![norm], &[("g", Tensor::from_f32(&[4], &[1.0; 4]))])));
    // An input of a gigabyte is planned, and not taken until somebody gives it.
    let mut vast = graph(vec![Node::new("Relu", &["x"], &["y"])], &[]);
    for value in vast.inputs.iter_mut().chain(&mut vast.outputs) {
        value.shape = vec![Dim::Fixed(1), Dim::Fixed(1 << 28)];
    }
    files.push(("input", vast));
    files
}

#[test]
fn a_small_file_cannot_ask_for_a_gigabyte_or_for_hours() {
    const GIBIBYTE: u64 = 1 << 30;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    for (name, graph) in files() {
        let bytes = graph.to_onnx();
        assert!(bytes.len() < 8192, "{name}: {} bytes", bytes.len());
        std::fs::write(&path, bytes).expect("a file");
        for verb in ["inspect", "check", "plan", "run"] {
            let outcome = dram_within(GIBIBYTE, "", &[verb, &text(&path)]);
            let code = outcome.status.code();
            println!("{name} {verb}: {code:?}");
            assert!(matches!(code, Some(0..=2)), "{name} {verb}: {outcome:?}");
            let said = String::from_utf8_lossy(&outcome.stderr);
            match (name, verb) {
                // A graph may hold what it does not compute; `run` wants inputs that nobody gives.
                ("a small scan" | "input", "check" | "plan") => {
                    assert_eq!(code, Some(0), "{name}: {said}")
                }
                (_, "inspect") | ("a small scan" | "input", _) => {}
                ("axis" | "a scan of more than there is", _) => {
                    assert!(code != Some(0), "{said}")
                }
                (_, "check") => assert_eq!(code, Some(1), "{name}: {said}"),
                _ => assert!(said.contains("constants up to here"), "{name} {verb}: {said}"),
            }
        }
    }
}

#[test]
fn a_model_that_is_not_open_in_time_is_given_up() {
    // Two constants of 64 MiB, multiplied with each other again and again.
    let wide = numbers(&[32, 1 << 19]);
    let high = numbers(&[1 << 19, 32]);
    let mut nodes = vec![
        Node::new("Expand", &["ones", "wide"], &["a"]),
        Node::new("Expand", &["ones", "high"], &["b"]),
    ];
    for turn in 0..400 {
        let (product, sum, before) =
            (format!("p{turn}"), format!("s{turn}"), format!("s{}", turn - 1));
        let before = if turn == 0 { "x" } else { &before };
        let total = format!("t{turn}");
        nodes.push(Node::new("MatMul", &["a", "b"], &[&product]));
        nodes.push(
            Node::new("ReduceSum", &[&product], &[&total]).with("keepdims", Attribute::Int(0)),
        );
        nodes.push(Node::new("Add", &[before, &total], &[&sum]));
    }
    nodes.push(Node::new("Relu", &["s399"], &["y"]));
    let ones = Tensor::from_f32(&[1, 1], &[1.0]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("slow.onnx");
    let slow = graph(nodes, &[("wide", wide), ("high", high), ("ones", ones)]);
    std::fs::write(&path, slow.to_onnx()).expect("a file");
    for verb in ["inspect", "check", "plan", "run"] {
        let call = [verb, &text(&path), "--within", "500ms", "--json"];
        let outcome = dram_within(4 << 30, "", &call);
        assert_eq!(outcome.status.code(), Some(2), "{verb}: {outcome:?}");
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert!(said.contains("not done within 500ms"), "{verb}: {said}");
        let document: Value = serde_json::from_slice(&outcome.stdout).expect("one document");
        assert!(document["error"].is_string(), "{verb}: {document}");
    }
}
