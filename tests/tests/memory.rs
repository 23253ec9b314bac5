//! What a model takes from memory is known before, and does not grow.
//!
//! What has to be counted to the byte runs in a process of its own: this binary again, which runs one test
//! that is ignored otherwise.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use dram_runtime::allocator::CountingAllocator;
use dram_runtime::bundle::{Bundle, Parts, image};
use dram_runtime::graph::{Attribute, Dim, Node, ValueSpec};
use dram_runtime::prepare::prepare;
use dram_runtime::{DType, Graph, Options, Planned, Precision, Session, Tensor};
use serde_json::Value;
use tempfile::tempdir;

use crate::conformance::{extents, for_each_model, planned};
use crate::dram::{dram, golden, intents, program, skip, text, tiny_bundle, zoo};

/// Counts for all tests of this binary; only a process that runs one of them can make use of it.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// What a budget may be asked too much.
const MARGIN: f64 = 1.15;

/// One fresh process that opens `bundle` with `flags` and answers once: planned peak and measured peak.
fn peaks(bundle: &str, flags: &[&str]) -> Result<(f64, f64), String> {
    let call = [&["--json", "bench", bundle, "--first-answer"], flags].concat();
    let outcome = dram(&call);
    if outcome.code != Some(0) {
        return Err(format!("{flags:?}: {outcome:?}"));
    }
    let answered = outcome.json();
    let bytes = |key: &str| answered[key].as_f64().ok_or(format!("no {key} in {answered}"));
    Ok((bytes("planned_peak_bytes")?, bytes("peak_heap_bytes")?))
}

/// Complains unless the plan bounds what is taken, and closely, for each of `sequences` (or the shapes that
/// were packed) and on one to four threads.
fn assert_close(name: &str, bundle: &str, sequences: &[u64]) -> Result<(), String> {
    let lengths: Vec<String> = sequences.iter().map(u64::to_string).collect();
    let longest = lengths.last().map_or(vec![], |length| vec!["--seq", length]);
    let shorter = lengths.iter().rev().skip(1).map(|length| vec!["--seq", length]);
    let by_threads = ["1", "2", "4"].map(|count| [&["--threads", count], &longest[..]].concat());
    let cases: Vec<Vec<&str>> = shorter.chain(by_threads).collect();
    let one = |flags: &Vec<&str>| assert_close_with(name, bundle, flags).err();
    let complaints: Vec<String> = cases.iter().filter_map(one).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) }
}

/// The same for one way to open a model.
fn assert_close_with(name: &str, model: &str, flags: &[&str]) -> Result<(), String> {
    let (planned, measured) = peaks(model, flags)?;
    let ratio = planned / measured;
    let found = format!("{name} {flags:?}: planned {planned} / measured {measured} = {ratio:.3}");
    println!("{found}");
    if (1.0..=MARGIN).contains(&ratio) { Ok(()) } else { Err(found) }
}

#[test]
fn the_plan_of_the_zoo_is_above_what_is_taken_by_15_percent_at_most() {
    let folder = tempdir().expect("a folder");
    for (name, bundle, sequences) in [
        ("intents", intents(), &[16, 32, 64, 128][..]),
        ("tiny", tiny_bundle(folder.path()), &[16, 32]),
        ("activity", zoo("activity"), &[]),
        ("digits", zoo("digits"), &[]),
    ] {
        assert_close(name, &bundle, sequences)
            .unwrap_or_else(|complaint| panic!("{name}: {complaint}"));
    }
}

/// Each model of the conformance suite, for every length, or the shape of its first case, and thread count.
#[test]
fn third_party_plans_are_above_what_is_taken_by_15_percent_at_most() {
    let test = "third_party_plans_are_above_what_is_taken_by_15_percent_at_most";
    for_each_model(test, |id, path, model| {
        let folder = tempdir().expect("a folder");
        let bundle = text(&folder.path().join("model.dram"));
        let shapes = planned(model);
        let onnx = text(path);
        let mut call = vec!["pack", &onnx, "-o", &bundle, "--precision", "f32", "--task", "raw"];
        call.extend(shapes.iter().map(String::as_str));
        dram(&call).expect(0);
        let manifest = dram(&["inspect", &bundle, "--json"]).expect(0).json();
        let sequences = manifest["manifest"]["sequences"].as_array().into_iter().flatten();
        let mut sequences: Vec<u64> = sequences.filter_map(Value::as_u64).collect();
        // Each opening of a large one takes seconds: the shortest and the longest show the same.
        if std::fs::metadata(&bundle).expect("it is there").len() > 20 << 20 && sequences.len() > 2
        {
            sequences.drain(1..sequences.len() - 1);
        }
        assert_close(id, &bundle, &sequences)?;
        // As it comes it is planned with what it is seen to take.
        let specs = model["case"][0]["input"].as_object().expect("inputs");
        let length = specs.values().next().map(|spec| extents(&spec["shape"]));
        let length = length.and_then(|shape| shape.get(1).map(usize::to_string));
        let as_it_comes = match (&shapes[..], &length) {
            ([], Some(length)) => vec!["--seq", length],
            (shapes, _) => shapes.iter().map(String::as_str).collect(),
        };
        assert_close_with(&format!("{id}.onnx"), &onnx, &as_it_comes)
    });
}

/// A model that our kernels do not run whole: rows of a table, a linear layer, a softmax.
fn mixture() -> Session {
    let tokens = [Dim::Fixed(1), Dim::Symbol("tokens".to_owned())];
    let values = |count: usize| (0..count).map(|i| (i % 7) as f32 / 7.0).collect::<Vec<_>>();
    let constants = [("table", [50, 24]), ("w", [24, 40])];
    let graph = Graph {
        name: "mixture".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![ValueSpec::new("ids", DType::I64, &tokens)],
        outputs: vec![ValueSpec::new("y", DType::F32, &[])],
        nodes: vec![
            Node::new("Gather", &["table", "ids"], &["rows"]),
            Node::new("MatMul", &["rows", "w"], &["h"]),
            Node::new("Softmax", &["h"], &["y"]).with("axis", Attribute::Int(-1)),
        ],
        initializers: constants
            .map(|(name, shape)| {
                (name.to_owned(), Tensor::from_f32(&shape, &values(shape[0] * shape[1])))
            })
            .into(),
        ..Graph::default()
    };
    let prepared = prepare(&graph, Precision::F32).expect("it runs");
    let parts = Parts::of(&prepared.graph, Precision::F32);
    let image = image(&Parts { sequences: &[8, 16, 32], ..parts });
    let bundle = Bundle::from_image(&image).expect("a sound bundle");
    Session::from_bundle(bundle, &Options::default()).expect("it opens")
}

/// Runs this binary again for `test`, which is ignored otherwise, and fails where that fails.
fn in_a_process_of_its_own(test: &str) {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn another_value_takes_the_place_of_the_planned_one() {
    // Rows of `x` as often as `times` says.
    let axes = [Dim::Symbol("rows".to_owned()), Dim::Fixed(3)];
    let graph = Graph {
        name: "repeated".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![
            ValueSpec::new("x", DType::F32, &axes),
            ValueSpec::new("times", DType::I64, &[Dim::Fixed(2)]),
        ],
        outputs: vec![ValueSpec::new("y", DType::F32, &[])],
        nodes: vec![Node::new("Tile", &["x", "times"], &["y"])],
        ..Graph::default()
    };
    let prepared = prepare(&graph, Precision::F32).expect("it runs");
    let bundle = || {
        let image = image(&Parts::of(&prepared.graph, Precision::F32));
        Bundle::from_image(&image).expect("a sound bundle")
    };
    let x = ("x".to_owned(), Planned::Shape(vec![1, 3]));
    let plan = |values: &[f64]| {
        let times = ("times".to_owned(), Planned::Values { values: values.to_vec() });
        let options = Options { shapes: vec![[x.clone(), times].into()], ..Options::default() };
        Session::from_bundle(bundle(), &options)
    };
    let session = plan(&[2.0, 1.0]).expect("a plan");
    assert_eq!(session.controls()[0].name, "times");
    assert_eq!(session.example(1)["times"], Tensor::from_i64(&[2], &[2, 1]));
    for times in [[2, 1], [3, 2], [3, 2], [2, 1]] {
        let x = Tensor::from_f32(&[1, 3], &[0.5; 3]);
        let inputs = [("x".to_owned(), x), ("times".to_owned(), Tensor::from_i64(&[2], &times))];
        let outputs = session.run(&inputs.into()).expect("outputs");
        let [rows, columns] = times.map(|it| it as usize);
        assert_eq!(
            outputs[0].1,
            Tensor::from_f32(&[rows, 3 * columns], &vec![0.5; rows * 3 * columns])
        );
    }
    let shapes = vec![[x.clone()].into()];
    let undecided = Session::from_bundle(bundle(), &Options { shapes, ..Options::default() });
    let error = undecided.unwrap_err().to_string();
    assert!(error.contains("--value times="), "{error}");
}

#[test]
fn ten_thousand_calls_of_varying_shapes_do_not_raise_the_peak_by_one_byte() {
    in_a_process_of_its_own("memory::ten_thousand_calls");
}

#[test]
#[ignore = "the process of ten_thousand_calls_of_varying_shapes_do_not_raise_the_peak_by_one_byte"]
fn ten_thousand_calls() {
    let kernels = Session::open(intents().as_ref(), &Options::default()).expect("it opens");
    let mixture = mixture();
    assert_eq!((kernels.executor(), mixture.executor()), ("kernels", "mixture"));
    let words = "wake me at six tomorrow and play some music ".repeat(20);
    let texts: Vec<&str> = (0..words.len()).step_by(7).map(|end| &words[..end]).collect();
    let tensors: Vec<_> = (1..=kernels.longest()).map(|length| kernels.example(length)).collect();
    let planned = [8, 16, 32].map(|length| mixture.example(length));
    let call = |number: usize| {
        // Every shape, in an order that repeats only after a product of coprime lengths.
        drop(kernels.predict(texts[number % texts.len()]).expect("a prediction"));
        drop(kernels.run(&tensors[number * 37 % tensors.len()]).expect("outputs"));
        drop(mixture.run(&planned[number % planned.len()]).expect("outputs"));
    };
    // The longest of each: what comes with the first calls and stays is there with the second ones.
    for _ in 0..2 {
        drop(kernels.predict(texts[texts.len() - 1]));
        drop(kernels.run(&tensors[tensors.len() - 1]));
        planned.iter().for_each(|inputs| drop(mixture.run(inputs)));
    }
    let (held, peak) = (ALLOCATOR.current_bytes(), ALLOCATOR.peak_bytes());
    ALLOCATOR.restart_peak();
    let once = {
        (0..texts.len().max(tensors.len())).for_each(call);
        ALLOCATOR.peak_bytes()
    };
    (0..10_000).for_each(call);
    assert!(ALLOCATOR.peak_bytes() <= peak.min(once), "{} after {once}", ALLOCATOR.peak_bytes());
    assert_eq!(ALLOCATOR.current_bytes(), held, "nothing is kept from call to call");
}

/// Calls `dram` with `stdin` where no more than `bytes` of address space and a minute of processor time, however
/// long that takes on a busy machine, can be had.
pub(crate) fn dram_within(bytes: u64, stdin: &str, arguments: &[&str]) -> std::process::Output {
    let script = format!("ulimit -v {}; ulimit -t 60; exec \"$0\" \"$@\"", bytes / 1024);
    let mut child = Command::new("sh")
        .args(["-c", &script, &text(program())])
        .args(arguments)
        // What it would take to print a backtrace is not there either: it must not be waited for.
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh starts");
    // A process that ends early does not read.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// The least address space in which `bundle` opens and answers with `--ram` as planned, to 64 KiB.
fn least_address_space(bundle: &str, planned: u64) -> u64 {
    let ram = planned.to_string();
    let answers = |bytes: u64| {
        let call = ["bench", bundle, "--first-answer", "--ram", &ram];
        dram_within(bytes, "", &call).status.success()
    };
    let (mut fails, mut works) = (0, 1 << 30);
    assert!(answers(works), "{bundle} answers in a gibibyte");
    while works - fails > 64 << 10 {
        let middle = (fails + works) / 2;
        if answers(middle) { works = middle } else { fails = middle }
    }
    works
}

/// Nothing can be swapped out of an address space. What the program itself takes is what it takes with next to
/// no model; two mebibytes are for what the system's allocator rounds up.
#[test]
fn a_model_runs_in_an_address_space_barely_above_its_plan() {
    const ROUNDING: u64 = 2 << 20;
    let folder = tempdir().expect("a folder");
    let planned = |bundle: &str| {
        let plan = dram(&["plan", bundle, "--json"]).expect(0).json();
        plan["peak_bytes"].as_u64().expect("bytes")
    };
    let tiny = tiny_bundle(folder.path());
    let program_bytes = least_address_space(&tiny, planned(&tiny)) - planned(&tiny);
    let mut bundles = vec![intents()];
    let minilm = crate::conformance::folder().join("paraphrase-minilm-l3.onnx");
    if minilm.exists() {
        let bundle = text(&folder.path().join("minilm.dram"));
        dram(&["pack", &text(&minilm), "-o", &bundle, "--task", "raw"]).expect(0);
        bundles.push(bundle);
    } else {
        skip("a_model_runs_in_an_address_space_barely_above_its_plan", "no paraphrase-minilm-l3");
    }
    for bundle in bundles {
        let (planned, least) = (planned(&bundle), least_address_space(&bundle, planned(&bundle)));
        println!(
            "{bundle}: planned {planned}, the program {program_bytes}, least that works {least}"
        );
        assert!(least <= program_bytes + planned + ROUNDING, "{bundle}: {least} is needed");
    }
}

#[test]
fn a_budget_that_is_used_up_ends_in_a_sentence() {
    let folder = tempdir().expect("a folder");
    // As long a line as nobody planned for.
    let line = "x".repeat(40 << 20);
    let bundle = intents();
    let outcome = crate::dram::dram_reading(&line, &["run", &bundle, "--ram", "16MiB", "--json"]);
    let outcome = outcome.expect(2);
    assert!(outcome.stderr.contains("out of memory: the heap holds"), "{outcome:?}");
    assert!(outcome.json()["error"].as_str().is_some_and(|it| it.contains("--ram")), "{outcome:?}");
    // It holds while a model opens, too: of an ONNX file there is no plan before.
    let onnx = folder.path().join("tiny.onnx");
    std::fs::copy(golden("tiny.onnx"), &onnx).expect("a copy");
    dram(&["run", &text(Path::new(&onnx)), "--ram", "20KiB"]).expect(1);
}
