//! Numbers that onnxruntime computed (`golden/make.py`) against ours.

use std::collections::BTreeMap;

use dram_runtime::bundle::{self, Bundle, Parts};
use dram_runtime::{Graph, Options, Precision, Session, Tensor};
use serde_json::Value;

use crate::dram::{golden, tiny_bundle};

/// Two f32 implementations of the same sums, over logits of size 1: what the trainer, onnxruntime,
/// tract and our kernels are held to.
const TOLERANCE: f32 = 1e-4;

fn rows() -> Vec<(Vec<i64>, Vec<f32>)> {
    let file = std::fs::read_to_string(golden("tiny.json")).expect("golden/tiny.json");
    let document: Value = serde_json::from_str(&file).expect("JSON");
    let rows = document["rows"].as_array().expect("rows").iter().map(|row| {
        let ids = row["ids"].as_array().expect("ids").iter();
        let logits = row["onnxruntime"].as_array().expect("logits").iter();
        (
            ids.map(|id| id.as_i64().expect("an id")).collect(),
            logits.map(|logit| logit.as_f64().expect("a logit") as f32).collect(),
        )
    });
    rows.collect()
}

/// Logits of `ids`, padded with masked tokens to `width`.
fn logits(session: &Session, ids: &[i64], width: usize) -> Vec<f32> {
    let padded = |value: i64, tokens: &[i64]| {
        let mut tokens = tokens.to_vec();
        tokens.resize(width, value);
        Tensor::from_i64(&[1, width], &tokens)
    };
    let inputs = BTreeMap::from([
        ("input_ids".to_owned(), padded(0, ids)),
        ("attention_mask".to_owned(), padded(0, &vec![1; ids.len()])),
    ]);
    let outputs = session.run(&inputs).expect("a run");
    outputs[0].1.to_f32().expect("f32 logits")
}

fn worst(session: &Session, width: impl Fn(usize) -> usize) -> f32 {
    let differences = rows().into_iter().map(|(ids, expected)| {
        let got = logits(session, &ids, width(ids.len()));
        assert_eq!(got.len(), expected.len());
        got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    });
    differences.fold(0.0, f32::max)
}

#[test]
fn our_kernels_agree_with_onnxruntime() {
    let session = Session::open(&golden("tiny.onnx"), &Options::default()).expect("it opens");
    assert_eq!(session.executor(), "kernels", "the whole graph is fused");
    for (name, difference) in
        [("alone", worst(&session, |tokens| tokens)), ("padded", worst(&session, |_| 32))]
    {
        assert!(difference <= TOLERANCE, "{name}: differs by {difference}");
    }
}

#[test]
fn a_mixture_with_tract_agrees_with_onnxruntime() {
    let graph = Graph::read_onnx(&golden("tiny.onnx")).expect("it reads");
    // Stored as it came, without a fused operator, a graph runs on tract but for its normalizations.
    let parts = Parts::of(&graph, Precision::F32);
    let image = bundle::image(&Parts { sequences: &[32], ..parts });
    let bundle = Bundle::from_image(&image).expect("a sound bundle");
    let session = Session::from_bundle(bundle, &Options::default()).expect("it opens");
    assert_eq!(session.executor(), "mixture");
    let difference = worst(&session, |_| 32);
    assert!(difference <= TOLERANCE, "differs by {difference}");
    // Its profile has tract's operators and ours.
    let spans = session.profile(&session.example(32)).expect("it runs");
    let takes = |operator: &str| spans.iter().filter(|span| span.operator == operator).count();
    assert!(takes("LayerNormalization") > 0 && takes("Softmax") > 0, "{spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].start + pair[0].duration <= pair[1].start));
}

#[test]
fn int8_keeps_the_likeliest_label() {
    let folder = tempfile::tempdir().expect("a folder");
    let session =
        Session::open(tiny_bundle(folder.path()).as_ref(), &Options::default()).expect("it opens");
    let likeliest =
        |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    for (ids, expected) in rows() {
        let got = logits(&session, &ids, ids.len());
        assert_eq!(likeliest(&got), likeliest(&expected), "{ids:?}: {got:?} for {expected:?}");
    }
    assert!(session.work(32).int8_mac_share() > 0.5);
}

/// Students of windows, of sound with its spectrum inside the graph, and of images.
#[test]
fn students_of_signals_agree_with_onnxruntime() {
    for name in ["window", "sound", "image"] {
        let file = std::fs::read_to_string(golden(&format!("{name}.json"))).expect(name);
        let document: Value = serde_json::from_str(&file).expect("JSON");
        let numbers = |value: &Value| -> Vec<f32> {
            let numbers = value.as_array().expect("numbers").iter();
            numbers.map(|number| number.as_f64().expect("a number") as f32).collect()
        };
        let extents = document["shape"].as_array().expect("extents").iter();
        let shape: Vec<usize> = std::iter::once(1)
            .chain(extents.map(|extent| extent.as_u64().expect("an extent") as usize))
            .collect();
        let path = golden(&format!("{name}.onnx"));
        let session = Session::open(&path, &Options::default()).expect(name);
        for row in document["rows"].as_array().expect("rows") {
            let signal = Tensor::from_f32(&shape, &numbers(&row["signal"]));
            let outputs = session.run(&BTreeMap::from([("signal".to_owned(), signal)]));
            let logits = outputs.expect(name)[0].1.to_f32().expect("f32 logits");
            let expected = numbers(&row["onnxruntime"]);
            assert_eq!(logits.len(), expected.len(), "{name}");
            let differences = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let worst = differences.fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{name} differs by {worst}");
        }
    }
}
