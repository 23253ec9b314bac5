//! Bad input gives one clear message and the right exit code, and leaves nothing half-written.

use dram_runtime::graph::{Dim, Node, ValueSpec};
use dram_runtime::{DType, Graph};
use tempfile::tempdir;

use crate::dram::{Outcome, dram, golden, intents, listing, root, skip, text};

/// A model in which two of three operators do not exist.
fn unknown_operators() -> Vec<u8> {
    let value = |name: &str| ValueSpec::new(name, DType::F32, &[Dim::Fixed(1), Dim::Fixed(4)]);
    let graph = Graph {
        name: "unknown".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        nodes: vec![
            Node::new("Frobnicate", &["x"], &["a"]),
            Node::new("Relu", &["a"], &["b"]),
            Node::new("Transmogrify", &["b"], &["y"]),
        ],
        ..Graph::default()
    };
    graph.to_onnx()
}

/// Asserts that each of `parts` stands in the message on stderr, behind the program's name.
#[track_caller]
fn assert_says(outcome: &Outcome, parts: &[&str]) {
    assert!(outcome.stderr.lines().any(|line| line.starts_with("dram: ")), "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "no {part} in {outcome:?}");
    }
}

#[test]
fn all_unknown_operators_are_named_at_once() {
    let folder = tempdir().expect("a folder");
    let model = text(&folder.path().join("unknown.onnx"));
    std::fs::write(&model, unknown_operators()).expect("a file");
    let before = listing(folder.path());

    let checked = dram(&["check", &model, "--json"]).expect(1).json();
    let findings = checked["findings"].to_string();
    for operator in ["Frobnicate", "Transmogrify"] {
        assert!(findings.contains(operator), "{checked}");
    }
    assert!(!findings.contains("Relu"), "{checked}");

    let bundle = text(&folder.path().join("unknown.dram"));
    for arguments in [&["run", &model][..], &["pack", &model, "-o", &bundle]] {
        assert_says(&dram(arguments).expect(2), &["Frobnicate", "Transmogrify"]);
    }
    assert_eq!(listing(folder.path()), before, "nothing was written");
}

#[test]
fn a_pack_that_fails_leaves_the_old_bundle() {
    let folder = tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        text(&path)
    };
    let bundle = file("model.dram", "what was there before");
    let labels = file("labels.txt", "one\ntwo\nthree\n");
    let broken = file("broken.json", "{\"no\": \"tokenizer\"}");
    let model = text(&golden("tiny.onnx"));
    let tokenizer = text(&golden("tokenizer.json"));
    let before = listing(folder.path());
    for (flags, message) in [
        (&["--labels", &labels][..], &["no tokenizer", "--tokenizer"][..]),
        (&["--task", "classify", "--tokenizer", &tokenizer], &["no labels", "--labels"]),
        (&["--tokenizer", &tokenizer, "--labels", &labels], &["3 labels", "5 wide"]),
        (&["--tokenizer", &broken, "--task", "embed"], &["tokenizer"]),
        (&["--tokenizer", "nowhere.json", "--task", "embed"], &["nowhere.json"]),
    ] {
        let mut arguments = vec!["pack", &model, "-o", &bundle];
        arguments.extend_from_slice(flags);
        assert_says(&dram(&arguments).expect(2), message);
        assert_eq!(listing(folder.path()), before, "{flags:?}");
        assert_eq!(std::fs::read(&bundle).expect("there"), b"what was there before");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempdir().expect("a folder");
    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello"), ("zeros", &[0; 4096])] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        for verb in ["run", "inspect", "plan"] {
            dram(&[verb, &text(&path)]).expect(2);
        }
    }
    let whole = std::fs::read(golden("tiny.onnx")).expect("golden/tiny.onnx");
    for length in (0..whole.len()).step_by(whole.len() / 12) {
        let path = folder.path().join("cut.onnx");
        std::fs::write(&path, &whole[..length]).expect("a file");
        dram(&["inspect", &text(&path)]).expect(2);
    }
    assert_says(&dram(&["run", "nowhere.dram"]).expect(2), &["nowhere.dram"]);
}

#[test]
fn a_budget_is_refused_with_numbers_and_a_way_out() {
    let intents = intents();
    let planned = dram(&["plan", &intents, "--ram", "2MiB", "--json"]).expect(1).json();
    assert_eq!(planned["fits"], false);
    assert_eq!(planned["budget_bytes"], 2 << 20);
    for part in ["needs", "weights", "tokenizer", "2.0 MiB", "--ram"] {
        assert!(planned["refusal"].as_str().is_some_and(|it| it.contains(part)), "{planned}");
    }
    let outcome = dram(&["run", &intents, "--text", "hello", "--ram", "2MiB"]).expect(1);
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
    assert_says(&outcome, &["needs", "the budget is 2.0 MiB", "--ram"]);

    // Between the needs of the longest and the shortest sequence, a shorter one is the way out.
    let short = dram(&["plan", &intents, "--seq", "16", "--json"]).expect(0).json();
    let ram = short["peak_bytes"].as_u64().expect("bytes").to_string();
    assert_says(&dram(&["run", &intents, "--text", "hi", "--ram", &ram]).expect(1), &["--seq 16"]);
    dram(&["run", &intents, "--text", "hi", "--ram", &ram, "--seq", "16"]).expect(0);
}

#[test]
fn with_json_an_error_is_the_one_document() {
    let refused = dram(&["plan", "nowhere.dram", "--json"]).expect(2);
    assert!(refused.json()["error"].as_str().is_some_and(|it| it.contains("nowhere.dram")));
}

#[test]
fn wrong_inputs_are_named() {
    let folder = tempdir().expect("a folder");
    let array = text(&folder.path().join("x.npy"));
    std::fs::write(&array, "no array").expect("a file");
    let model = text(&golden("tiny.onnx"));
    let input = |value: &str| dram(&["run", &model, "--input", value]);
    assert_says(&input(&format!("input_ids={array}")).expect(2), &["x.npy", "numpy.save"]);
    input("input_ids").expect(2);
    assert_says(&dram(&["run", &model, "--text", "hello"]).expect(2), &["tokenizer", "--input"]);
    assert_says(&dram(&["run", &model]).expect(2), &["input_ids=FILE.npy", "attention_mask"]);
    assert_says(&dram(&["plan", &model, "--board", "pdp-11"]).expect(2), &["pdp-11", "rpi-4"]);
}

#[test]
fn a_recipe_with_a_wrong_field_is_refused_by_line() {
    let folder = tempdir().expect("a folder");
    let recipe = folder.path().join("recipe.toml");
    let intents = root().join("models/recipes/intents.toml");
    let good = std::fs::read_to_string(intents).expect("models/recipes/intents.toml");
    std::fs::write(&recipe, good.replace("temperature", "temprature")).expect("a file");
    let output = folder.path().join("student");
    let outcome = dram(&["distill", &text(&recipe), "-o", &text(&output)]).expect(2);
    assert!(!output.exists(), "nothing was written");
    if dram(&["doctor", "--json"]).expect(0).json()["distill"] == true {
        assert_says(&outcome, &["temprature", "line"]);
    } else {
        assert_says(&outcome, &["--features distill"]);
        skip("a_recipe_with_a_wrong_field_is_refused_by_line", "`dram` is built without distill");
    }
}
