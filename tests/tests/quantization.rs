//! `dram pack` in each precision: what it demands, reports, and refuses.

use std::path::Path;

use dram_runtime::graph::{Dim, Node, ValueSpec};
use dram_runtime::{DType, Graph, Options, Session, Tensor, npy};
use serde_json::Value;
use tempfile::tempdir;

use crate::dram::{dram, golden, text};

/// A folder with 24 sequences of 16 ids for the tiny encoder, and masks that keep them all.
fn sequences(folder: &Path) -> String {
    so_many_sequences(24, folder)
}

fn so_many_sequences(count: usize, folder: &Path) -> String {
    let data = folder.join("sequences");
    std::fs::create_dir(&data).expect("a folder");
    let ids: Vec<i64> = (0..count as i64 * 16).map(|place| 1 + place * place % 95).collect();
    let write = |name: &str, values: &[i64]| {
        npy::write(&data.join(name), &Tensor::from_i64(&[count, 16], values)).expect("written");
    };
    write("input_ids.npy", &ids);
    write("attention_mask.npy", &vec![1; count * 16]);
    text(&data)
}

#[test]
fn static_int8_is_calibrated_and_held_to_what_f32_answers() {
    let folder = tempdir().expect("a folder");
    let (model, data) = (text(&golden("tiny.onnx")), sequences(folder.path()));
    let bundle = text(&folder.path().join("tiny.dram"));
    let pack = |calibration: &str| {
        let call = ["pack", &model, "-o", &bundle, "--task", "raw", "--precision", "int8-static"];
        let data = ["--calibrate", &data, "--calibration", calibration, "--eval", &data, "--json"];
        let limits = ["--max-drop", "10", "--require-int8", "50%"];
        dram(&[&call[..], &limits, &data].concat()).expect(0).json()
    };
    for calibration in ["min-max", "percentile", "entropy", "mse"] {
        let report = pack(calibration);
        assert_eq!(report["precision"], "int8-static", "{report}");
        assert_eq!(report["calibrated"]["calibration"], calibration, "{report}");
        assert_eq!(report["calibrated"]["samples"], 24, "{report}");
        assert_eq!(report["measure"], "agreement", "{report}");
        assert_eq!(report["f32_score"], 1.0, "{report}");
        assert!(report["int8_mac_share"].as_f64().is_some_and(|share| share > 0.5), "{report}");
        // What is inside runs here as it did when it was packed.
        dram(&["verify", &bundle]).expect(0);
    }
}

/// Narrow weights are held to f32 too, and the bundle is smaller than the one that it is compared with.
#[test]
fn narrow_weights_are_stored_smaller_and_held_to_what_f32_answers() {
    let folder = tempdir().expect("a folder");
    let (model, data) = (text(&golden("tiny.onnx")), sequences(folder.path()));
    let bundle = text(&folder.path().join("tiny.dram"));
    let pack = |precision: &str| {
        let call = ["pack", &model, "-o", &bundle, "--task", "raw", "--precision", precision];
        // Layers that are too narrow to gain are rounded too.
        let gate = ["--eval", &data, "--max-drop", "15", "--require-int8", "0%", "--json"];
        let report = dram(&[&call[..], &gate].concat()).expect(0).json();
        assert_eq!(report["precision"], precision, "{report}");
        dram(&["verify", &bundle]).expect(0);
        (report["bytes"].as_u64().expect("bytes"), report["int8_mac_share"].as_f64())
    };
    let bytes = ["f32", "f16", "int8", "int4-8", "int4"].map(|name| pack(name).0);
    assert!(bytes.is_sorted_by(|a, b| a > b), "{bytes:?}");
    // Sixteen inputs are all that its layers have, but for some of one.
    assert!(pack("int4-16").0 <= bytes[3]);
    assert_eq!(pack("int4").1, pack("int8").1, "both multiply integers");
    assert_eq!(pack("f16").1, Some(0.0));
}

#[test]
fn static_int8_without_data_is_a_usage_error() {
    let model = text(&golden("tiny.onnx"));
    let call = ["pack", &model, "-o", "x", "--task", "raw", "--precision", "int8-static"];
    assert!(dram(&call).expect(2).stderr.contains("--calibrate"));
}

/// What costs too much is put back to a range for each row, and the report says so; what costs too much even so
/// is refused.
#[test]
fn a_gate_that_static_int8_misses_is_held_by_finer_ranges() {
    let folder = tempdir().expect("a folder");
    let (model, data) = (text(&golden("tiny.onnx")), so_many_sequences(95, folder.path()));
    let bundle = folder.path().join("tiny.dram");
    // Ranges of one sequence of one token, within which hardly another sequence keeps.
    let narrow = folder.path().join("narrow");
    std::fs::create_dir(&narrow).expect("a folder");
    for name in ["input_ids.npy", "attention_mask.npy"] {
        npy::write(&narrow.join(name), &Tensor::from_i64(&[1, 1], &[1])).expect("written");
    }
    let (bundle, narrow) = (text(&bundle), text(&narrow));
    let call = ["pack", &model, "-o", &bundle, "--task", "raw", "--precision", "int8-static"];
    let gate = ["--calibrate", &narrow, "--eval", &data, "--max-drop", "10", "--json"];
    // Layers that are too narrow to gain are rounded too.
    let report = dram(&[&call[..], &gate, &["--require-int8", "0%"]].concat()).expect(0).json();
    let rounds = report["repair"]["rounds"].as_array().expect("rounds");
    let [first, .., last] = &rounds[..] else { panic!("two rounds at least: {report}") };
    assert_eq!((&first["put_back"], &first["to"]), (&0.into(), &"int8-static".into()));
    assert_eq!(last["to"], "int8");
    assert!(first["score"].as_f64() < Some(0.9) && last["score"].as_f64() >= Some(0.9));
    let nodes = report["repair"]["nodes"].as_array().expect("nodes");
    let back = nodes.iter().filter(|node| node["stored_as"] == "int8").count();
    assert_eq!(last["put_back"], back, "{report}");
    let noise = |node: &Value| node["signal_to_noise_db"].as_f64();
    assert!(nodes.is_sorted_by(|a, b| noise(a) <= noise(b)), "the noisiest first: {report}");
}

/// A product whose two columns differ by less than int8 tells apart, so that which of them is larger is lost in it: nothing
/// but f32 would hold the gate, and one node stays rounded.
#[test]
fn a_gate_that_nothing_holds_is_refused_and_nothing_is_written() {
    let folder = tempdir().expect("a folder");
    let value = |name: &str, width| {
        ValueSpec::new(name, DType::F32, &[Dim::Symbol("batch".to_owned()), Dim::Fixed(width)])
    };
    let mut weights = vec![1.0; 2 * 4];
    weights[1] = 1.001;
    let graph = Graph {
        name: "pair".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![value("x", 4)],
        outputs: vec![value("y", 2)],
        nodes: vec![Node::new("MatMul", &["x", "w"], &["y"])],
        initializers: [("w".to_owned(), Tensor::from_f32(&[4, 2], &weights))].into(),
        ..Graph::default()
    };
    let (model, bundle) = (folder.path().join("pair.onnx"), folder.path().join("pair.dram"));
    std::fs::write(&model, graph.to_onnx()).expect("a file");
    let data = folder.path().join("x.npy");
    let x: Vec<f32> = (0..24 * 4).map(|place| (place * place % 17) as f32 - 8.0).collect();
    npy::write(&data, &Tensor::from_f32(&[24, 4], &x)).expect("written");
    let (model, data) = (text(&model), text(&data));
    let gate = ["--task", "raw", "--precision", "int8", "--eval", &data, "--max-drop", "0"];
    let written = text(&bundle);
    let call = [&["pack", &model, "-o", &written][..], &gate, &["--require-int8", "0%"]];
    let refused = dram(&call.concat()).expect(1);
    assert!(refused.stderr.contains("points less, allowed 0 points"), "{refused:?}");
    assert!(!bundle.exists(), "nothing is written");
}

/// Groups of four bits that cost too much become smaller before they become int8.
#[test]
fn a_gate_that_int4_misses_is_held_by_smaller_groups_first() {
    let folder = tempdir().expect("a folder");
    let (model, data) = (text(&golden("tiny.onnx")), sequences(folder.path()));
    let bundle = text(&folder.path().join("tiny.dram"));
    let call = ["pack", &model, "-o", &bundle, "--task", "raw", "--precision", "int4"];
    let gate = ["--eval", &data, "--max-drop", "1", "--json"];
    let report = dram(&[&call[..], &gate].concat()).expect(0).json();
    let rounds = report["repair"]["rounds"].as_array().expect("rounds");
    let mut steps: Vec<&str> = rounds.iter().filter_map(|round| round["to"].as_str()).collect();
    steps.dedup();
    let all = ["int4", "int4-16", "int4-8", "int8", "f32"];
    assert!(steps.len() >= 2 && all.starts_with(&steps), "{report}");
    assert!(rounds[0]["score"].as_f64() < Some(0.99), "{report}");
    assert!(report["score"].as_f64() >= Some(0.99), "{report}");
    let stored = &report["repair"]["nodes"][0]["stored_as"];
    assert_eq!(stored, steps[steps.len() - 1], "the noisiest first: {report}");
}

/// Models that onnxruntime's quantizers made (`golden/quantized.py`) become integer nodes of ours, and answer as
/// onnxruntime does.
#[test]
fn graphs_of_other_quantizers_run_on_integers_and_answer_alike() {
    let file = std::fs::read_to_string(golden("quantized.json")).expect("golden/quantized.json");
    let cases: Vec<Value> = serde_json::from_str(&file).expect("JSON");
    let mut complaints = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let numbers = |key: &str| -> Vec<f64> {
            let list = case[key].as_array().expect("a list").iter();
            list.map(|number| number.as_f64().expect("a number")).collect()
        };
        let shape: Vec<usize> = numbers("shape").into_iter().map(|it| it as usize).collect();
        let values = numbers("values");
        let input = match case["dtype"].as_str() {
            Some("i64") => {
                Tensor::from_i64(&shape, &values.iter().map(|&it| it as i64).collect::<Vec<_>>())
            }
            _ => Tensor::from_f32(&shape, &values.iter().map(|&it| it as f32).collect::<Vec<_>>()),
        };
        let model = golden(&format!("quantized/{name}.onnx"));
        let options = Options {
            shapes: vec![
                [(case["input"].as_str().expect("a name").to_owned(), shape.into())].into(),
            ],
            ..Options::default()
        };
        let session = Session::open(&model, &options).expect(name);
        let inputs = [(case["input"].as_str().expect("a name").to_owned(), input)].into();
        let outputs = session.run(&inputs).expect(name);
        let answers = outputs[0].1.to_f32().expect("f32");
        let expected = numbers("onnxruntime");
        let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        assert_eq!(answers.len(), expected.len(), "{name}");
        let worst = |exact: &[f64]| {
            let pairs = answers.iter().zip(exact);
            pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max) / largest
        };
        let (distance, lost) = (worst(&expected), worst(&numbers("float")));
        let share = session.work(1).int8_mac_share();
        println!("{name}: {distance:.4} from onnxruntime, {lost:.4} from floats, int8 {share:.3}");
        // onnxruntime rounds between operators where we do not, and has one range for all rows: a few
        // steps of 255.
        if distance > 0.05 {
            complaints.push(format!("{name} is {distance:.4} from onnxruntime"));
        }
        if share < 0.9 {
            complaints.push(format!("{name} runs {share:.3} of its products on integers"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
