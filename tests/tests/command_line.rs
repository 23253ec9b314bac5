//! What scripts rely on: JSON keys, exit codes, streams.

use std::io::Read;
use std::process::{Command, Stdio};

use dram_runtime::{Tensor, npy};
use serde_json::Value;
use tempfile::tempdir;

use crate::dram::{dram, dram_reading, golden, intents, program, root, text, tiny_bundle};

/// Asserts that `document` has all of `keys`, each with a value.
#[track_caller]
fn assert_keys(document: &Value, keys: &str) {
    for key in keys.split_whitespace() {
        assert!(document.get(key).is_some_and(|value| !value.is_null()), "no {key} in {document}");
    }
}

#[test]
fn run_gives_a_list_of_labels_for_each_text() {
    let answers =
        dram(&["run", &intents(), "--text", "wake me at six", "--text", "hello", "--json"]);
    let answers = answers.expect(0).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2));
    for answer in answers.as_array().into_iter().flatten() {
        assert_eq!(answer.as_array().map(Vec::len), Some(3));
        assert_keys(&answer[0], "label probability");
    }
    let all = dram(&["run", &intents(), "--text", "hello", "--top", "1000", "--json"]).json();
    let sum: f64 =
        all[0].as_array().into_iter().flatten().flat_map(|it| it["probability"].as_f64()).sum();
    assert!((sum - 1.0).abs() < 1e-4, "probabilities of all labels add up to {sum}");
}

#[test]
fn run_prints_the_likeliest_first() {
    let outcome = dram(&["run", &intents(), "--text", "wake me at six"]).expect(0);
    assert!(outcome.stdout.trim_start().starts_with("alarm"), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 3, "{outcome:?}");
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
}

#[test]
fn texts_come_from_stdin_where_none_are_given() {
    let outcome =
        dram_reading("hello\nwake me at six\n", &["run", &intents(), "--top", "1"]).expect(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{outcome:?}");
    assert!(lines[0] == "hello" && lines[3].contains("alarm"), "{outcome:?}");
}

#[test]
fn tensors_go_in_and_come_out_as_npy() {
    let folder = tempdir().expect("a folder");
    let file = |name: &str, values: &[i64]| {
        let path = folder.path().join(name);
        npy::write(&path, &Tensor::from_i64(&[1, values.len()], values)).expect("a file");
        text(&path)
    };
    let ids = format!("input_ids={}", file("ids.npy", &[3, 10, 17]));
    let mask = format!("attention_mask={}", file("mask.npy", &[1, 1, 1]));
    let (model, saved) = (text(&golden("tiny.onnx")), folder.path().join("out"));
    let save = text(&saved);
    let outcome =
        dram(&["run", &model, "--input", &ids, "--input", &mask, "--save", &save, "--json"]);
    assert_eq!(outcome.expect(0).json()[0]["shape"], serde_json::json!([1, 5]));
    let logits = npy::read(&saved.join("logits.npy")).expect("logits").to_f32().expect("f32");
    // onnxruntime's logits for the same ids, from golden/tiny.json.
    let expected = [-1.8132248, -1.4739199, 2.3881164, 0.7418431, 0.4210391];
    for (got, expected) in logits.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-4, "{logits:?}");
    }
}

#[test]
fn bench_has_its_keys_and_stays_within_the_plan() {
    let measured = dram(&["bench", &intents(), "--seconds", "0.2", "--seq", "32", "--json"]);
    let measured = measured.expect(0).json();
    assert_keys(
        &measured,
        "median_ms p95_ms p99_ms cpu_ms cold_start_ms peak_rss_bytes peak_heap_bytes \
         planned_peak_bytes int8_mac_share executor operators threads seq",
    );
    assert_eq!(measured["seq"], 32);
    assert_within_the_plan(&measured);
    // int8 in name only would be 0.
    assert!(measured["int8_mac_share"].as_f64().is_some_and(|share| share > 0.9), "{measured}");
}

#[test]
fn bench_takes_models_without_a_tokenizer() {
    let folder = tempdir().expect("a folder");
    let bundle = tiny_bundle(folder.path());
    // Beside the least of models, what the command takes to start is most.
    let (model, least) = (text(&golden("image.onnx")), text(&folder.path().join("image.dram")));
    dram(&["pack", &model, "-o", &least, "--precision", "f32", "--task", "raw"]).expect(0);
    for bundle in [bundle, least] {
        let measured = dram(&["bench", &bundle, "--seconds", "0.1", "--json"]).expect(0).json();
        assert_keys(&measured, "median_ms");
        assert_within_the_plan(&measured);
    }
}

#[track_caller]
fn assert_within_the_plan(measured: &Value) {
    let bytes = |key: &str| measured[key].as_u64().expect("bytes");
    assert!(bytes("peak_heap_bytes") <= bytes("planned_peak_bytes"), "{measured}");
}

#[test]
fn profile_has_its_keys_adds_up_and_writes_a_trace() {
    let folder = tempdir().expect("a folder");
    let trace = text(&folder.path().join("trace.json"));
    for (model, kind) in [("intents", "dram.LinearInt8"), ("digits", "dram.ConvInt8")] {
        let bundle = text(&root().join(format!("models/zoo/{model}.dram")));
        let profile = dram(&["profile", &bundle, "--seconds", "0.1", "--trace", &trace, "--json"]);
        let profile = profile.expect(0).json();
        assert_keys(&profile, "median_ms besides_ms operators nodes executor threads inferences");
        let parts = |key: &str| profile[key].as_array().expect("a list").clone();
        let sum = |key: &str, of: &str| -> f64 {
            parts(key).iter().map(|part| part[of].as_f64().expect("a number")).sum()
        };
        for key in ["operators", "nodes"] {
            assert!((sum(key, "share") - 1.0).abs() < 1e-9, "{key}: {profile}");
            assert!(sum(key, "int8_macs") > 1e6, "{key}: {profile}");
        }
        assert_eq!(sum("operators", "count"), parts("nodes").len() as f64, "{profile}");
        assert!(parts("operators").iter().any(|part| part["operator"] == kind), "{profile}");
        let written = std::fs::read_to_string(&trace).expect("a trace");
        let written: Value = serde_json::from_str(&written).expect("JSON");
        let events = written["traceEvents"].as_array().expect("events");
        assert_eq!(events.len(), parts("nodes").len(), "{written}");
        assert!(
            events.iter().all(|event| event["ph"] == "X" && event["dur"].is_f64()),
            "{written}"
        );
    }
}

#[test]
fn plan_has_its_keys_and_adds_up() {
    let plan = dram(&["plan", &intents(), "--board", "rpi-zero-2w", "--json"]).expect(0).json();
    let parts = ["weights_bytes", "activations_bytes", "scratch_bytes", "tokenizer_bytes"];
    let sum: u64 = parts.iter().map(|part| plan[part].as_u64().expect("bytes")).sum();
    assert_eq!(plan["peak_bytes"].as_u64(), Some(sum));
    assert_eq!(plan["fits"], true);
}

#[test]
fn eval_has_its_keys() {
    let folder = tempdir().expect("a folder");
    let data = folder.path().join("data.tsv");
    let rows = "text\tlabel\nwake me at six\talarm\nwhat is the weather\tweather\n";
    std::fs::write(&data, rows).expect("a file");
    let evaluation = dram(&["eval", &intents(), &text(&data), "--json"]).expect(0).json();
    assert_keys(&evaluation, "accuracy macro_f1 examples examples_per_second");
    assert_eq!(evaluation["examples"], 2);
}

#[test]
fn inspect_tells_a_bundle_from_an_onnx_file() {
    let bundle = dram(&["inspect", &intents(), "--json"]).expect(0).json();
    assert_keys(&bundle, "kind name bytes inputs outputs opset operators parameters macs manifest");
    assert_eq!(bundle["kind"], "bundle");
    let onnx = dram(&["inspect", &text(&golden("tiny.onnx")), "--json"]).expect(0).json();
    assert_eq!(onnx["kind"], "onnx");
    assert!(onnx["operators"]["MatMul"].as_u64().is_some_and(|count| count > 0), "{onnx}");
}

#[test]
fn check_boards_and_doctor_have_their_keys() {
    let checked = dram(&["check", &intents(), "--board", "rpi-4", "--json"]).expect(0).json();
    assert_keys(&checked, "runs findings");
    let boards = dram(&["boards", "--json"]).expect(0).json();
    assert!(boards.as_array().is_some_and(|boards| boards.len() >= 5), "{boards}");
    assert_keys(&boards[0], "id name target_triple core features cores ram_bytes ram_usable_bytes");
    assert_keys(&boards[0]["ram_usable_bytes"], "value known source");
    assert_keys(
        &dram(&["doctor", "--json"]).expect(0).json(),
        "version arch os kernels features distill",
    );
}

#[test]
fn pack_reports_what_it_did() {
    let folder = tempdir().expect("a folder");
    let model = text(&golden("tiny.onnx"));
    let bundle = text(&folder.path().join("tiny.dram"));
    let outcome = dram(&["pack", &model, "-o", &bundle, "--task", "raw", "--json"]).expect(0);
    assert_keys(
        &outcome.json(),
        "bytes precision task passes executor operators int8_mac_share fusion_error",
    );
    assert_eq!(outcome.json()["bytes"], std::fs::metadata(&bundle).expect("a bundle").len());
    assert!(outcome.stderr.contains("quantizing"), "progress goes to stderr: {outcome:?}");
}

#[test]
fn too_little_int8_is_refused_and_nothing_is_written() {
    let folder = tempdir().expect("a folder");
    let (model, bundle) = (text(&golden("tiny.onnx")), folder.path().join("tiny.dram"));
    let pack = |precision: &str, share: &str| {
        let call = ["pack", &model, "-o", &text(&bundle), "--task", "raw"];
        dram(&[&call[..], &["--precision", precision, "--require-int8", share]].concat())
    };
    let refused = pack("f16", "0.1%").expect(1);
    assert!(refused.stderr.contains("0.1 % at least"), "{refused:?}");
    assert!(!bundle.exists());
    pack("int8", "100%").expect(0);
}

/// Where int8 saves no work it is not claimed: the layers of the small encoder have 32 and 64 inputs.
#[test]
fn layers_too_narrow_to_gain_stay_f32_unless_int8_is_required() {
    let folder = tempdir().expect("a folder");
    let (model, bundle) = (text(&golden("tiny.onnx")), text(&folder.path().join("tiny.dram")));
    let pack = |more: &[&str]| {
        let call = ["pack", &model, "-o", &bundle, "--task", "raw", "--json"];
        dram(&[&call[..], more].concat()).expect(0).json()
    };
    let report = pack(&[]);
    assert_eq!(report["without_gain"].as_array().map(Vec::len), Some(11), "{report}");
    assert_eq!((&report["precision"], &report["int8_mac_share"]), (&"int8".into(), &0.0.into()));
    let required = pack(&["--require-int8", "100%"]);
    assert_eq!(required["without_gain"], serde_json::json!([]), "{required}");
}

/// What stands beside the products of few channels costs more than these save: the network loses as a whole.
#[test]
fn networks_of_narrow_convolutions_stay_f32_unless_int8_is_required() {
    let folder = tempdir().expect("a folder");
    let bundle = |name: &str| text(&folder.path().join(name));
    let pack = |name: &str, more: &[&str]| {
        let call = ["pack", &text(&golden("image.onnx")), "-o", &bundle(name), "--task", "raw"];
        dram(&[&call[..], more].concat()).expect(0)
    };
    let told = pack("int8.dram", &[]).stdout;
    assert!(told.contains("--require-int8 0%"), "{told}");
    let report = pack("int8.dram", &["--json"]).json();
    assert_eq!(report["int8_mac_share"], 0.0, "{report}");
    assert_eq!(report["without_gain"].as_array().map(Vec::len), Some(7), "{report}");
    let required = pack("required.dram", &["--require-int8", "0%", "--json"]).json();
    assert_eq!(
        (&required["int8_mac_share"], &required["without_gain"]),
        (&1.0.into(), &serde_json::json!([]))
    );
    // What is left in f32 is what f32 is, to the bit.
    pack("f32.dram", &["--precision", "f32"]);
    let compared = dram(&["compare", &bundle("f32.dram"), &bundle("int8.dram"), "--json"]);
    assert_eq!(compared.expect(0).json()["outputs"][0]["worst"], 0.0);
}

#[test]
fn compare_tells_where_two_forms_of_a_model_part() {
    let folder = tempdir().expect("a folder");
    let (model, bundle) = (text(&golden("tiny.onnx")), tiny_bundle(folder.path()));
    let same = dram(&["compare", &model, &model, "--json"]).expect(0).json();
    assert_eq!(same["outputs"][0]["worst"], 0.0);
    let compared = dram(&["compare", &model, &bundle, "--json"]).expect(0).json();
    assert_keys(&compared, "samples outputs layers");
    assert_keys(&compared["outputs"][0], "value worst mean signal_to_noise_db cosine top1 top5");
    assert!(compared["layers"].as_array().is_some_and(|layers| layers.len() > 5), "{compared}");
    let worst = compared["outputs"][0]["worst"].as_f64();
    assert!(worst.is_some_and(|worst| worst > 0.0 && worst < 0.5), "int8 differs: {compared}");
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    let intents = intents();
    for arguments in [
        &[][..],
        &["sing"],
        &["run"],
        &["run", &intents, "--threads", "0"],
        &["run", &intents, "--ram", "plenty"],
        &["plan", &intents, "--ram", "1MiB", "--board", "rpi-4"],
        &["pack", &intents, "-o", "x", "--precision", "int3"],
        &["pack", &intents, "-o", "x", "--max-drop", "1"],
        &["bench", &intents, "--seconds", "-1"],
    ] {
        let outcome = dram(arguments).expect(2);
        assert!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(program())
        .args(["run", &intents(), "--top", "150"])
        .stdin(Stdio::from(std::fs::File::open(root().join("Cargo.lock")).expect("a long file")))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dram starts");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    stdout.read_exact(&mut [0; 10]).expect("ten bytes");
    drop(stdout);
    let output = child.wait_with_output().expect("dram ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
