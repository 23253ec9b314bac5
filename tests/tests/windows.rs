//! Windows of a sensor: models that take them, data to measure them on, and the example that reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use dram_runtime::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use dram_runtime::{DType, Options, Precision, Prediction, Session, Task, Tensor, bundle, npy};
use tempfile::tempdir;

use crate::dram::{built, dram, root, skip, text};

/// A bundle for windows `[batch, 4, 2]` whose logits are the means of the two channels.
fn means(folder: &Path) -> PathBuf {
    let [batch, two] = [Dim::Symbol("batch".to_owned()), Dim::Fixed(2)];
    let mean = Node::new("ReduceMean", &["window"], &["logits"])
        .with("axes", Attribute::Ints(vec![1]))
        .with("keepdims", Attribute::Int(0));
    let window = [batch.clone(), Dim::Fixed(4), two.clone()];
    let graph = Graph {
        name: "means".to_owned(),
        opsets: [(String::new(), 13)].into(),
        inputs: vec![ValueSpec::new("window", DType::F32, &window)],
        outputs: vec![ValueSpec::new("logits", DType::F32, &[batch, two])],
        nodes: vec![mean],
        initializers: [].into(),
        metadata: [].into(),
    };
    let path = folder.join("means.dram");
    let parts = bundle::Parts {
        task: Task::Classify,
        labels: &["left".to_owned(), "right".to_owned()],
        ..bundle::Parts::of(&graph, Precision::F32)
    };
    bundle::write(&path, &parts).expect("a bundle");
    path
}

/// Three windows, the second and the third of them larger in channel 1.
fn windows(folder: &Path, labels: &Tensor) -> String {
    let rows = [[0.5, 0.1], [0.2, 0.9], [-1.0, 1.0]].map(|sample: [f32; 2]| [sample; 4]);
    let path = folder.join("windows.npy");
    npy::write(&path, &Tensor::from_f32(&[3, 4, 2], rows.as_flattened().as_flattened()))
        .expect("a file");
    npy::write(&folder.join("windows.labels.npy"), labels).expect("a file");
    text(&path)
}

#[test]
fn windows_get_labels_without_a_tokenizer() {
    let folder = tempdir().expect("a folder");
    let session = Session::open(&means(folder.path()), &Options::default()).expect("it opens");
    let window = Tensor::from_f32(&[1, 4, 2], [[0.0, 3.0_f32.ln()]; 4].as_flattened());
    let inputs = [("window".to_owned(), window)].into();
    let Ok(Prediction::Labels(scored)) = session.predict_tensors(&inputs) else {
        panic!("labels were asked for")
    };
    // softmax(0, ln 3) = 1/4, 3/4.
    assert_eq!(scored[0].label, "right");
    assert!((scored[0].probability - 0.75).abs() < 1e-6, "{scored:?}");
}

#[test]
fn eval_measures_windows_with_the_labels_beside_them() {
    let folder = tempdir().expect("a folder");
    let bundle = text(&means(folder.path()));
    for labels in [Tensor::from_i64(&[3], &[0, 1, 0]), Tensor::from_i32(&[3, 1], &[0, 1, 0])] {
        let data = windows(folder.path(), &labels);
        let measured = dram(&["eval", &bundle, &data, "--json"]).expect(0).json();
        assert_eq!(measured["examples"], 3);
        // Left: 1 of 2 found, nothing else called left; right: found, called once too often; F1 2/3 each.
        for key in ["accuracy", "macro_f1"] {
            let share = measured[key].as_f64().expect("a number");
            assert!((share - 2.0 / 3.0).abs() < 1e-9, "{key} in {measured}");
        }
    }
    for (labels, expected) in [
        (Tensor::from_i64(&[2], &[0, 1]), "expected [3] of u8, i32 or i64, got i64 [2]"),
        (Tensor::from_i64(&[3], &[0, -1, 0]), "expected [3] of u8, i32 or i64"),
        (Tensor::from_f32(&[3], &[0.0, 1.0, 0.0]), "expected [3] of u8, i32 or i64"),
        (Tensor::from_i64(&[3], &[0, 1, 2]), "expected an index below 2"),
    ] {
        let outcome = dram(&["eval", &bundle, &windows(folder.path(), &labels)]).expect(2);
        assert!(outcome.stderr.contains(expected), "{outcome:?}");
    }
}

#[test]
fn the_activity_example_follows_a_recording() {
    let (student, recording) = (
        root().join("models/zoo/activity.dram"),
        root().join("../shared/data/hapt/replay_u01.csv"),
    );
    for file in [&student, &recording] {
        if !file.exists() {
            let why = format!("no {}", file.display());
            return skip("the_activity_example_follows_a_recording", &why);
        }
    }
    let mut command = Command::new(built(&["--example", "activity"], "activity"));
    let output = command.arg(student).arg("--replay").arg(recording).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let line = stdout.lines().last().expect("a last line");
    let accuracy = line.strip_prefix("accuracy ").and_then(|rest| rest.split(' ').next());
    let accuracy: f64 = accuracy.and_then(|share| share.parse().ok()).expect("a share");
    // The subject is one of those that students are trained on; nine in ten is far below what they reach.
    assert!(accuracy > 90.0, "{line}");
}
